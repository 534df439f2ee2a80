"""What needs MMEngine alone: pairs, metric, hooks, checkpoints."""

import json
import pickle
import subprocess
import sys

import numpy as np
import pytest
import torch

pytest.importorskip("mmengine", reason='needs pip install "sf2-plugin[mmengine]"')

from mmengine.hooks import Hook
from mmengine.logging import HistoryBuffer
from mmengine.model import BaseDataPreprocessor, BaseModel
from mmengine.registry import DATASETS, METRICS, MODELS
from mmengine.runner import Runner
from sf2_plugin.integrations.mmengine import MarginScheduleHook
from sf2_plugin.integrations.mmengine.verification_hook import embed_faces

from sf2_plugin import SphereFace2
from sf2_plugin.data import decode_image, encode_jpeg, write_pair_bin
from sf2_plugin.evaluation import verify_pairs

FACES, PAIRS, SIZE = 12, 40, 16


@pytest.fixture
def pairs(tmp_path):
    """Images, pairs of them with their truth, as a list and as a `.bin` file."""
    rng = np.random.default_rng(0)
    images = [encode_jpeg(rng.integers(0, 255, (SIZE, SIZE, 3), np.uint8)) for _ in range(FACES)]
    (tmp_path / "val").mkdir()
    for i, image in enumerate(images):
        (tmp_path / "val" / f"{i}.jpg").write_bytes(image)
    places = rng.integers(FACES, size=(PAIRS, 2))
    issame = np.arange(PAIRS) % 2 == 0
    lines = [f"{a}.jpg {b}.jpg {int(s)}" for (a, b), s in zip(places, issame, strict=True)]
    (tmp_path / "val_pairs.txt").write_text("\n".join(lines))
    write_pair_bin(tmp_path / "val.bin", [images[i] for i in places.ravel()], issame)
    return tmp_path, images, places, issame


class FirstPixels(BaseModel):
    """A model whose embeddings are known: the first pixels of the image."""

    def __init__(self):
        super().__init__(data_preprocessor=BaseDataPreprocessor())
        self.head = SphereFace2(4, 6)

    def extract_feat(self, inputs):
        return (torch.stack(list(inputs)).float().flatten(1)[:, :6] - 127,)

    def forward(self, inputs, data_samples=None, mode="tensor"):
        return {"loss": self.head(self.extract_feat(inputs)[-1], torch.zeros(len(inputs)).long())}


def to_inputs(item):
    return {"inputs": torch.from_numpy(item["img"]), "data_samples": item}


def build_pairs(pairs, ann_file="val_pairs.txt", **kwargs):
    config = dict(type="FacePairDataset", data_root=str(pairs[0]), ann_file=ann_file)
    return DATASETS.build(config | dict(pipeline=[to_inputs]) | kwargs)


def expected_embeddings(images, flip_test):
    def embed(pixels):
        return pixels[..., ::-1].reshape(-1)[:6].astype(np.float32) - 127

    decoded = [decode_image(image) for image in images]
    plain = np.stack([embed(image) for image in decoded])
    return plain + np.stack([embed(image[:, ::-1]) for image in decoded]) if flip_test else plain


@pytest.mark.parametrize("ann_file", ["val_pairs.txt", "val.bin"])
@pytest.mark.parametrize("flip_test", [True, False])
def test_a_list_and_a_bin_file_give_the_same_pairs(pairs, ann_file, flip_test):
    _, images, places, issame = pairs
    dataset = build_pairs(pairs, ann_file, flip_test=flip_test)
    used = len(np.unique(places))
    assert len(dataset) == used * (2 if flip_test else 1)
    views = embed_faces(FirstPixels(), dataset, batch_size=5)
    faces = views.reshape(used, -1, 6).sum(axis=1)[dataset.metainfo["face_of"]]
    expected = expected_embeddings(images, flip_test)[places.ravel()]
    np.testing.assert_allclose(faces, expected)
    np.testing.assert_array_equal(dataset.metainfo["issame"], issame)


def test_a_pipeline_that_loads_files_fits_as_it_is(pairs):
    dataset = build_pairs(pairs, "val.bin", pipeline=[dict(type="LoadImageFromFile"), to_inputs])
    assert dataset[0]["inputs"].shape == (SIZE, SIZE, 3)


def test_missing_files_are_named(pairs):
    with pytest.raises(FileNotFoundError, match=r"nowhere\.bin"):
        build_pairs(pairs, "nowhere.bin")
    (pairs[0] / "val" / "3.jpg").unlink()
    with pytest.raises(ValueError, match=r"line \d+: there is no image .*3\.jpg"):
        build_pairs(pairs)


@pytest.mark.parametrize("flip_test", [True, False])
def test_the_metric_agrees_with_verify_pairs_in_any_order(pairs, flip_test):
    _, images, places, issame = pairs
    dataset = build_pairs(pairs, flip_test=flip_test, name="tiny")
    metric = METRICS.build(dict(type="FaceVerification", folds=4, far_targets=[0.5, 1e-6]))
    metric.dataset_meta = dataset.metainfo
    views = torch.from_numpy(embed_faces(FirstPixels(), dataset, batch_size=8))
    samples = [{"sample_idx": i, "embedding": view} for i, view in enumerate(views)]
    metric.process(None, samples[::2])
    metric.process(None, samples[1::2])
    figures = metric.evaluate(len(dataset))

    embeddings = expected_embeddings(images, flip_test)[places.ravel()]
    report = verify_pairs(embeddings, issame, folds=4, far_targets=[0.5])
    logged = {figure.name.removesuffix("_mean"): figure.value for figure in report.logged()}
    assert figures == pytest.approx({f"tiny/{name}": value for name, value in logged.items()})
    assert figures["tiny/accuracy"] == pytest.approx(report.accuracy.mean())
    # 1e-6 cannot be measured on 20 impostor pairs.
    assert figures["tiny/tar_at_far_0.5"] == pytest.approx(report.tar_at_far[0.5].tar)


def test_the_metric_says_what_a_foreign_head_lacks():
    metric = METRICS.build(dict(type="FaceVerification"))
    with pytest.raises(ValueError, match="for other heads use FaceVerificationHook"):
        metric.process(None, [{"sample_idx": 0}])


class Numbers(torch.utils.data.Dataset):
    def __len__(self):
        return 8

    def __getitem__(self, i):
        return {"inputs": torch.full((2, 3), float(i)), "data_samples": i}


def train(tmp_path, hooks, iterations=10, **kwargs):
    runner = Runner(
        FirstPixels(),
        work_dir=str(tmp_path / "work"),
        experiment_name=tmp_path.name,
        train_dataloader=dict(
            batch_size=2, dataset=Numbers(), sampler=dict(type="DefaultSampler", shuffle=True)
        ),
        optim_wrapper=dict(optimizer=dict(type="SGD", lr=0.01, momentum=0.9)),
        train_cfg=dict(by_epoch=False, max_iters=iterations),
        custom_hooks=hooks,
        visualizer=dict(type="Visualizer", vis_backends=[dict(type="LocalVisBackend")]),
        randomness=dict(seed=0),
        log_level="WARNING",
        **kwargs,
    )
    runner.train()
    return runner


def test_the_verification_hook_sends_figures_to_the_visualizer(pairs, tmp_path):
    pair_set = dict(data_root=str(pairs[0]), ann_file="val.bin", pipeline=[to_inputs])
    hook = dict(
        type="FaceVerificationHook",
        pair_sets=[pair_set | dict(name="a"), pair_set | dict(name="b", flip_test=False)],
        interval=4,
        before_training=True,
        folds=4,
        batch_size=5,
    )
    runner = train(tmp_path, [hook])
    assert runner.model.training
    (log,) = (tmp_path / "work").rglob("scalars.json")
    logged = [json.loads(line) for line in log.read_text().splitlines()]
    _, images, places, issame = pairs
    for name, flip_test in (("a", True), ("b", False)):
        figures = [values for values in logged if f"verification/{name}/accuracy" in values]
        # Before training, every 4 iterations, and after the last.
        assert [values["step"] for values in figures] == [0, 4, 8, 10]
        embeddings = expected_embeddings(images, flip_test)[places.ravel()]
        report = verify_pairs(embeddings, issame, folds=4)
        for values in figures:
            assert values[f"verification/{name}/accuracy"] == pytest.approx(report.accuracy_mean)
            assert values[f"verification/{name}/auc"] == pytest.approx(report.auc)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [(dict(pair_sets=[]), "at least one pair set"), (dict(pair_sets=[{}], interval=0), "interval")],
)
def test_the_verification_hook_refuses_what_it_cannot_do(arguments, message):
    from sf2_plugin.integrations.mmengine import FaceVerificationHook

    with pytest.raises(ValueError, match=message):
        FaceVerificationHook(**arguments)


def test_pairs_that_cannot_be_verified_are_refused_before_training(pairs, tmp_path):
    """The pairs of `pairs` are genuine and impostor in turn: folds of one pair hold one kind."""
    message = r"pair set one_sided: fold 1 of \d+ .* has only"
    pair_set = dict(data_root=str(pairs[0]), ann_file="val.bin", name="one_sided")
    hook = dict(type="FaceVerificationHook", pair_sets=[pair_set], folds=len(pairs[3]))
    for lazy in (False, True):
        pair_set["lazy_init"] = lazy
        with pytest.raises(ValueError, match=message):
            train(tmp_path, [hook])
    assert not list(tmp_path.rglob("*.pth"))
    pair_set["lazy_init"] = False
    metric = METRICS.build(dict(type="FaceVerification", folds=len(pairs[3])))
    with pytest.raises(ValueError, match=message):
        metric.dataset_meta = DATASETS.build(dict(type="FacePairDataset", **pair_set)).metainfo


class Margins(Hook):
    priority = "VERY_LOW"

    def __init__(self):
        self.values = []

    def before_train_iter(self, runner, batch_idx, data_batch=None):
        self.values.append(runner.model.head.recipe.margin)


def test_the_margin_schedule_reaches_the_head_and_the_log(tmp_path):
    margins = Margins()
    schedule = dict(
        type="MarginScheduleHook", begin_margin=0.0, end_margin=0.4, begin=2, end=6, mode="linear"
    )
    runner = train(tmp_path, [schedule, margins])
    assert margins.values == pytest.approx([0, 0, 0, 0.1, 0.2, 0.3, 0.4, 0.4, 0.4, 0.4])
    assert runner.message_hub.get_scalar("train/margin").current() == pytest.approx(0.4)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (dict(begin=5, end=5), "0 <= begin < end, got 5 and 5"),
        (dict(begin=0, end=5, mode="cosine"), "mode must be .*got 'cosine'"),
    ],
)
def test_a_margin_schedule_that_cannot_be_is_refused(arguments, message):
    with pytest.raises(ValueError, match=message):
        MarginScheduleHook(0.0, 0.4, **arguments)


def test_a_margin_outside_its_domain_is_refused_before_training(tmp_path):
    schedule = dict(type="MarginScheduleHook", begin_margin=0.0, end_margin=-1.0, begin=0, end=6)
    with pytest.raises(ValueError, match=r"margin must be a number at least 0 .*got -1"):
        train(tmp_path, [schedule])


def test_checkpoints_with_log_history_resume(tmp_path):
    checkpoint = dict(default_hooks=dict(checkpoint=dict(type="CheckpointHook", interval=5)))
    train(tmp_path, [], iterations=5, **checkpoint)
    runner = train(tmp_path, [], iterations=7, resume=True, **checkpoint)
    assert runner.iter == 7
    assert len(runner.message_hub.get_scalar("train/loss").data[0]) == 7


class Hostile:
    def __reduce__(self):
        return (print, ("this must not run",))


def test_checkpoints_still_run_no_code(tmp_path, capsys):
    torch.save({"history": HistoryBuffer([1.0], [1]), "more": Hostile()}, tmp_path / "bad.pth")
    with pytest.raises(pickle.UnpicklingError):
        torch.load(tmp_path / "bad.pth")
    assert "this must not run" not in capsys.readouterr().out


def test_the_history_gives_its_statistics_and_no_other_attribute(tmp_path):
    class Reads:
        def __reduce__(self):
            return (getattr, (HistoryBuffer, "register_statistics"))

    torch.save({"history": Reads()}, tmp_path / "bad.pth")
    with pytest.raises(pickle.UnpicklingError, match="asks for 'register_statistics'"):
        torch.load(tmp_path / "bad.pth")


def test_the_loss_builds_from_the_root_registry():
    head = MODELS.build(dict(type="SphereFace2", num_classes=5, embedding_size=4, margin=0.2))
    assert isinstance(head, SphereFace2)
    assert head.recipe.margin == 0.2


def run_without(blocked, code):
    """Run code where importing `blocked` fails."""
    block = f"import sys\nfor name in {blocked!r}: sys.modules[name] = None\n"
    return subprocess.run([sys.executable, "-c", block + code], capture_output=True, text=True)


def test_mmengine_alone_is_enough():
    code = """
import sf2_plugin.integrations.mmengine
from mmengine.registry import DATASETS, HOOKS, METRICS, MODELS
print(all([DATASETS.get("FacePairDataset"), HOOKS.get("MarginScheduleHook"),
           HOOKS.get("FaceVerificationHook"), METRICS.get("FaceVerification"),
           MODELS.get("SphereFace2")]))
"""
    result = run_without(["mmpretrain", "mmcv"], code)
    assert result.stdout.strip() == "True", result.stderr


def test_a_second_import_patches_and_registers_nothing_twice():
    code = """
import importlib, sys
from mmengine.runner import Runner
import sf2_plugin.integrations.mmpretrain
from sf2_plugin.integrations.mmengine.runner_patches import ORIGINAL, PATCHES
first = [getattr(getattr(Runner, name), ORIGINAL) for name in PATCHES]
adapters = [m for n, m in list(sys.modules.items()) if n.startswith("sf2_plugin.integrations.mm")]
for module in adapters + adapters[::-1]:
    importlib.reload(module)
for name in [n for n in sys.modules if n.startswith("sf2_plugin.integrations.mm")]:
    del sys.modules[name]
import sf2_plugin.integrations.mmpretrain
print([getattr(getattr(Runner, name), ORIGINAL) for name in PATCHES] == first)
from mmpretrain.registry import HOOKS, MODELS
print(MODELS.build(dict(type="SphereFace2ClsHead", num_classes=3, in_channels=4)).in_channels)
print(HOOKS.get("PartialFCHook").__module__)
"""
    result = run_without([], code)
    lines = result.stdout.split()
    assert lines == ["True", "4", "sf2_plugin.integrations.mmengine.partial_fc"], result.stderr


@pytest.mark.parametrize("name", ["mmengine", "mmpretrain"])
def test_a_missing_framework_is_one_line_that_names_the_extra(name):
    result = run_without([name], f"import sf2_plugin.integrations.{name}")
    assert result.returncode == 1
    assert f'pip install "sf2-plugin[{name}]"' in result.stderr.splitlines()[-1]
