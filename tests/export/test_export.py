"""`sf2 export`: what the package holds, who opens it, and what is refused."""

import hashlib
import json
import sys

import numpy as np
import pytest
import torch

pytest.importorskip("onnx", reason='needs pip install "sf2-plugin[onnx]"')
pytest.importorskip("onnxruntime", reason='needs pip install "sf2-plugin[onnxruntime]"')
pytest.importorskip("PIL", reason='needs pip install "sf2-plugin[onnx]"')

import onnx
import onnxruntime

from sf2_plugin import cli
from sf2_plugin.backbones import open_backbone
from sf2_plugin.data import encode_jpeg, read_pairs, write_pair_bin
from sf2_plugin.deploy import load
from sf2_plugin.evaluation import Calibration
from sf2_plugin.export import checking
from sf2_plugin.export.checking import drawn_faces

from .models import arcface_checkpoint, detector, mmpretrain_checkpoint

FILES = {"README.md", "calibration.json", "manifest.json", "recognition.onnx"}
IMAGENET = dict(mean=[123.675, 116.28, 103.53], std=[58.395, 57.12, 57.375], to_rgb=True)
RESIZE = dict(type="Resize", scale=(64, 64))


@pytest.fixture(autouse=True)
def _no_host_left():
    yield
    sys.modules.pop("backbones", None)


@pytest.fixture(scope="module")
def arcface(tmp_path_factory):
    """The arguments that name a checkpoint of arcface_torch."""
    path, host = arcface_checkpoint(tmp_path_factory.mktemp("arcface"))
    return [str(path), "--network", "tiny", "--arcface-torch", str(host)]


@pytest.fixture(scope="module")
def mmpretrain(tmp_path_factory):
    folder = tmp_path_factory.mktemp("mmpretrain")
    return [str(mmpretrain_checkpoint(folder / "epoch_3.pth", [RESIZE], IMAGENET))]


@pytest.fixture(scope="module")
def pair_bin(tmp_path_factory):
    """300 pairs in ten folds: images that are alike, and images that are not."""
    rng = np.random.default_rng(0)
    images, issame = [], []
    people = [np.kron(rng.integers(0, 256, (14, 14, 3)), np.ones((8, 8, 1))) for _ in range(12)]
    for pair in range(300):
        same = pair % 3 == 0
        a, b = rng.choice(12, 2, replace=False)
        for person in (a, a if same else b):
            noisy = people[person] * 0.4 + rng.integers(0, 153, (112, 112, 3))
            images.append(encode_jpeg(noisy.clip(0, 255).astype(np.uint8)))
        issame.append(same)
    path = tmp_path_factory.mktemp("pairs") / "pairs.bin"
    write_pair_bin(path, images, issame)
    return path


def export(*arguments):
    """By the quicker exporter, where none is asked for."""
    quick = [] if "--exporter" in arguments else ["--exporter", "legacy"]
    return cli.main(["export", *map(str, arguments), *quick])


def cosines(a, b):
    return (a * b).sum(1) / np.linalg.norm(a, axis=1) / np.linalg.norm(b, axis=1)


def test_arcface_torch(tmp_path, arcface, capsys):
    assert export(*arcface, "--out", tmp_path / "pack", "--json") == 0
    written = json.loads(capsys.readouterr().out)
    folder = tmp_path / "pack"
    assert {path.name for path in folder.iterdir()} == FILES == set(written["files"])
    model = onnx.load(str(folder / "recognition.onnx"), load_external_data=False)
    shapes = [
        [each.dim_param or each.dim_value for each in value.type.tensor_type.shape.dim]
        for value in (model.graph.input[0], model.graph.output[0])
    ]
    assert shapes == [["batch", 3, 112, 112], ["batch", 16]]
    assert not any(tensor.external_data for tensor in model.graph.initializer)
    assert {each.version for each in model.opset_import if not each.domain} == {18}

    manifest = json.loads((folder / "manifest.json").read_text())
    digest = hashlib.sha256((folder / "recognition.onnx").read_bytes()).hexdigest()
    assert manifest["manifest_version"] == 2
    assert manifest["model_id"] == "pack"
    assert manifest["tasks"] == {
        "recognition": {
            "file": "recognition.onnx",
            "sha256": digest,
            "input_size": [112, 112],
            "embedding_dimension": 16,
            "preprocessing": {"mean": 127.5, "std": 127.5},
        }
    }
    calibration = json.loads((folder / "calibration.json").read_text())
    assert calibration["scale"] is None
    assert calibration["thresholds"].keys() == {"0.01", "0.001", "0.0001", "1e-05", "1e-06"}
    for at in calibration["thresholds"].values():
        assert at["threshold"] is None
        assert at["note"].startswith("not measurable: 0 impostor pairs")
    assert calibration["source"] == "no head is known, and no pairs were given to fit one"
    assert min(written["check"]["least_cosine"].values()) > 0.9999

    # Against the network itself, by the host's own arithmetic.
    network = open_backbone(arcface[0], network="tiny", arcface_torch=arcface[4]).network
    faces = np.random.default_rng(5).integers(0, 256, (3, 112, 112, 3), dtype=np.uint8)
    planes = (torch.from_numpy(faces).permute(0, 3, 1, 2).float() - 127.5) / 127.5
    with torch.no_grad():
        expected = network(planes).numpy()
    session = onnxruntime.InferenceSession(str(folder / "recognition.onnx"))
    for batch in (1, 2, 3):
        (embedded,) = session.run(None, {"face": planes[:batch].numpy()})
        np.testing.assert_allclose(embedded, expected[:batch], rtol=1e-3, atol=1e-4)
    assert cosines(load(folder).embed(faces), expected).min() > 0.99999


@pytest.mark.parametrize(
    ("pipeline", "preprocessor", "size", "exporter"),
    [
        ([RESIZE], IMAGENET, 112, "legacy"),
        ([RESIZE], IMAGENET, 112, "current"),
        # BGR, a rectangle in the middle of a larger image, padded to what the network divides by.
        (
            [dict(type="ResizeEdge", scale=100), dict(type="CenterCrop", crop_size=(61, 96))],
            dict(mean=[100.0, 120.0, 140.0], std=[70.0, 60.0, 50.0], pad_size_divisor=32),
            112,
            "legacy",
        ),
        ([], dict(to_rgb=True), 112, "legacy"),  # as it is, 0..255
        ([dict(type="Resize", scale=224)], IMAGENET, 224, "legacy"),
    ],
)
def test_mmpretrain(tmp_path, pipeline, preprocessor, size, exporter, capsys):
    if exporter == "current":
        pytest.importorskip("onnxscript", reason='needs pip install "sf2-plugin[export]"')
    path = mmpretrain_checkpoint(tmp_path / "epoch_3.pth", pipeline, preprocessor)
    assert export(path, "--out", tmp_path / "pack", "--exporter", exporter) == 0
    assert f"takes {size}x{size} faces, gives 64 numbers" in capsys.readouterr().out
    model, backbone = load(tmp_path / "pack"), open_backbone(path)
    faces = drawn_faces(size)
    assert cosines(model.embed(faces), backbone.embed(faces)).min() > 0.9999
    assert model.calibration == Calibration(40.0, 3.0, -3.0)
    # The project's own reader takes it so, whatever order the host's network wants.
    again = open_backbone(tmp_path / "pack" / "recognition.onnx")
    assert cosines(again.embed(faces), backbone.embed(faces)).min() > 0.9999
    card = (tmp_path / "pack" / "README.md").read_text()
    assert "SphereFace2ClsHead" in card
    assert "| epochs | 3 |" in card


def test_a_retriever(tmp_path, capsys):
    path = mmpretrain_checkpoint(tmp_path / "epoch_3.pth", [RESIZE], IMAGENET, retriever=True)
    assert export(path, "--out", tmp_path / "pack") == 0
    faces = drawn_faces(112)
    expected = open_backbone(path).embed(faces)
    assert cosines(load(tmp_path / "pack").embed(faces), expected).min() > 0.9999
    assert "| network | ImageToImageRetriever |" in (tmp_path / "pack" / "README.md").read_text()


@pytest.mark.parametrize(
    ("transform", "message"),
    [
        (dict(type="Resize", scale=64, interpolation="area"), "Resize by cv2, area"),
        (dict(type="ColorJitter", brightness=0.1), "has ColorJitter, which cannot be put into"),
        (dict(type="CenterCrop", crop_size=200, auto_pad=True), "has CenterCrop"),
    ],
)
def test_a_pipeline_that_is_no_graph(tmp_path, transform, message, capsys):
    path = mmpretrain_checkpoint(tmp_path / "epoch_3.pth", [transform], IMAGENET)
    assert export(path, "--out", tmp_path / "pack") == 2
    error = capsys.readouterr().err
    assert error.count("\n") == 1
    assert message in error
    assert {each.name for each in tmp_path.iterdir()} == {"epoch_3.pth"}


@pytest.mark.parametrize("exporter", ["legacy", "current"])
def test_half_precision_and_opset(tmp_path, arcface, exporter):
    if exporter == "current":
        pytest.importorskip("onnxscript", reason='needs pip install "sf2-plugin[export]"')
    options = ("--exporter", exporter, "--opset", "19" if exporter == "current" else "17")
    assert export(*arcface, "--out", tmp_path / "half", "--fp16", *options) == 0
    assert export(*arcface, "--out", tmp_path / "full", *options) == 0
    sizes = [(tmp_path / name / "recognition.onnx").stat().st_size for name in ("half", "full")]
    assert sizes[0] < 0.7 * sizes[1]
    model = onnx.load(str(tmp_path / "half" / "recognition.onnx"))
    assert model.graph.input[0].type.tensor_type.elem_type == onnx.TensorProto.FLOAT
    assert model.graph.output[0].type.tensor_type.elem_type == onnx.TensorProto.FLOAT
    assert {each.version for each in model.opset_import if not each.domain} == {int(options[3])}
    faces = drawn_faces(112)
    full, half = (load(tmp_path / name).embed(faces) for name in ("full", "half"))
    assert 0.999 < cosines(full, half).min() < 1 - 1e-9


def test_probabilities_and_thresholds(tmp_path, mmpretrain, pair_bin, evaluate, capsys):
    folder = tmp_path / "pack"
    assert export(*mmpretrain, "--out", folder, "--pairs", pair_bin) == 0
    capsys.readouterr()
    content = json.loads((folder / "calibration.json").read_text())
    model, pairs = load(folder), read_pairs(pair_bin)
    embedded = model.embed([pairs.decode(i) for i in range(600)]).astype(np.float64)
    scores = (embedded[0::2] * embedded[1::2]).sum(1)
    impostors = scores[~pairs.issame]

    at = content["thresholds"]["0.01"]
    assert at["impostor_pairs"] == len(impostors) == 200
    assert np.count_nonzero(impostors >= at["threshold"]) == at["false_accepts"] == 2
    assert at["tar"] == np.mean(scores[pairs.issame] >= at["threshold"])
    assert model.thresholds[0.01] == at["threshold"]
    for far, wanted in (("0.001", 1000), ("1e-06", 1000000)):
        rare = content["thresholds"][far]
        assert rare["threshold"] is None
        assert rare["note"] == f"not measurable: 200 impostor pairs, at least {wanted} are wanted"
        assert model.thresholds[float(far)] is None
    assert content["pairs"]["sha256"] == hashlib.sha256(pair_bin.read_bytes()).hexdigest()

    # As `sf2 eval pairs --calibration` refits it.
    evaluate(
        *("pairs", folder / "recognition.onnx", "--pairs", pair_bin, "--no-flip", "--calibration"),
        *("--scale", 40, "--t", 3, "--bias", -3, "--save"),
    )
    saved = Calibration.load(folder / "recognition.onnx.calibration.json")
    assert model.calibration is not None
    assert model.calibration.fitted_pairs == saved.fitted_pairs == 150
    np.testing.assert_allclose(
        [model.calibration.scale, model.calibration.bias], [saved.scale, saved.bias], rtol=1e-3
    )
    card = (folder / "README.md").read_text()
    assert "pairs.bin" in card
    assert content["pairs"]["sha256"] in card
    assert f"| 0.01 | {at['threshold']:.6f} |" in card


def test_a_list_of_pairs_is_known_by_its_images(tmp_path, arcface, pair_bin):
    pairs = read_pairs(pair_bin)
    images = [pairs.images[i] for i in range(120)]
    lines = []
    for pair in range(60):
        for i in (2 * pair, 2 * pair + 1):
            (tmp_path / f"{i}.jpg").write_bytes(images[i])
        lines.append(f"{2 * pair}.jpg {2 * pair + 1}.jpg {int(pairs.issame[pair])}")
    (tmp_path / "list.txt").write_text("\n".join(lines))
    hashes = []
    for name in ("a", "b"):
        out = tmp_path / name
        given = ("--t", 1, "--pairs", tmp_path / "list.txt")
        assert export(*arcface, "--out", out, *given) == 0
        hashes.append(json.loads((out / "calibration.json").read_text())["pairs"])
        (tmp_path / "0.jpg").write_bytes(images[7])
    assert hashes[0]["sha256"] == hashes[1]["sha256"]
    assert hashes[0]["content_sha256"] != hashes[1]["content_sha256"]


def test_pairs_that_tell_nothing_leave_what_was_known(tmp_path, mmpretrain, arcface, capsys):
    """A refit that is refused costs nobody the package, and is said."""
    rng = np.random.default_rng(0)
    images = [encode_jpeg(rng.integers(0, 256, (16, 16, 3), dtype=np.uint8)) for _ in range(20)]
    pairs = [(images[i], images[j]) for i in range(20) for j in range(i)][:120]
    # Those said to be one person's are different images, the others one image twice.
    flat = [image for k, pair in enumerate(pairs) for image in (pair if k % 2 else pair[:1] * 2)]
    write_pair_bin(tmp_path / "odd.bin", flat, [k % 2 == 1 for k in range(120)])
    for name, model, scale in (("a", mmpretrain, 40.0), ("b", [*arcface, "--t", 1], None)):
        assert export(*model, "--out", tmp_path / name, "--pairs", tmp_path / "odd.bin") == 0
        assert "not refitted: genuine pairs score no higher" in capsys.readouterr().out
        content = json.loads((tmp_path / name / "calibration.json").read_text())
        assert content["scale"] == scale
        assert content["thresholds"]["0.001"]["threshold"] is None
        assert "not refitted: genuine pairs" in (tmp_path / name / "README.md").read_text()


@pytest.fixture
def insightface():
    return pytest.importorskip("insightface", reason="needs pip install insightface")


def test_insightface_opens_it(tmp_path, mmpretrain, insightface):
    from insightface.app import FaceAnalysis
    from insightface.model_zoo import get_model

    folder = tmp_path / "pack"
    found = detector(tmp_path / "scrfd.onnx")
    assert export(*mmpretrain, "--out", folder, "--detector", found) == 0
    faces = drawn_faces(112)
    bgr = [np.ascontiguousarray(face[..., ::-1]) for face in faces]
    expected = open_backbone(mmpretrain[0]).embed(faces)
    app = FaceAnalysis(name=str(folder))
    app.prepare(ctx_id=-1)
    assert app.get(np.zeros((300, 200, 3), np.uint8)) == []
    models = [
        get_model(str(folder), model_task="recognition"),
        get_model(str(folder / "recognition.onnx")),
        app.models["recognition"],
    ]
    for model in models:
        assert model.taskname == "recognition"
        assert model.input_size == (112, 112)
        assert cosines(model.get_feat(bgr), expected).min() > 0.9999
        assert cosines(model.get_feat(bgr[2]), expected[2:3]).min() > 0.9999
    assert app.det_model.taskname == "detection"
    load(folder)


def test_a_size_of_its_own(tmp_path, mmpretrain, capsys):
    folder = tmp_path / "deep" / "our faces"
    assert export(*mmpretrain, "--out", folder, "--size", 224) == 0
    model = load(folder)
    assert (model.size, model.name) == (224, "our_faces")
    faces = drawn_faces(224)
    assert cosines(model.embed(faces), open_backbone(mmpretrain[0]).embed(faces)).min() > 0.9999


def swapped(network):
    class Swapped(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.inner = network

        def forward(self, faces):
            return self.inner(faces.flip(1))

    return Swapped()


def test_a_failed_check_writes_nothing(tmp_path, arcface, monkeypatch, capsys):
    from sf2_plugin.export import package

    right = package.network_to_onnx
    monkeypatch.setattr(
        package, "network_to_onnx", lambda network, *a, **k: right(swapped(network), *a, **k)
    )
    assert export(*arcface, "--out", tmp_path / "pack") == 2
    error = capsys.readouterr().err.splitlines()[-1]
    assert "with the checkpoint; at least 0.9999 is wanted, and nothing was written" in error
    assert list(tmp_path.iterdir()) == []


def test_a_network_that_tells_nothing_apart_is_checked_all_the_same(monkeypatch):
    """Cosines near 1 say nothing where all embeddings are nearly the same."""
    faces = drawn_faces(16)
    mean = np.ones(8)
    rng = np.random.default_rng(0)
    own, other = (mean + 1e-4 * rng.normal(size=(5, 8)) for _ in range(2))

    def reader(answer):
        places = {face.tobytes(): row for face, row in zip(faces, answer, strict=True)}
        return lambda images: np.array([places[image.tobytes()] for image in images])

    assert checking._agreement("own", reader(own), faces, own) == pytest.approx((1, 1))
    least, apart = checking._agreement("other", reader(other), faces, own)
    assert least > 0.9999
    assert apart < 0.9


def test_a_network_of_nan_is_named(tmp_path, arcface, capsys):
    weights = torch.load(arcface[0], weights_only=True)
    weights["fc.weight"][:] = np.nan
    torch.save(weights, tmp_path / "nan.pt")
    assert export(tmp_path / "nan.pt", *arcface[1:], "--out", tmp_path / "pack") == 2
    assert "the checkpoint's embeddings must be finite" in capsys.readouterr().err
    assert not (tmp_path / "pack").exists()


BAD = {
    "no such checkpoint": (["none.pt"], "there is no model none.pt"),
    "not empty": (["{arcface}", "--out", "{full}"], "already exists"),
    "name": (["{arcface}", "--name", "a b"], "name must be at most 128 letters, digits"),
    "size too small": (["{arcface}", "--size", "64"], "routes no model below 112x112"),
    "size of landmarks": (["{arcface}", "--size", "192"], "192x192 for a model of landmarks"),
    "size too large": (["{arcface}", "--size", "11200"], "size must be at most 1120, got 11200"),
    "size not cut": (["{arcface}", "--size", "160"], "cuts faces to multiples of 112 or 128"),
    "size of the host": (["{arcface}", "--size", "224"], "size must be 112, which arcface_torch's"),
    "opset": (["{arcface}", "--opset", "99"], " 99"),
    "opset 0": (["{arcface}", "--opset", "0"], "must be a whole number of at least 1"),
    "no t": (["{arcface}", "--pairs", "{pairs}"], "holds no SphereFace2 head: give --t"),
    "t": (["{arcface}", "--pairs", "{pairs}", "--t", "0.5"], "t must be"),
    "t alone": (["{arcface}", "--t", "3"], "--t alone needs --pairs"),
    "two of three": (["{arcface}", "--t", "3", "--scale", "9"], "belong together"),
    "root": (["{arcface}", "--image-root", "x"], "--image-root is of the paths in --pairs"),
    "no pairs": (["{arcface}", "--pairs", "none.bin", "--t", "1"], "none.bin"),
    "no detector": (["{arcface}", "--detector", "none.onnx"], "there is no detector none.onnx"),
    "ONNX": (["{onnx}"], "is ONNX already; a checkpoint is wanted"),
    "host": (["{model}"], "network"),
}


@pytest.mark.parametrize("case", BAD)
def test_bad_input(tmp_path, arcface, pair_bin, case, capfd):
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "kept").write_text("kept")
    places = {"full": tmp_path / "full", "pairs": pair_bin, "model": arcface[0]}
    places["onnx"] = detector(tmp_path / "scrfd.onnx")
    before = sorted(tmp_path.rglob("*"))
    arguments, message = BAD[case]
    given: list[str] = []
    for argument in arguments:
        given += arcface if argument == "{arcface}" else [argument.format(**places)]
    if "--out" not in given:
        given += ["--out", str(tmp_path / "pack")]
    try:
        status = export(*given)
    except SystemExit as stopped:
        status = stopped.code
    assert status == 2
    printed = capfd.readouterr()
    assert printed.out == ""
    assert printed.err.count("\n") == 1
    assert message in printed.err
    assert sorted(tmp_path.rglob("*")) == before


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (dict(outputs=6), "a detector that can align faces, and this has 6"),
        (dict(outputs=1), "and this has 1"),
        (dict(channels=1), "a detector takes (1, 3, height, width)"),
        (dict(dtype=11), "a detector takes float32 or uint8, and this tensor(double)"),
        (dict(weights_beside=True), "its weights lie in another file"),
        (None, "not readable as a detector in ONNX"),
    ],
)
def test_what_is_no_detector(tmp_path, arcface, options, message, capsys):
    path = tmp_path / "detector.onnx"
    if options is None:
        path.write_bytes(b"text")
    else:
        detector(path, **options)
    assert export(*arcface, "--out", tmp_path / "pack", "--detector", path) == 2
    error = capsys.readouterr().err
    assert error.count("\n") == 1
    assert message in error
    assert not (tmp_path / "pack").exists()


def test_without_its_libraries_it_names_the_extra(tmp_path, arcface, monkeypatch, capsys):
    monkeypatch.setitem(sys.modules, "onnx", None)
    assert export(*arcface, "--out", tmp_path / "pack") == 2
    assert 'pip install "sf2-plugin[onnx]"' in capsys.readouterr().err.splitlines()[-1]
    assert list(tmp_path.iterdir()) == []


def test_without_insightface_it_says_what_was_not_checked(tmp_path, arcface, monkeypatch, capsys):
    monkeypatch.setitem(sys.modules, "insightface", None)
    monkeypatch.delitem(sys.modules, "insightface.model_zoo", raising=False)
    assert export(*arcface, "--out", tmp_path / "pack") == 0
    out = capsys.readouterr().out
    assert "not checked by insightface" in out
    assert "pip install --no-deps insightface" in out
    assert "Not checked by insightface" in (tmp_path / "pack" / "README.md").read_text()
