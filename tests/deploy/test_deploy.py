"""`sf2_plugin.deploy`: an exported folder read without torch."""

import hashlib
import json
import sys

import numpy as np
import pytest

pytest.importorskip("onnx", reason='needs pip install "sf2-plugin[onnx]"')
pytest.importorskip("onnxruntime", reason='needs pip install "sf2-plugin[onnxruntime]"')

from sf2_plugin.deploy import load
from sf2_plugin.evaluation import Calibration

from ..onnx_models import onnx_file
from ..processes import python

SIZE = 8


def write_folder(folder, calibration=(20.0, 3.0, -15.0, 100)):
    """A folder as export writes it, of a network that is one matrix; the matrix."""
    folder.mkdir()
    weights = onnx_file(folder / "recognition.onnx", normalises=False, size=SIZE)
    names = ("scale", "t", "bias", "fitted_pairs")
    values = dict(zip(names, calibration, strict=True))
    values["thresholds"] = {
        "0.01": {"threshold": 0.75, "impostor_pairs": 200},
        "1e-06": {"threshold": None, "impostor_pairs": 200, "note": "not measurable"},
    }
    (folder / "calibration.json").write_text(json.dumps(values))
    hashes = {
        name: hashlib.sha256((folder / name).read_bytes()).hexdigest()
        for name in ("recognition.onnx", "calibration.json")
    }
    manifest = {
        "manifest_version": 2,
        "model_id": "matrix",
        "license": "MODEL.LICENSE",
        "tasks": {
            "recognition": {
                "file": "recognition.onnx",
                "sha256": hashes["recognition.onnx"],
                "input_size": [SIZE, SIZE],
                "embedding_dimension": 4,
                "preprocessing": {"mean": 127.5, "std": 127.5},
            }
        },
        "sf2_plugin": {"version": 1, "calibration": {"sha256": hashes["calibration.json"]}},
    }
    (folder / "manifest.json").write_text(json.dumps(manifest))
    return weights


@pytest.fixture
def folder(tmp_path):
    write_folder(tmp_path / "pack")
    return tmp_path / "pack"


@pytest.fixture
def faces():
    return np.random.default_rng(3).integers(0, 256, (7, SIZE, SIZE, 3), dtype=np.uint8)


def by_hand(faces, weights):
    planes = (faces.astype(np.float64).transpose(0, 3, 1, 2) - 127.5) / 127.5
    embedded = planes.reshape(len(faces), -1) @ weights
    return embedded / np.linalg.norm(embedded, axis=1, keepdims=True)


@pytest.mark.parametrize("batch_size", [1, 3, 32])
def test_embeddings_are_the_networks_at_length_one(tmp_path, faces, batch_size):
    weights = write_folder(tmp_path / "pack")
    model = load(tmp_path / "pack")
    embedded = model.embed(faces, batch_size=batch_size)
    np.testing.assert_allclose(embedded, by_hand(faces, weights), atol=1e-5)
    assert embedded.dtype == np.float32
    np.testing.assert_array_equal(model.embed(iter(faces), batch_size=batch_size), embedded)
    assert model.embed([]).shape == (0, 4)
    assert (model.name, model.size, model.dimension) == ("matrix", SIZE, 4)
    assert model.thresholds == {0.01: 0.75, 1e-6: None}


def test_paths_and_other_sizes(folder, faces, tmp_path):
    Image = pytest.importorskip("PIL.Image", reason='needs pip install "sf2-plugin[data]"')
    model = load(folder)
    Image.fromarray(faces[0]).save(tmp_path / "face.png")
    expected = model.embed(faces[:1])
    for path in (tmp_path / "face.png", str(tmp_path / "face.png")):
        np.testing.assert_array_equal(model.embed([path]), expected)
    flat = np.full((24, 24, 3), 77, np.uint8)
    np.testing.assert_allclose(model.embed([flat]), model.embed([flat[:SIZE, :SIZE]]), atol=1e-6)


def test_same_is_the_calibrations_probability(folder, faces):
    model = load(folder)
    a, b = model.embed(faces[:2])
    cosine = float(a.astype(np.float64) @ b)
    adjusted = 2 * ((cosine + 1) / 2) ** 3 - 1
    expected = 1 / (1 + np.exp(-(20 * adjusted - 15)))
    assert model.same(faces[0], faces[1]) == pytest.approx(expected, rel=1e-5)
    assert model.same(a, faces[1]) == pytest.approx(expected, rel=1e-5)
    assert model.same(9 * a, b) == pytest.approx(expected, rel=1e-5)
    odds = expected / (1 - expected) * 0.1 / 0.9
    assert model.same(a, b, prior=0.1) == pytest.approx(odds / (1 + odds), rel=1e-5)
    assert model.same(a, a) == pytest.approx(1 / (1 + np.exp(-5.0)), rel=1e-5)


def test_identify_lists_people_by_their_best_face(folder, faces):
    model = load(folder)
    embedded = model.embed(faces).astype(np.float64)
    people = {"a": [1, 2], "b": [3], "c": [4, 5, 6]}
    best = {name: max(embedded[0] @ embedded[i] for i in rows) for name, rows in people.items()}
    order = sorted(best, key=lambda name: -best[name])
    galleries = [
        {name: [faces[i] for i in rows] for name, rows in people.items()},
        {name: faces[rows] for name, rows in people.items()},
        {name: embedded[rows] for name, rows in people.items()},
        {"a": [embedded[1], faces[2]], "b": faces[3], "c": faces[4:]},
    ]
    assert model.calibration is not None
    for gallery in galleries:
        found = model.identify(faces[0], gallery)
        assert [each.name for each in found] == order
        for each in found:
            assert each.cosine == pytest.approx(best[each.name], abs=1e-5)
            probability = model.calibration.probability([each.cosine], 0.5)[0]
            assert each.probability == pytest.approx(probability)
    (first,) = model.identify(faces[0], embedded, top=1, prior=0.2)
    assert (first.name, first.cosine) == (0, pytest.approx(1))
    assert first.probability == pytest.approx(model.same(faces[0], faces[0], prior=0.2))


def test_without_a_calibration_there_are_cosines_alone(tmp_path, faces):
    write_folder(tmp_path / "pack", calibration=(None,) * 4)
    model = load(tmp_path / "pack")
    assert model.calibration is None
    with pytest.raises(ValueError, match="has no calibration, and cosines are no probabilities"):
        model.same(faces[0], faces[1])
    (first, *_) = model.identify(faces[0], faces)
    assert (first.name, first.probability) == (0, None)


def test_torch_is_never_imported(folder):
    code = f"""
import sys
sys.modules["torch"] = None
import numpy as np, sf2_plugin.deploy
assert "onnxruntime" not in sys.modules and "PIL" not in sys.modules
model = sf2_plugin.deploy.load({str(folder)!r})
faces = np.arange(2 * {SIZE} * {SIZE} * 3, dtype=np.uint8).reshape(2, {SIZE}, {SIZE}, 3)
model.identify(faces[0], faces)
print(model.same(*faces))
"""
    done = python("-c", code)
    assert done.returncode == 0, done.stderr
    assert 0 <= float(done.stdout) <= 1


@pytest.mark.parametrize("name", ["recognition.onnx", "calibration.json"])
def test_a_file_that_was_changed_is_refused(folder, name):
    content = bytearray((folder / name).read_bytes())
    content[-2] ^= 1
    (folder / name).write_bytes(content)
    with pytest.raises(ValueError, match=rf"{name}: its SHA-256 must be \w+, as in manifest.json"):
        load(folder)
    (folder / name).unlink()
    with pytest.raises(FileNotFoundError, match=rf"there is no .*{name}, which the manifest names"):
        load(folder)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda m: m.pop("sf2_plugin"), "sf2_plugin must be an object"),
        (lambda m: m["sf2_plugin"].update(version=2), "version must be 1, got 2"),
        (lambda m: m["tasks"].pop("recognition"), "recognition must be an object"),
        (lambda m: m["tasks"]["recognition"].update(input_size=[8]), "input_size must be two"),
        (lambda m: m["tasks"]["recognition"].update(input_size=[8.5] * 2), "input_size must be a"),
        (lambda m: m["tasks"]["recognition"].update(preprocessing="embedded"), "preprocessing"),
        (lambda m: m["tasks"]["recognition"]["preprocessing"].update(std=0), "std must be"),
        (lambda m: m["tasks"]["recognition"].update(sha256=None), "its SHA-256 must be None"),
    ],
)
def test_a_manifest_that_is_none(folder, change, message):
    manifest = json.loads((folder / "manifest.json").read_text())
    change(manifest)
    (folder / "manifest.json").write_text(json.dumps(manifest))
    with pytest.raises(ValueError, match=message):
        load(folder)


def test_folders_that_are_none(tmp_path, folder):
    with pytest.raises(FileNotFoundError, match="there is no folder"):
        load(tmp_path / "none")
    with pytest.raises(FileNotFoundError, match=r"has no manifest\.json: a folder of sf2 export"):
        load(tmp_path)
    for content in (b"", b"\xff", b"[1]", b"[" * 100_000):
        (folder / "manifest.json").write_bytes(content)
        with pytest.raises(ValueError, match="not readable as a manifest of sf2 export"):
            load(folder)


def test_bad_faces(folder, faces, tmp_path):
    model = load(folder)
    (tmp_path / "face.jpg").write_bytes(b"text")
    wanted = {
        "image 1: an image must be uint8": [faces[0], faces[1].astype(np.float32)],
        r"image 0: an image must be uint8 .*, got uint8 \(8, 8\)": [faces[0, ..., 0]],
        "must be square, got 8x5": [faces[0, :5]],
        r"face.jpg: .*image": [tmp_path / "face.jpg"],
    }
    for message, images in wanted.items():
        with pytest.raises(ValueError, match=message):
            model.embed(images)
    with pytest.raises(FileNotFoundError, match=r"none\.jpg"):
        model.embed(["none.jpg"])
    with pytest.raises(TypeError, match=r"images must be several, got the path 'none\.jpg'"):
        model.embed("none.jpg")
    with pytest.raises(ValueError, match="an embedding must have 4 numbers, got 3"):
        model.same(faces[0], np.ones(3))
    with pytest.raises(ValueError, match="must be finite"):
        model.same(faces[0], np.full(4, np.nan))
    with pytest.raises(ValueError, match="gallery must have at least one face"):
        model.identify(faces[0], {})
    with pytest.raises(ValueError, match="top must be at least 1"):
        model.identify(faces[0], faces, top=0)
    with pytest.raises(ValueError, match="prior must lie between 0 and 1"):
        model.same(faces[0], faces[1], prior=1)


def test_without_onnxruntime_it_names_the_extra(folder, monkeypatch):
    monkeypatch.setitem(sys.modules, "onnxruntime", None)
    with pytest.raises(ImportError, match=r'pip install "sf2-plugin\[onnxruntime\]"$'):
        load(folder)


def test_the_calibration_is_the_evaluations(folder):
    assert load(folder).calibration == Calibration(20.0, 3.0, -15.0, 100)
