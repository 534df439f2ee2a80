"""Images: what is decoded is what training's readers decode, or a refusal says why."""

import io
import weakref

import numpy as np
import pytest

pytest.importorskip("PIL", reason='needs pip install "sf2-plugin[data]"')

from packaging.version import Version
from PIL import Image

from sf2_plugin.backbones.embedding import embed_images
from sf2_plugin.data import decode_image, images

ROUGH = np.random.default_rng(0).integers(0, 256, (4, 6, 3), dtype=np.uint8)
FACE = Image.fromarray(ROUGH).resize((48, 32), Image.BICUBIC)


def encoded(image: Image.Image, format: str = "PNG", **options) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, format, **options)
    return buffer.getvalue()


def opencv(content: bytes) -> np.ndarray:
    """As MMCV's reader and mxnet decode."""
    cv2 = pytest.importorskip("cv2")
    return cv2.imdecode(np.frombuffer(content, np.uint8), cv2.IMREAD_COLOR)[..., ::-1]


def opencv_turns_webp() -> bool:
    """OpenCV 4.11 leaves it lying."""
    return Version("5") <= Version(pytest.importorskip("cv2").__version__)


@pytest.mark.parametrize("format", ["JPEG", "PNG", "WEBP"])
@pytest.mark.parametrize("orientation", range(1, 9))
def test_faces_stand_upright(format, orientation):
    exif = Image.Exif()
    exif[0x0112] = orientation
    options = {"lossless": True} if format == "WEBP" else {}
    lying = encoded(FACE, format, exif=exif, **options)
    turns = [
        lambda a: a,
        lambda a: a[:, ::-1],
        lambda a: a[::-1, ::-1],
        lambda a: a[::-1],
        lambda a: a.transpose(1, 0, 2),
        lambda a: np.rot90(a, -1),
        lambda a: np.rot90(a, 2).transpose(1, 0, 2),
        lambda a: np.rot90(a),
    ]
    plain = decode_image(encoded(FACE, format, **options))
    np.testing.assert_array_equal(decode_image(lying), turns[orientation - 1](plain))
    if format != "WEBP" or opencv_turns_webp():
        np.testing.assert_allclose(decode_image(lying).astype(int), opencv(lying), atol=2)


@pytest.mark.filterwarnings("ignore:Corrupt EXIF")
def test_damaged_exif_is_no_damage_of_the_pixels():
    content = encoded(FACE, "JPEG", exif=b"Exif\0\0II*\0\x08\0\0\0\xff\xff\x12\x01")
    np.testing.assert_array_equal(decode_image(content), decode_image(encoded(FACE, "JPEG")))


def with_alpha(image: Image.Image) -> Image.Image:
    image = image.copy()
    image.putalpha(Image.fromarray(np.tile(np.arange(48, dtype=np.uint8) * 5, (32, 1))))
    return image


PALETTE = FACE.convert("P")
SIXTEEN = Image.fromarray((np.arange(48 * 32, dtype=np.uint16) * 42).reshape(32, 48))
MODES = {
    "1": encoded(FACE.convert("1")),
    "L": encoded(FACE.convert("L")),
    "L, a grey transparent": encoded(FACE.convert("L"), transparency=5),
    "LA": encoded(with_alpha(FACE.convert("L"))),
    "P": encoded(PALETTE),
    "P, a colour transparent": encoded(PALETTE, transparency=3),
    "P, colours half transparent": encoded(PALETTE, transparency=bytes(range(256))),
    "RGB, a colour transparent": encoded(FACE, transparency=(1, 2, 3)),
    "RGBA": encoded(with_alpha(FACE)),
    "RGBA of WebP": encoded(with_alpha(FACE), "WEBP", lossless=True, exact=True),
    "RGBA of BMP": encoded(with_alpha(FACE), "BMP"),
    "I;16": encoded(SIXTEEN),
    "CMYK": encoded(FACE.convert("CMYK"), "JPEG", quality=95),
    "L of JPEG": encoded(FACE.convert("L"), "JPEG"),
    "progressive": encoded(FACE, "JPEG", progressive=True),
    "frames of APNG": encoded(FACE, save_all=True, append_images=[FACE.rotate(180)]),
    "frames of WebP": encoded(
        FACE, "WEBP", lossless=True, save_all=True, append_images=[FACE.rotate(180)]
    ),
    "pictures of MPO": encoded(FACE, "MPO", save_all=True, append_images=[FACE.rotate(180)]),
}


@pytest.mark.filterwarnings("error")
@pytest.mark.parametrize("mode", MODES)
def test_every_mode_gives_what_training_reads(mode):
    pixels = decode_image(MODES[mode])
    assert (pixels.dtype, pixels.shape) == (np.uint8, (32, 48, 3))
    np.testing.assert_allclose(pixels.astype(int), opencv(MODES[mode]), atol=2)


def test_sixteen_bits_keep_their_upper_eight():
    assert (decode_image(MODES["I;16"]) == (np.asarray(SIXTEEN) >> 8)[..., None]).all()


def test_modes_that_no_face_has_are_refused():
    """No format that is read gives them; Pillow's modes may grow."""
    with pytest.raises(ValueError, match="real numbers, of no stated range"):
        images._rgb(FACE.convert("F"))
    with pytest.raises(ValueError, match="greys run from -5 to 70000"):
        images._rgb(Image.fromarray(np.array([[-5, 70000]], np.int32)))
    for mode in ("HSV", "YCbCr"):
        assert images._rgb(FACE.convert(mode)).mode == "RGB"


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (b"", "it is empty; JPEG, PNG, BMP or WebP is wanted"),
        (encoded(FACE.convert("P"), "GIF"), "it is a GIF image; JPEG"),
        (encoded(FACE, "TIFF"), "it is a TIFF image"),
        (encoded(FACE, "EPS"), "it is PostScript"),
        (b"<!DOCTYPE html><title>404</title>", "in HTML or XML"),
        (b"version https://git-lfs.github.com/spec/v1\noid sha256:0", "pointer of Git LFS"),
        (b"\0" * 100, "it is no image, or its beginning is damaged"),
        (encoded(FACE, "JPEG")[:400], "[Tt]runcated"),
    ],
)
def test_what_cannot_be_decoded_says_why(content, reason):
    with pytest.raises(ValueError, match=f"^a.jpg: not readable as an image: .*{reason}"):
        decode_image(content, "a.jpg")


@pytest.fixture
def small_limits(monkeypatch):
    monkeypatch.setattr(images, "WHOLE_PIXELS", 32 * 48)
    monkeypatch.setattr(images, "MAX_PIXELS", 32 * 48 * 2)


@pytest.mark.usefixtures("small_limits")
def test_a_large_jpeg_is_decoded_small_and_no_other_image_beyond_the_limit():
    same, large = FACE, FACE.resize((48 * 4, 32 * 4), Image.BICUBIC)
    assert decode_image(encoded(same, "JPEG")).shape == (32, 48, 3)
    small = decode_image(encoded(large, "JPEG", quality=95))
    assert small.shape == (32, 48, 3)
    assert np.abs(small.astype(int) - np.asarray(FACE)).mean() < 8
    message = "192 x 128 pixels are more than"
    with pytest.raises(ValueError, match=message):
        decode_image(encoded(large, "JPEG"), whole=True)
    with pytest.raises(ValueError, match=message):
        decode_image(encoded(large, "PNG"))


class Means:
    """A backbone that looks at one face after another."""

    settings, calibration = "means", None
    inputs: dict = {}  # noqa: RUF012

    def embed(self, faces):
        return np.array([[float(face.mean()), 1.0] for face in faces], np.float32)


def test_no_two_images_of_a_batch_are_decoded_at_once(monkeypatch):
    alive, most = weakref.WeakSet(), []

    class Tracked(np.ndarray):
        __hash__ = object.__hash__

    def tracked(*arguments, **options):
        pixels = decode_image(*arguments, **options).view(Tracked)
        alive.add(pixels)
        most.append(len(alive))
        return pixels

    monkeypatch.setattr("sf2_plugin.backbones.embedding.decode_image", tracked)
    embed_images(Means(), [encoded(FACE)] * 20, batch_size=64)
    assert len(most) == 20
    assert max(most) <= 2
