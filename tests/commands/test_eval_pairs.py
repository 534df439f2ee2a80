"""`sf2 eval pairs`: on saved embeddings, and on a checkpoint as the host itself verifies it."""

import json
import os
import re
import sys
from functools import partial

import numpy as np
import pytest
import torch

pytest.importorskip("sklearn", reason='needs pip install "sf2-plugin[eval]"')
pytest.importorskip("PIL", reason='needs pip install "sf2-plugin[eval]"')

from sf2_plugin import cli
from sf2_plugin.backbones import open_backbone
from sf2_plugin.backbones.embedding import embed_images
from sf2_plugin.data import encode_jpeg, write_pair_bin
from sf2_plugin.evaluation import (
    Calibration,
    calibration_path,
    evaluate_calibration,
    verify_pairs,
)
from sf2_plugin.torch_files import load_torch_file

from ..onnx_models import onnx_file
from ..processes import python
from .test_eval_embedding import HOST


@pytest.fixture
def evaluate(evaluate):
    return partial(evaluate, "pairs")


def pairs_of(rng, pairs=400, dimensions=16):
    """Embeddings (2N, D) and issame (N,), in folds of both kinds."""
    people = rng.normal(size=(pairs, 2, dimensions))
    issame = np.arange(pairs) % 2 == 0
    people[issame, 1] = people[issame, 0]
    noisy = people + rng.normal(size=people.shape)
    return noisy.reshape(-1, dimensions).astype(np.float32), issame


@pytest.fixture
def saved(tmp_path):
    embeddings, issame = pairs_of(np.random.default_rng(0))
    np.savez(tmp_path / "saved.npz", embeddings=embeddings, issame=issame)
    return tmp_path / "saved.npz", embeddings, issame


def test_saved_embeddings(evaluate, saved):
    path, embeddings, issame = saved
    status, printed = evaluate(path, "--json", "--folds", 5, "--far", 0.01, "--far", 1e-9)
    report = verify_pairs(embeddings, issame, 5, [0.01, 1e-9])
    assert status == 0
    assert printed["results"] == [{"model": "saved", "set": "saved", **report.as_dict()}]
    assert printed["results"][0]["tar_at_far_1e-09"] is None

    _, text = evaluate(f"mine={path}")
    assert text.startswith("mine on saved\n")
    assert f"{verify_pairs(embeddings, issame).accuracy_mean:.5f}" in text


@pytest.mark.parametrize("apart", [False, True])
def test_a_network_that_tells_nothing_apart_is_said_to(saved, tmp_path, capsys, apart):
    _, embeddings, issame = saved
    faces = embeddings if apart else np.ones_like(embeddings) + 1e-6 * embeddings
    np.savez(tmp_path / "early.npz", embeddings=faces, issame=issame)
    assert cli.main(["eval", "pairs", str(tmp_path / "early.npz")]) == 0
    said = "sf2: early tells no face of early from another: all cosines are 1.0000\n"
    assert capsys.readouterr().err == ("" if apart else said)


def test_saved_embeddings_of_pair_sets_with_one_threshold(evaluate, saved, tmp_path):
    _, embeddings, issame = saved
    images = [encode_jpeg(np.zeros((2, 2, 3), np.uint8))] * len(embeddings)
    for name in ("first", "second"):
        write_pair_bin(tmp_path / f"{name}.bin", images, issame)
    np.save(tmp_path / "raw.npy", embeddings)
    options = ["--pairs", tmp_path / "first.bin", "--pairs", tmp_path / "second.bin"]
    _, printed = evaluate(tmp_path / "raw.npy", *options, "--json")
    assert [result["set"] for result in printed["results"]] == ["first", "second"]
    common = printed["common_threshold"]["raw"]
    assert common["accuracy"] == common["own_accuracy"]  # both sets are the same
    assert "one threshold for all sets" in evaluate(tmp_path / "raw.npy", *options)[1]


def test_pair_sets_of_one_file_name_are_told_apart_by_names(evaluate, saved, tmp_path):
    _, embeddings, issame = saved
    images = [encode_jpeg(np.zeros((2, 2, 3), np.uint8))] * len(embeddings)
    files = [tmp_path / name / "val.bin" for name in ("a", "b=c")]
    for file in files:
        file.parent.mkdir()
        write_pair_bin(file, images, issame)
    np.save(tmp_path / "raw.npy", embeddings)
    named = ["--pairs", f"first={files[0]}", "--pairs", files[1], "--json"]
    _, printed = evaluate(tmp_path / "raw.npy", *named)
    assert [result["set"] for result in printed["results"]] == ["first", "val"]
    assert list(printed["common_threshold"]["raw"]["accuracy"]) == ["first", "val"]

    status, error = evaluate(tmp_path / "raw.npy", "--pairs", files[0], "--pairs", files[1])
    assert status == 2
    assert error == "sf2: error: two pair sets are called 'val': name them, as --pairs NAME=FILE\n"
    status, error = evaluate(tmp_path / "raw.npy", "--pairs", f"gone={tmp_path / 'gone.bin'}")
    assert status == 2
    assert "gone.bin" in error


HEAD = ["--calibration", "--scale", 40, "--t", 3, "--bias", -2]


def test_calibration_before_and_after_on_pairs_not_refitted_on(evaluate, saved):
    path, embeddings, issame = saved
    _, printed = evaluate(path, *HEAD, "--save", "--folds", 4, "--json")
    answer = printed["results"][0]["calibration"]

    scores = verify_pairs(embeddings, issame, 4).scores
    before = Calibration(40.0, 3.0, -2.0)
    after = before.refit(scores[:200], issame[:200])
    for name, calibration in (("before", before), ("after", after)):
        report = evaluate_calibration(calibration, scores[200:], issame[200:])
        assert answer[name] == pytest.approx(report.as_dict())
    assert answer["after"]["cllr"] < answer["before"]["cllr"]
    assert "last 2 of 4 folds" in answer["pairs"]

    stored = path.with_name("saved.npz.calibration.json")
    assert Calibration.load(stored) == after
    # Found again, and told apart from the head's own.
    _, printed = evaluate(path, "--calibration", "--folds", 4, "--json")
    again = printed["results"][0]["calibration"]
    assert again["stored"] == answer["after"]
    _, text = evaluate(path, *HEAD, "--folds", 4)
    assert all(f"- {name}\n" in text for name in ("before", "stored", "after"))


def test_what_cannot_be_verified_is_refused_before_anything_is_embedded(
    evaluate, tmp_path, monkeypatch
):
    onnx_file(tmp_path / "model.onnx", normalises=False)
    monkeypatch.setattr("sf2_plugin.commands.models.embed_images", None)
    images = [encode_jpeg(np.zeros((2, 2, 3), np.uint8))] * 8
    write_pair_bin(tmp_path / "dev.bin", images, [True, False, True, False])
    for options, message in (
        (["--far", 2], "--far must lie between 0 and 1"),
        (["--folds", 5], "pair set dev: folds must be between 2 and"),
        (["--folds", 4], "pair set dev: fold 1 of 4 (pairs 0 to 0) has only genuine pairs"),
        (["--folds", 2, "--calibration"], "holds no SphereFace2 head"),
    ):
        status, error = evaluate(tmp_path / "model.onnx", "--pairs", tmp_path / "dev.bin", *options)
        assert status == 2
        assert message in error


def test_figures_are_printed_before_a_page_is_drawn(saved, tmp_path, capsys, monkeypatch):
    def fail(*args):
        raise OSError("disk full")

    monkeypatch.setattr("sf2_plugin.commands.output.write_page", fail)
    page = str(tmp_path / "page.html")
    assert cli.main(["eval", "pairs", str(saved[0]), "--html", page]) == 2
    printed = capsys.readouterr()
    assert "saved on saved" in printed.out
    assert "disk full" in printed.err


def test_the_development_set_is_embedded_once(evaluate, tmp_path, monkeypatch):
    onnx_file(tmp_path / "model.onnx", normalises=False)
    rng = np.random.default_rng(0)
    paths = [tmp_path / f"{name}.bin" for name in ("first", "second", "dev")]
    for path in paths:
        people = [person(rng, 2) for _ in range(20)]
        images = []
        for one, other in zip(people[::2], people[1::2], strict=True):
            images += [*one, one[0], other[0]]
        write_pair_bin(path, images, [True, False] * 10)
    counts = []

    def counted(backbone, images, **options):
        counts.append(len(images))
        return embed_images(backbone, images, **options)

    monkeypatch.setattr("sf2_plugin.commands.models.embed_images", counted)
    sets = ["--pairs", paths[0], "--pairs", paths[1], "--folds", 2]
    _, printed = evaluate(
        tmp_path / "model.onnx", *sets, *HEAD, "--development", paths[2], "--json"
    )
    assert len(counts) == 3
    after = [result["calibration"]["after"] for result in printed["results"]]
    assert (after[0]["scale"], after[0]["bias"]) == (after[1]["scale"], after[1]["bias"])


def test_a_refit_without_scikit_learn_names_the_extra(evaluate, saved, monkeypatch):
    monkeypatch.setitem(sys.modules, "sklearn.linear_model", None)
    assert evaluate(saved[0], *HEAD) == (
        2,
        'sf2: error: a refit needs scikit-learn: pip install "sf2-plugin[eval]"\n',
    )
    monkeypatch.setitem(sys.modules, "sklearn.isotonic", None)
    with pytest.raises(ImportError, match=r"min Cllr needs .*sf2-plugin\[eval\]"):
        evaluate_calibration(Calibration(1.0, 1.0, 0.0), [0.1, 0.2], [False, True])


def test_a_page_that_cannot_be_written_is_refused_at_once(evaluate, saved, tmp_path):
    for page, wrong in (("none/page.html", "none: there is no such folder"), (".", "is a folder")):
        assert evaluate(saved[0], "--html", tmp_path / page)[0] == 2
        assert wrong in evaluate(saved[0], "--html", tmp_path / page)[1]


@pytest.mark.parametrize("link", [None, os.symlink, os.link])
@pytest.mark.parametrize("read", ["saved.npz", "saved.npz.calibration.json", "list.txt", "0.png"])
def test_a_page_replaces_nothing_that_is_read(evaluate, saved, tmp_path, read, link):
    path, _, issame = saved
    Calibration(1.0, 1.0, 0.0).save(calibration_path(path))
    image = tmp_path / "0.png"
    image.write_bytes(b"an image")
    same = "".join(f"0.png\t0.png\t{int(flag)}\n" for flag in issame)
    (tmp_path / "list.txt").write_text(same)
    page = tmp_path / read
    before = page.read_bytes()
    if link:
        page = tmp_path / "page.html"
        link(tmp_path / read, page)
    status, error = evaluate(path, "--pairs", tmp_path / "list.txt", "--html", page)
    assert status == 2
    assert f"{page} is not replaced: it is read, as {tmp_path / read}" in error
    assert (tmp_path / read).read_bytes() == before


def test_a_stored_refit_replaces_nothing_else_that_is_read(evaluate, saved):
    path, _, issame = saved
    pairs = calibration_path(path)
    (path.parent / "0.png").write_bytes(b"an image")
    pairs.write_text("".join(f"0.png 0.png {int(flag)}\n" for flag in issame))
    options = ("--calibration", "--scale", 1, "--t", 1, "--bias", 0, "--save")
    status, error = evaluate(path, "--pairs", pairs, *options)
    assert status == 2
    assert "is not replaced: it is read" in error
    assert pairs.read_text().startswith("0.png")


def test_a_page_is_not_written_where_the_refit_is(evaluate, saved):
    path, _, _ = saved
    options = ("--calibration", "--scale", 1, "--t", 1, "--bias", 0, "--save")
    status, error = evaluate(path, *options, "--html", calibration_path(path))
    assert status == 2
    assert "is to be written twice" in error
    assert not calibration_path(path).exists()


def test_bad_input(evaluate, saved, tmp_path):
    path, embeddings, _ = saved
    cases = {
        "no model .*none.npy": ["none.npy"],
        "two models are called 'saved'": [path, path],
        "belong together": [path, "--calibration", "--scale", 40],
        "need --calibration": [path, "--save"],
        "holds no SphereFace2 head": [path, "--calibration"],
        "--development needs a backbone": [path, *HEAD, "--development", tmp_path / "dev.bin"],
        "folds must be between 2 and": [path, "--folds", 1],
        "--far must lie between": [path, "--far", 2],
    }
    images = [encode_jpeg(np.zeros((2, 2, 3), np.uint8))] * 8
    write_pair_bin(tmp_path / "dev.bin", images, [True, False, True, False])
    dev = ["--pairs", tmp_path / "dev.bin", "--folds", 2]
    cases["has 800 embeddings; dev has 8 images"] = [path, *dev]
    np.save(tmp_path / "raw.npy", embeddings)
    cases["has no array 'issame', only embeddings"] = [tmp_path / "raw.npy"]
    np.save(tmp_path / "nan.npy", np.full((8, 4), np.nan))
    cases["must be finite"] = [tmp_path / "nan.npy", *dev]
    (tmp_path / "text.npz").write_text("text")
    cases["not readable as saved arrays"] = [tmp_path / "text.npz"]
    np.save(tmp_path / "objects.npy", np.array([{}, []], dtype=object))
    cases["objects.npy: not readable"] = [tmp_path / "objects.npy"]
    (tmp_path / "model.pth").write_text("text")
    cases["--pairs is wanted"] = [tmp_path / "model.pth"]
    for message, arguments in cases.items():
        status, error = evaluate(*arguments)
        assert status == 2, message
        assert re.search(message, error), error


# A config that trains a network of a few weights.
CONFIG = """
default_scope = "mmpretrain"
custom_imports = dict(imports=["sf2_plugin.integrations.mmpretrain"])
data_preprocessor = dict(mean=[120.0, 110.0, 100.0], std=[60.0, 61.0, 62.0], to_rgb=True)
pipeline = [
    dict(type="LoadImageFromFile"),
    dict(type="Resize", scale=(24, 24)),
    dict(type="PackInputs"),
]
model = dict(
    type="ImageClassifier",
    backbone=dict(type="ResNet_CIFAR", depth=18, stem_channels=4, base_channels=4),
    neck=dict(type="GlobalAveragePooling"),
    head=dict(type="SphereFace2ClsHead", num_classes=4, in_channels=32),
)
train_dataloader = dict(
    batch_size=8,
    num_workers=0,
    sampler=dict(type="DefaultSampler", shuffle=True),
    dataset=dict(type="CustomDataset", data_root={root!r}, data_prefix="train", pipeline=pipeline),
)
optim_wrapper = dict(optimizer=dict(type="SGD", lr=0.01))
train_cfg = dict(by_epoch=True, max_epochs=2)
test_dataloader = dict(
    batch_size=64,
    dataset=dict(type="FacePairDataset", ann_file={pairs!r}, name="lfw", pipeline=pipeline),
    sampler=dict(type="DefaultSampler", shuffle=False),
)
test_evaluator = dict(type="FaceVerification", folds=4)
test_cfg = dict()
custom_hooks = [dict(type="FaceVerificationHook", pair_sets=[test_dataloader["dataset"]])]
randomness = dict(seed=0)
log_level = "WARNING"
work_dir = {work_dir!r}
"""


def person(rng, images):
    """Noisy images of one pattern."""
    pattern = np.kron(rng.integers(30, 220, (4, 4, 3)), np.ones((8, 8, 1)))
    noise = rng.normal(0, 60, (images, 32, 32, 3))
    return [encode_jpeg(image.astype(np.uint8)) for image in (pattern + noise).clip(0, 255)]


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """A checkpoint, the pair set that its host verified it with, and the host's runner."""
    pytest.importorskip("mmpretrain", reason='needs pip install "sf2-plugin[mmpretrain]"')
    import sf2_plugin.integrations.mmpretrain  # noqa: F401
    from mmengine.config import Config
    from mmengine.registry import init_default_scope
    from mmengine.runner import Runner

    root = tmp_path_factory.mktemp("trained")
    rng = np.random.default_rng(0)
    for name in range(4):
        (root / "train" / f"{name}").mkdir(parents=True)
        for i, image in enumerate(person(rng, 6)):
            (root / "train" / f"{name}" / f"{i}.jpg").write_bytes(image)
    people = [person(rng, 4) for _ in range(10)]
    issame = np.arange(80) % 2 == 0
    images = []
    for same in issame:
        first, other = rng.choice(10, 2, replace=False)
        i, j = rng.choice(4, 2, replace=False)
        images += [people[first][i], people[first if same else other][j]]
    pairs = root / "pairs.bin"
    write_pair_bin(pairs, images, issame)

    init_default_scope("mmpretrain")
    work_dir = root / "work"
    text = CONFIG.format(root=str(root), pairs=str(pairs), work_dir=str(work_dir))
    runner = Runner.from_cfg(Config.fromstring(text, ".py"))
    runner.train()
    return work_dir / "epoch_2.pth", pairs, runner


class AsArcfaceTorch(torch.nn.Module):
    """A network of MMPretrain that takes what arcface_torch gives a backbone."""

    def __init__(self, checkpoint):
        super().__init__()
        self.backbone = open_backbone(checkpoint)
        self.network = self.backbone.model

    def forward(self, images):
        pixels = ((images + 1) * 127.5).round().to(torch.uint8)
        return torch.from_numpy(self.backbone.embed(pixels.permute(0, 2, 3, 1).numpy()))


@pytest.mark.usefixtures("one_rank")
def test_both_hosts_and_the_command_print_the_same_figures(evaluate, trained, caplog):
    from sf2_plugin.integrations.arcface_torch.verification import CallBackVerification

    checkpoint, pairs, runner = trained
    caplog.set_level("INFO")
    callback = CallBackVerification(["pairs"], str(pairs.parent), image_size=(32, 32))
    callback(7, AsArcfaceTorch(checkpoint))
    _, printed = evaluate(checkpoint, "--pairs", pairs, "--json")
    _, text = evaluate(checkpoint, "--pairs", pairs)

    (figures,) = printed["results"]
    (hook,) = [hook for hook in runner.hooks if hasattr(hook, "reports")]
    report = hook.reports["lfw"]
    assert figures == {"model": "epoch_2", "set": "pairs", **report.as_dict()}
    assert text.startswith(f"epoch_2 on pairs\n{report}\n\nepoch_2, its input\npipeline ")
    assert "Resize(scale=(24, 24)), PackInputs()" in text
    mean, deviation = (figures[f"grid_accuracy_{name}"] for name in ("mean", "std"))
    for line in (
        f"Accuracy-Flip: {mean:.5f}+-{deviation:.5f}",
        f"EER: {figures['eer']:.5f}  TAR@FAR=0.1: {figures['tar_at_far_0.1']:.5f}"
        f"  AUC: {figures['auc']:.5f}  threshold: {figures['threshold_mean']:.5f}"
        f"  Accuracy-Exact: {figures['accuracy_mean']:.5f}",
    ):
        assert f"[pairs][7]{line}" in caplog.messages


def test_a_checkpoint_gives_the_figures_and_the_head_of_its_host(evaluate, trained):
    checkpoint, pairs, runner = trained
    host, head = runner.test(), Calibration.from_head(runner.model.head.loss_module)
    options = [checkpoint, "--pairs", pairs, "--folds", 4, "--calibration", "--json"]
    _, printed = evaluate(*options)
    (figures,) = printed["results"]
    assert figures["accuracy_mean"] == host["lfw/accuracy"]
    assert figures["tar_at_far_0.1"] == host["lfw/tar_at_far_0.1"]
    for name, value in host.items():
        name = name.removeprefix("lfw/")
        assert figures[name if name in figures else f"{name}_mean"] == value
    assert 0.5 < figures["auc"] < 1
    before = figures["calibration"]["before"]
    assert (before["scale"], before["t"], before["bias"]) == (head.scale, head.t, head.bias)
    assert evaluate(*options)[1] == printed  # from the cache

    # The set's own people develop it here, which a test may do.
    _, developed = evaluate(*options, "--development", pairs)
    calibration = developed["results"][0]["calibration"]
    assert calibration["pairs"] == "on all pairs, refit on pairs"
    assert calibration["after"]["fitted_pairs"] == 80
    assert calibration["after"]["cllr"] <= calibration["before"]["cllr"]


def test_backbones_of_both_hosts_in_one_command(trained, tmp_path):
    """In a process that has not imported MMEngine yet, whose log history the checkpoint holds."""
    checkpoint, pairs, _ = trained
    (tmp_path / "host" / "backbones").mkdir(parents=True)
    (tmp_path / "host" / "backbones" / "__init__.py").write_text(HOST)
    namespace: dict = {}
    exec(HOST, namespace)
    torch.save(namespace["get_model"]("tiny", False, 6).state_dict(), tmp_path / "model.pt")
    command = ["-m", "sf2_plugin.cli", "eval", "pairs", "--no-cache", "--json"]
    command += [checkpoint, tmp_path / "model.pt", "--pairs", pairs]
    command += ["--network", "tiny", "--arcface-torch", tmp_path / "host"]
    done = python(*command)
    assert done.returncode == 0, done.stderr
    results = json.loads(done.stdout)["results"]
    assert [result["model"] for result in results] == ["epoch_2", "model"]


@pytest.mark.parametrize("wrapper", ["module.", "_orig_mod.", "model.module."])
def test_a_checkpoint_of_a_wrapped_model_is_the_same(evaluate, trained, tmp_path, wrapper):
    checkpoint, pairs, _ = trained
    content = load_torch_file(checkpoint)
    weights = {f"{wrapper}{name}": each for name, each in content["state_dict"].items()}
    torch.save({**content, "state_dict": weights}, tmp_path / "epoch_2.pth")
    options = ["--pairs", pairs, "--folds", 4, "--calibration", "--json"]
    assert evaluate(tmp_path / "epoch_2.pth", *options) == evaluate(checkpoint, *options)


def test_a_checkpoint_runs_no_code(trained, tmp_path, evaluate):
    checkpoint, pairs, _ = trained
    content = load_torch_file(checkpoint)
    config = content["meta"]["cfg"]
    popen = 'dict(type="subprocess.Popen", args=["touch", "executed"])'
    evil = {
        "more than `name = value`": config + "\nimport os",
        "no literal": config + "\nx = open('executed', 'w')",
        "'subprocess.Popen' is not": config
        + f"\ntest_dataloader = dict(dataset=dict(pipeline=[{popen}]))",
        "import paths are refused": config + f"\nmodel = dict(backbone={popen})",
        "no test_pipeline": config.replace("test_dataloader", "another"),
        "is not a registered name": config.replace("ResNet_CIFAR", "NoSuchNetwork"),
        "does not fit its own config": config.replace("base_channels=4", "base_channels=8"),
    }
    path = tmp_path / "evil.pth"
    for message, text in evil.items():
        torch.save({"meta": {"cfg": text}, "state_dict": content["state_dict"]}, path)
        status, error = evaluate(path, "--pairs", pairs)
        assert status == 2, message
        assert message in error
    torch.save({"state_dict": content["state_dict"]}, path)
    assert (
        "It has no config, as MMPretrain's checkpoints have" in evaluate(path, "--pairs", pairs)[1]
    )
    assert not list(tmp_path.rglob("executed"))


def test_probabilities_that_tell_nothing_are_said_to(evaluate, tmp_path):
    """Embeddings of nobody: no refit, and the head's own probability is doubted."""
    rng = np.random.default_rng(0)
    path = tmp_path / "saved.npz"
    np.savez(path, embeddings=rng.normal(size=(2000, 32)), issame=np.arange(1000) % 2)
    options = [path, "--calibration", "--scale", 40, "--t", 3, "--bias", 60]
    _, figures = evaluate(*options, "--json", "--html", tmp_path / "page.html")
    calibration = figures["results"][0]["calibration"]
    assert "after" not in calibration
    first, second, third = calibration["warnings"]
    assert first.startswith("before: the probability hardly moves with the cosine: from 1.000")
    assert second.startswith("before: Cllr is ")
    assert third.startswith("no refit: genuine pairs score ")
    assert "hardly moves" in (tmp_path / "page.html").read_text()
    _, text = evaluate(*options)
    assert "\nwarning: no refit: genuine pairs score " in text
    status, error = evaluate(*options, "--save")
    assert (status, "there is no refit to save: genuine" in error) == (2, True)
