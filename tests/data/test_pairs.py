"""Pair sets: both formats give one thing, and say what is wrong by line number."""

import io
import shutil
import sys

import numpy as np
import pytest
from PIL import Image

from sf2_plugin.data import (
    PairSet,
    decode_image,
    encode_jpeg,
    read_pair_list,
    read_pairs,
    write_pair_bin,
)


def picture(value: int) -> np.ndarray:
    return np.full((6, 9, 3), (value, 0, 255 - value), np.uint8)


@pytest.fixture
def faces(tmp_path):
    """Four images, one of them with spaces in its path."""
    for number, name in enumerate(["A/1.jpg", "A/2.jpg", "B/1.jpg", "Mary Ann/my face.jpg"]):
        path = tmp_path / name
        path.parent.mkdir(exist_ok=True)
        path.write_bytes(encode_jpeg(picture(60 * number)))
    return tmp_path


def write_list(folder, text: str, name: str = "val_pairs.txt"):
    path = folder / name
    path.write_bytes(text.encode())
    return path


def test_list_with_spaces_and_tabs(faces):
    text = "A/1.jpg A/2.jpg 1\n\n  A/1.jpg   B/1.jpg 0 \r\nB/1.jpg\tMary Ann/my face.jpg\t0"
    pairs = read_pairs(write_list(faces, text))
    assert pairs.name == "val_pairs"
    names = ["A/1.jpg", "A/2.jpg", "A/1.jpg", "B/1.jpg", "B/1.jpg", "Mary Ann/my face.jpg"]
    assert list(pairs.images) == [faces / name for name in names]
    assert pairs.issame.dtype == bool
    assert pairs.issame.tolist() == [True, False, False]
    assert np.abs(pairs.decode(5).astype(int) - picture(180)).max() < 8


def test_paths_are_looked_for_under_val_or_the_given_root(faces):
    (faces / "val").mkdir()
    path = write_list(faces, "A/1.jpg A/2.jpg 1")
    with pytest.raises(ValueError, match=r"val/A/1\.jpg"):
        read_pair_list(path)
    shutil.move(faces / "A", faces / "val" / "A")
    assert read_pair_list(path).images[0] == faces / "val" / "A" / "1.jpg"
    other = write_list(faces / "val", "1.jpg 2.jpg 1", "other.txt")
    assert read_pairs(other, root=faces / "val" / "A").images[1] == faces / "val" / "A" / "2.jpg"


def test_bin(tmp_path):
    images = [encode_jpeg(picture(value)) for value in (0, 80, 0, 240)]
    write_pair_bin(tmp_path / "lfw.bin", images, [1, 0])
    pairs = read_pairs(tmp_path / "lfw.bin")
    assert (pairs.name, list(pairs.images)) == ("lfw", images)
    assert pairs.issame.tolist() == [True, False]
    assert np.abs(pairs.decode(3).astype(int) - picture(240)).max() < 8


def test_a_list_becomes_a_bin(faces):
    listed = read_pairs(write_list(faces, "A/1.jpg A/2.jpg 1\nA/1.jpg B/1.jpg 0\n"))
    write_pair_bin(faces / "set.bin", listed.images, listed.issame)
    packed = read_pairs(faces / "set.bin")
    assert packed.images == [path.read_bytes() for path in listed.images]
    assert packed.issame.tolist() == [True, False]
    before = (faces / "set.bin").read_bytes()
    with pytest.raises(FileNotFoundError, match=r"gone\.jpg"):
        write_pair_bin(faces / "set.bin", [faces / "gone.jpg", *listed.images[1:]], listed.issame)
    assert (faces / "set.bin").read_bytes() == before


@pytest.mark.parametrize(
    "images", [[b"a", b"b", b"a", b"a", b"c", b"b"], [b"x"] * 6, list(b"abcdef")]
)
def test_distinct_gives_back_all_images(images):
    images = [bytes([image]) if isinstance(image, int) else image for image in images]
    first, inverse = PairSet("set", images, np.ones(3, bool)).distinct()
    distinct = [images[i] for i in first]
    assert distinct == list(dict.fromkeys(images))
    assert [distinct[i] for i in inverse] == images


def test_embeddings_are_of_all_images_and_their_names_of_where_each_first_occurs():
    images = [b"a", b"bb", b"a", b"a", b"ccc", b"bb"]
    asked = []

    def embed(distinct, names):
        asked.append((distinct, names))
        return np.array([[len(image)] for image in distinct], np.float32)

    embeddings = PairSet("lfw", images, np.ones(3, bool)).embeddings(embed)
    assert embeddings.ravel().tolist() == [1, 2, 1, 1, 3, 2]
    named = [f"image {i} of pair set lfw" for i in (0, 1, 4)]
    assert asked == [([b"a", b"bb", b"ccc"], named)]


def test_list_and_bin_agree(face_set):
    listed, packed = read_pairs(face_set / "val_pairs.txt"), read_pairs(face_set / "val.bin")
    assert np.array_equal(listed.issame, packed.issame)
    assert all(
        path.read_bytes() == image for path, image in zip(listed.images, packed.images, strict=True)
    )
    assert len(listed.images) == 2 * len(listed.issame)
    for one, other in zip(listed.distinct(), packed.distinct(), strict=True):
        assert np.array_equal(one, other)
    assert np.array_equal(listed.decode(17), packed.decode(17))
    assert listed.decode(17).shape == (112, 112, 3)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "has no pairs"),
        ("\n  \n", "has no pairs"),
        ("A/1.jpg A/2.jpg 1\nA/1.jpg A/2.jpg", r"val_pairs\.txt, line 2: 'A/1.jpg A/2.jpg'"),
        ("A/1.jpg A/2.jpg yes", "line 1: .*two paths and 0 or 1"),
        ("A/1.jpg A/2.jpg 1 1", "line 1: "),
        ("A/1.jpg Mary Bob/my face.jpg 0", "line 1: .*tabs where a path has spaces"),
        ("A/1.jpg A/2.jpg 1\n\nA/1.jpg C/9.jpg 0", r"line 3: there is no image .*C/9\.jpg"),
        ("A/1.jpg A 1", "line 1: there is no image .*/A$"),
        ("A/1.jpg A/\0.jpg 1", "line 1: there is no image"),
    ],
)
def test_malformed_lists(faces, text, message):
    with pytest.raises(ValueError, match=message):
        read_pairs(write_list(faces, text))


def test_binary_list_and_missing_files(faces):
    (faces / "list.txt").write_bytes(b"A/1.jpg A/2.jpg 1\n\xff\xfe 1 1\n")
    with pytest.raises(ValueError, match="line 2: not UTF-8"):
        read_pairs(faces / "list.txt")
    with pytest.raises(FileNotFoundError, match=r"absent\.txt"):
        read_pairs(faces / "absent.txt")


def encoded(format: str, mode: str = "RGB") -> bytes:
    buffer = io.BytesIO()
    Image.fromarray(picture(200)).convert(mode).save(buffer, format, quality=95)
    return buffer.getvalue()


@pytest.mark.parametrize("format", ["JPEG", "PNG", "BMP", "WEBP"])
@pytest.mark.parametrize("mode", ["RGB", "L"])
def test_decoding_gives_rgb(format, mode):
    pixels = decode_image(encoded(format, mode))
    assert (pixels.dtype, pixels.shape) == (np.uint8, (6, 9, 3))
    expected = Image.fromarray(picture(200)).convert(mode).convert("RGB")
    assert np.abs(pixels.astype(int) - np.asarray(expected)).max() < 12


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"no image at all",
        encoded("JPEG")[:200],
        encoded("PNG")[:50],
        encoded("TIFF"),
        b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 10 10\n",
    ],
    ids=["empty", "text", "short JPEG", "short PNG", "TIFF", "EPS"],
)
def test_undecodable_images_are_named(tmp_path, content):
    (tmp_path / "x.jpg").write_bytes(content)
    with pytest.raises(ValueError, match=r"x\.jpg: not readable as an image"):
        decode_image(tmp_path / "x.jpg")
    with pytest.raises(ValueError, match="image 1 of pair set lfw: not readable as an image"):
        PairSet("lfw", [b"", content], np.ones(1, bool)).decode(1)


@pytest.mark.parametrize(
    "pixels", [np.zeros((4, 4), np.uint8), np.zeros((4, 4, 3)), np.zeros((4, 4, 4), np.uint8)]
)
def test_encoding_wants_rgb_bytes(pixels):
    with pytest.raises(ValueError, match="an image is uint8"):
        encode_jpeg(pixels)


def test_without_pillow_the_extra_is_named(monkeypatch):
    jpeg = encode_jpeg(picture(0))
    monkeypatch.setitem(sys.modules, "PIL", None)
    monkeypatch.setitem(sys.modules, "PIL.Image", None)
    with pytest.raises(ImportError, match=r'pip install "sf2-plugin\[data\]"'):
        decode_image(jpeg)


def test_a_line_beyond_all_measure_is_one_error(tmp_path):
    for line in ("a," * 200_000 + "1", "a" * 300 + " b 1", "a " * 100_000):
        (tmp_path / "pairs.txt").write_text(line)
        with pytest.raises(ValueError, match=r"pairs\.txt") as raised:
            read_pairs(tmp_path / "pairs.txt")
        assert len(str(raised.value)) < 1000
