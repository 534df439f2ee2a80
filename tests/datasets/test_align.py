"""`sf2 data align`: what InsightFace's `norm_crop` cuts, from landmarks or by a detector."""

import json

import numpy as np
import pytest

from sf2_plugin.data import decode_image, encode_jpeg
from sf2_plugin.data.alignment import TEMPLATE, align_face
from sf2_plugin.datasets.align import align_photos
from sf2_plugin.datasets.faces import Faces, InsightFaceDetector, read_landmarks

from ..onnx_models import detector_file


def landmarks_in(width, height, scale=1.0, angle=0.0, offset=(0, 0)):
    """Those of a face in the middle of a photo, turned and scaled."""
    turn = scale * np.exp(1j * angle)
    middle = complex(width / 2 + offset[0], height / 2 + offset[1])
    points = (TEMPLATE - 56) @ [1, 1j] * turn + middle
    return np.stack([points.real, points.imag], axis=1)


def photo(rng, width=160, height=128):
    """Pixels with edges as sharp as can be."""
    return rng.integers(0, 256, (height, width, 3), np.uint8)


def obvious_crop(pixels, landmarks):
    """Bilinear, a pixel at a time, with black around the photo."""
    # [a -b; b a] p + t nearest to the template, by general least squares.
    x, y = landmarks.T
    ones, zeros = np.ones(5), np.zeros(5)
    rows = np.concatenate([np.stack([x, -y, ones, zeros], 1), np.stack([y, x, zeros, ones], 1)])
    a, b, *t = np.linalg.lstsq(rows, TEMPLATE.T.ravel(), rcond=None)[0]
    inverse = np.linalg.inv(np.array([[a, -b], [b, a]]))
    padded = np.zeros((pixels.shape[0] + 4, pixels.shape[1] + 4, 3))
    padded[2:-2, 2:-2] = pixels
    crop = np.zeros((112, 112, 3))
    for row in range(0, 112, 5):
        for column in range(0, 112, 5):
            u, v = inverse @ (np.array([column, row]) - t) + 2
            left, top = int(np.floor(u)), int(np.floor(v))
            if 0 <= left < padded.shape[1] - 1 and 0 <= top < padded.shape[0] - 1:
                f, g = u - left, v - top
                patch = padded[top : top + 2, left : left + 2]
                crop[row, column] = np.einsum("ijc,i,j->c", patch, [1 - g, g], [1 - f, f])
    return crop[::5, ::5]


CASES = [
    dict(scale=0.7, angle=0.4),
    dict(scale=1.3, angle=-1.0),
    dict(scale=1.0, offset=(60, -50)),  # Partly outside.
    dict(scale=0.5, angle=3.0, offset=(-70, 50)),
]


@pytest.mark.parametrize("case", CASES)
def test_an_aligned_face_is_what_an_obvious_loop_cuts(case, rng):
    pixels = photo(rng)
    landmarks = landmarks_in(160, 128, **case) + rng.normal(0, 2, (5, 2))
    ours = align_face(pixels, landmarks)[::5, ::5].astype(float)
    assert np.abs(ours - obvious_crop(pixels, landmarks)).max() <= 1


@pytest.mark.parametrize("case", CASES)
def test_it_is_insightfaces_own_within_a_grey_level(case, rng):
    face_align = pytest.importorskip("insightface.utils.face_align")
    cv2 = pytest.importorskip("cv2")
    if int(cv2.__version__.split(".")[0]) < 5:
        pytest.skip("OpenCV before 5 rounds places to 1/32 of a pixel")
    pixels = photo(rng)
    landmarks = (landmarks_in(160, 128, **case) + rng.normal(0, 2, (5, 2))).astype(np.float32)
    theirs = face_align.norm_crop(pixels, landmarks).astype(int)
    assert np.abs(align_face(pixels, landmarks) - theirs).max() <= 1


@pytest.fixture
def photos(tmp_path, rng):
    """Photos of two people, and the landmarks of each photo's faces."""
    points = {
        "a/1.png": [landmarks_in(160, 128, 0.6)],
        "a/2.png": [landmarks_in(160, 128, 0.4, offset=(40, 0)), landmarks_in(160, 128, 0.3)],
        "a/3.png": [],
        "b/far/1.png": [landmarks_in(160, 128, 0.9, 0.3)],
    }
    from PIL import Image

    for name in points:
        path = tmp_path / "photos" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(photo(rng)).save(path)
    return tmp_path / "photos", points


def lines(points, separator=" "):
    return "".join(
        separator.join([name, *(repr(float(value)) for value in face.ravel())]) + "\n"
        for name, faces in points.items()
        for face in faces
    )


def written(points, kind):
    names = ",".join(f"{axis}{i}" for i in range(1, 6) for axis in "xy")
    single = {name: faces[0].tolist() for name, faces in points.items() if len(faces) == 1}
    return {
        "text": lines(points),
        "tabs": lines(points, "\t"),
        "csv": f"path,{names}\n" + lines(points, ","),
        "json": json.dumps(single),
        "jsonl": "".join(
            json.dumps({"path": name, "landmarks": face.tolist()}) + "\n"
            for name, faces in points.items()
            for face in faces
        ),
    }[kind]


@pytest.mark.parametrize("kind", ["text", "tabs", "csv", "json", "jsonl"])
def test_landmarks_in_every_form(photos, tmp_path, kind):
    _, points = photos
    (tmp_path / "points").write_text(written(points, kind))
    found = read_landmarks(tmp_path / "points")
    wanted = {name: faces for name, faces in points.items() if faces}
    if kind == "json":
        wanted.pop("a/2.png")
    assert found.keys() == wanted.keys()
    for name, faces in wanted.items():
        np.testing.assert_allclose(found[name].landmarks, faces)


def test_faces_are_cut_where_the_landmarks_are(data, photos, tmp_path):
    folder, points = photos
    (tmp_path / "points.csv").write_text(lines(points, ","))
    out = tmp_path / "out"
    options = [folder, "--landmarks", tmp_path / "points.csv", "--out", out, "--json"]
    status, figures = data("align", *options)
    assert status == 0
    assert figures["aligned"] == 3
    assert figures["several_faces"] == ["a/2.png"]
    assert figures["no_face"] == ["a/3.png"]
    for name in ("a/1.png", "a/2.png", "b/far/1.png"):
        expected = align_face(decode_image(folder / name), points[name][0])
        np.testing.assert_array_equal(decode_image(out / name), expected)
    log = [json.loads(line) for line in (out / "align.jsonl").read_text().splitlines()]
    assert [entry.get("path") for entry in log] == [None, *sorted(points)]
    # The log's own landmarks give the same faces.
    again = [folder, "--landmarks", out / "align.jsonl", "--out", tmp_path / "again", "--json"]
    assert data("align", *again)[1]["aligned"] == 3
    close = decode_image(tmp_path / "again/a/2.png").astype(int) - decode_image(out / "a/2.png")
    assert np.abs(close).max() <= 1


@pytest.mark.parametrize(("pick", "taken"), [("largest", 0), ("central", 1), ("only", None)])
def test_which_of_several_faces(photos, tmp_path, pick, taken):
    folder, points = photos
    find = {name: Faces.of_landmarks(faces) for name, faces in points.items()}
    report = align_photos(folder, tmp_path / "out", find, settings="", pick=pick)
    assert report.several_faces == ["a/2.png"]
    if taken is None:
        assert report.no_face == ["a/2.png", "a/3.png"]
        return
    expected = align_face(decode_image(folder / "a/2.png"), points["a/2.png"][taken])
    np.testing.assert_array_equal(decode_image(tmp_path / "out" / "a" / "2.png"), expected)


class Detector:
    """One face in the middle of any photo, until it stops."""

    def __init__(self, until=None):
        self.calls, self.until = 0, until

    def __call__(self, pixels):
        if self.calls == self.until:
            raise KeyboardInterrupt
        self.calls += 1
        height, width = pixels.shape[:2]
        return Faces.of_landmarks([landmarks_in(width, height, 0.5)])


def test_what_is_done_is_kept(photos, tmp_path):
    folder, _ = photos
    out = tmp_path / "out"
    with pytest.raises(KeyboardInterrupt):
        align_photos(folder, out, Detector(until=2), settings="x")
    names = sorted(path.name for path in out.rglob("*") if path.is_file())
    assert names == [".align.jsonl.partial", "1.png", "2.png"]
    with open(out / ".align.jsonl.partial", "a") as file:
        file.write('{"path": "a/3.png", "fac')  # As a machine leaves it that stops.

    with pytest.raises(ValueError, match="was made with other settings"):
        align_photos(folder, out, Detector(), settings="y")
    rest = Detector()
    report = align_photos(folder, out, rest, settings="x")
    assert (rest.calls, report.done_before, report.aligned) == (2, 2, 4)
    assert not (out / ".align.jsonl.partial").exists()

    # A photo that has come, and a face that has gone.
    (out / "a" / "1.png").unlink()
    (folder / "b" / "2.png").write_bytes((folder / "a" / "1.png").read_bytes())
    few = Detector()
    report = align_photos(folder, out, few, settings="x")
    assert (few.calls, report.done_before, report.photos) == (2, 3, 5)
    names = sorted(path.relative_to(out).as_posix() for path in out.rglob("*.png"))
    assert names == ["a/1.png", "a/2.png", "a/3.png", "b/2.png", "b/far/1.png"]


def test_photos_of_one_name_have_faces_of_two(photos, tmp_path, rng):
    folder, _ = photos
    out = tmp_path / "out"
    align_photos(folder, out, Detector(), settings="x")
    (folder / "a" / "1.jpg").write_bytes(encode_jpeg(photo(rng)))
    align_photos(folder, out, Detector(), settings="x")
    names = sorted(path.name for path in (out / "a").iterdir())
    assert names == ["1.jpg.png", "1.png.png", "2.png", "3.png"]


def test_damaged_photos_are_listed_and_tried_again(data, photos, tmp_path):
    folder, points = photos
    whole = (folder / "a" / "1.png").read_bytes()
    (folder / "a" / "1.png").write_bytes(whole[:2000])
    (tmp_path / "points").write_text(lines(points))
    options = ["--landmarks", tmp_path / "points", "--out", tmp_path / "out", "--format", "jpg"]
    status, figures = data("align", folder, *options, "--json")
    assert status == 0
    assert list(figures["damaged"]) == ["a/1.png"]
    assert "not readable as an image" in figures["damaged"]["a/1.png"]
    (folder / "a" / "1.png").write_bytes(whole)
    status, figures = data("align", folder, *options, "--json")
    assert (figures["damaged"], figures["done_before"], figures["aligned"]) == ({}, 3, 3)
    assert (tmp_path / "out" / "a" / "1.jpg").is_file()


def bad_landmarks(tmp_path, text):
    (tmp_path / "points").write_text(text)
    return ["--landmarks", tmp_path / "points"]


GOOD = "a/1.png 1 2 3 4 5 6 7 8 9 10\n"


@pytest.mark.parametrize(
    ("text", "complaint"),
    [
        ("", "it has no landmarks"),
        (GOOD + "a/2.png 1 2 3 4\n", "line 2: five"),
        (GOOD + "a/2.png 1 2 3 4 5 6 7 8 9 nan\n", "line 2: five finite"),
        (GOOD + "a/2.png 1 1 1 1 1 1 1 1 1 1\n", "line 2: the landmarks lie all in one place"),
        ('{"path": "a/1.png", "landmarks": [[1, 2], [3]]}\n', "line 1: five"),
        ('{"a/1.png": "here"}', "line 1: five"),
        ("other.png 1 2 3 4 5 6 7 8 9 10\n", "of other photos: they name other.png"),
    ],
)
def test_bad_landmarks_write_nothing(data, photos, tmp_path, text, complaint):
    options = bad_landmarks(tmp_path, text)
    status, line = data("align", photos[0], *options, "--out", tmp_path / "out")
    assert status == 2
    assert complaint in line
    assert not (tmp_path / "out").exists()


def test_other_bad_input(data, photos, tmp_path):
    folder, points = photos
    good = bad_landmarks(tmp_path, lines(points))
    out = ["--out", tmp_path / "out"]
    assert "there is no folder" in data("align", tmp_path / "none", *good, *out)[1]
    assert "has no images" in data("align", (tmp_path / "empty").mkdir() or tmp_path / "empty",
                                   *good, *out)[1]  # fmt: skip
    assert "which is read" in data("align", folder, *good, "--out", folder / "a" / "out")[1]
    assert data("align", folder, *out)[0] == 2
    assert data("align", folder, *good, *out, "--pick", "nicest")[0] == 2
    assert "between 0 and 1" in data("align", folder, *good, *out, "--threshold", 2)[1]
    missing = ["--detector", tmp_path / "none.onnx"]
    assert "there is no detector" in data("align", folder, *missing, *out)[1]
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "kept").write_text("kept")
    assert "already exists" in data("align", folder, *good, "--out", tmp_path / "mine")[1]


def test_no_face_at_all(photos, tmp_path):
    def none(pixels):
        return Faces.of_landmarks([])

    with pytest.raises(ValueError, match="no face was found in any of the 4 photos"):
        align_photos(photos[0], tmp_path / "out", none, settings="")


@pytest.mark.parametrize("in_folder", [False, True])
def test_a_detector_that_insightface_opens(data, tmp_path, rng, in_folder):
    pytest.importorskip("insightface")
    faces = [
        (0.9, (10, 20, 50, 60), landmarks_in(128, 128, 0.4, offset=(-30, -20))),
        (0.8, (60, 50, 120, 120), landmarks_in(128, 128, 0.5, 0.2, (20, 20))),
        (0.3, (0, 0, 128, 128), landmarks_in(128, 128)),
    ]
    path = tmp_path / "models" / "detector.onnx"
    path.parent.mkdir()
    detector_file(path, faces)
    given = path.parent if in_folder else path
    # Twice the size that the detector takes.
    from PIL import Image

    pixels = photo(rng, 256, 256)
    (tmp_path / "photos").mkdir()
    Image.fromarray(pixels).save(tmp_path / "photos" / "one.png")
    found = InsightFaceDetector(given)(pixels)
    np.testing.assert_allclose(found.landmarks, [2 * face[2] for face in faces[:2]], atol=1e-3)

    options = ["--detector", given, "--out", tmp_path / "out", "--json"]
    status, figures = data("align", tmp_path / "photos", *options)
    assert status == 0
    assert figures["several_faces"] == ["one.png"]
    aligned = decode_image(tmp_path / "out" / "one.png").astype(int)
    assert np.abs(aligned - align_face(pixels, 2 * faces[1][2])).max() <= 1


def test_what_is_no_detector(data, photos, tmp_path):
    pytest.importorskip("insightface")
    from ..onnx_models import onnx_file

    onnx_file(tmp_path / "embeds.onnx", normalises=False, size=112)
    (tmp_path / "damaged.onnx").write_bytes(b"no model")
    (tmp_path / "empty").mkdir()
    for name, complaint in (
        ("embeds.onnx", "it is a model for recognition"),
        ("damaged.onnx", "not readable as a detector"),
        ("empty", "no model that detects faces"),
    ):
        options = ["--detector", tmp_path / name, "--out", tmp_path / "out"]
        status, line = data("align", photos[0], *options)
        assert status == 2
        assert complaint in line
        assert not (tmp_path / "out").exists()
