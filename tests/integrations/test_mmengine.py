"""What needs MMEngine alone: pairs, metric, hooks, checkpoints."""

import json

import numpy as np
import pytest
import torch

pytest.importorskip("mmengine", reason='needs pip install "sf2-plugin[mmengine]"')

from mmengine.evaluator import BaseMetric
from mmengine.hooks import CheckpointHook, EarlyStoppingHook, EMAHook, Hook
from mmengine.logging import HistoryBuffer
from mmengine.model import BaseDataPreprocessor, BaseModel
from mmengine.registry import DATASETS, METRICS, MODELS
from mmengine.runner import Runner
from sf2_plugin.integrations.mmengine import FaceVerificationHook, MarginScheduleHook
from sf2_plugin.integrations.mmengine.dataset_embedding import embed_faces
from sf2_plugin.integrations.mmengine.metrics import verify_faces

from sf2_plugin import SphereFace2
from sf2_plugin.data import decode_image, encode_jpeg, write_pair_bin
from sf2_plugin.evaluation import verify_pairs
from sf2_plugin.torch_files import load_torch_file

from ..processes import advice, python
from ..ranks import on_ranks

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
    with pytest.raises(ValueError, match="got sample_idx: for other models use"):
        metric.process(None, [{"sample_idx": 0}])


class Numbers(torch.utils.data.Dataset):
    def __len__(self):
        return 8

    def __getitem__(self, i):
        return {"inputs": torch.full((2, 3), float(i)), "data_samples": i}


def train(tmp_path, hooks, iterations=10, model=None, **kwargs):
    kwargs.setdefault("train_cfg", dict(by_epoch=False, max_iters=iterations))
    optimizer = dict(optimizer=dict(type="SGD", lr=0.01, momentum=0.9))
    kwargs.setdefault("optim_wrapper", optimizer)
    runner = Runner(
        model or FirstPixels(),
        work_dir=str(tmp_path / "work"),
        experiment_name=tmp_path.name,
        train_dataloader=dict(
            batch_size=2, dataset=Numbers(), sampler=dict(type="DefaultSampler", shuffle=True)
        ),
        custom_hooks=hooks,
        visualizer=dict(type="Visualizer", vis_backends=[dict(type="LocalVisBackend")]),
        randomness=dict(seed=0),
        log_level="WARNING",
        **kwargs,
    )
    runner.train()
    return runner


class Learning(BaseModel):
    """A model whose one image is NaN at will."""

    def __init__(self, bad=None):
        super().__init__(data_preprocessor=BaseDataPreprocessor())
        self.backbone = torch.nn.Linear(6, 6)
        self.head = SphereFace2(8, 6, preset="wespeaker")
        self.bad = bad

    def forward(self, inputs, data_samples=None, mode="tensor"):
        embeddings = self.backbone(torch.stack(list(inputs)).flatten(1) - 3)
        labels = torch.as_tensor(data_samples)
        if self.bad is not None:
            embeddings = torch.where(labels[:, None] == self.bad, torch.nan, embeddings)
        return {"loss": self.head(embeddings, labels)}


@pytest.mark.parametrize("clips", [True, False])
def test_a_head_is_watched_where_the_log_is_written(tmp_path, clips):
    optimizer = dict(optimizer=dict(type="SGD", lr=0.01))
    optimizer |= dict(clip_grad=dict(max_norm=5.0)) if clips else {}
    hooks = dict(logger=dict(type="LoggerHook", interval=4))
    runner = train(tmp_path, [], model=Learning(), optim_wrapper=optimizer, default_hooks=hooks)
    lines = next((tmp_path / "work").rglob("scalars.json")).read_text().splitlines()
    logged = [line for line in map(json.loads, lines) if "loss" in line]
    assert [line["step"] for line in logged] == [4, 8]
    for line in logged:
        assert -1 <= line["positive_cosine"] <= 1
        assert -1 <= line["negative_cosine"] <= 1
        assert line["grad_norm"] > 0
    assert logged[0]["bias"] != logged[1]["bias"]
    assert not runner.model.head.watch.due


def test_a_step_that_is_not_finite_costs_no_weights_and_is_named(tmp_path, monkeypatch):
    told = []
    monkeypatch.setattr("sf2_plugin.finite_steps.logger.warning", lambda *args: told.append(args))
    hooks = [dict(type="SkipNotFiniteHook")]
    model = train(tmp_path, hooks, iterations=8, model=Learning(bad=3)).model
    assert all(parameter.isfinite().all() for parameter in model.parameters())
    assert len(told) == 2  # In eight batches of two, image 3 comes twice.
    assert "1 of 2 embeddings on rank 0 have NaN or infinity (row " in told[0][1]
    assert "label 3, its path is not in the batch" in told[0][1]
    with pytest.raises(ValueError, match="must find one SphereFace2 head in the model, got 0"):
        train(tmp_path / "none", hooks, model=NoHead())


class NoHead(Learning):
    def __init__(self):
        super().__init__()
        del self.head


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


class Weights(Hook):
    """Keeps the weights, averaged and as trained, of every iteration."""

    priority = 64

    def after_train_iter(self, runner, batch_idx, data_batch=None, outputs=None):
        ema = next((hook for hook in runner.hooks if isinstance(hook, EMAHook)), None)
        models = [runner.model] + ([ema.ema_model.module] if ema else [])
        runner.weights = [*getattr(runner, "weights", []), [m.scale.item() for m in models]]


class Scaled(FirstPixels):
    """Embeds by how far a weight has been trained, so that figures tell weights apart."""

    def __init__(self):
        super().__init__()
        self.scale = torch.nn.Parameter(torch.zeros(()))
        self.embedded_with = []

    def extract_feat(self, inputs):
        (pixels,) = super().extract_feat(inputs)
        self.embedded_with.append(self.scale.item())
        return (pixels + 100 * self.scale * torch.arange(6),)

    def forward(self, inputs, data_samples=None, mode="tensor"):
        return {"loss": -self.scale} if mode == "loss" else [data_samples]


def figures_logged(runner, key):
    return list(runner.message_hub.get_scalar(f"val/{key}").data[0])


def verification(pairs, **arguments):
    pair_set = dict(data_root=str(pairs[0]), ann_file="val.bin", pipeline=[to_inputs], name="lfw")
    return dict(type="FaceVerificationHook", pair_sets=[pair_set], folds=4) | arguments


def checkpoints(**arguments):
    hook = dict(type="CheckpointHook", by_epoch=False, interval=100, save_last=False)
    return dict(default_hooks=dict(checkpoint=hook | arguments))


def test_figures_are_those_of_the_weights_that_are_saved_and_of_the_trained_ones(pairs, tmp_path):
    hooks = [dict(type="EMAHook", momentum=0.3), Weights(), verification(pairs, interval=2)]
    saved = checkpoints(interval=2)
    runner = train(tmp_path, hooks, iterations=4, model=Scaled(), **saved)
    hook = next(hook for hook in runner.hooks if isinstance(hook, FaceVerificationHook))
    dataset = hook.datasets[0]
    for place, step in enumerate((2, 4)):
        checkpoint = torch.load(tmp_path / "work" / f"iter_{step}.pth")
        raw, averaged = runner.weights[step - 1]
        assert raw != averaged
        assert checkpoint["state_dict"]["scale"] == averaged
        for suffix, weight in (("", averaged), ("_origin", raw)):
            model = Scaled()
            torch.nn.init.constant_(model.scale, weight)
            report = verify_faces(embed_faces(model, dataset, 5), dataset.metainfo, 4, [0.1])
            logged = figures_logged(runner, f"lfw/auc{suffix}")
            assert logged[place] == pytest.approx(report.auc), (step, suffix)
    assert hook.reports.keys() == {"lfw", "lfw_origin"}


@pytest.mark.parametrize(("figure", "better"), [("accuracy", max), ("eer", min)])
@pytest.mark.parametrize("by_epoch", [False, True])
def test_the_best_checkpoint_is_that_of_the_best_figure(pairs, tmp_path, figure, better, by_epoch):
    """Four iterations an epoch, verified every three: at the end of the third and amid others."""
    saved = checkpoints(save_best=f"lfw/{figure}", by_epoch=by_epoch, interval=1)
    kwargs = dict(train_cfg=dict(by_epoch=True, max_epochs=3)) if by_epoch else {}
    hooks = [Weights(), verification(pairs, interval=3)]
    runner = train(tmp_path, hooks, 12, model=Scaled(), **saved, **kwargs)
    values = figures_logged(runner, f"lfw/{figure}")
    assert len(values) == 4
    step = 3 * (values.index(better(values)) + 1)
    (best,) = (tmp_path / "work").glob(f"best_lfw_{figure}_*.pth")
    name = f"epoch_{step // 4}" if by_epoch and step % 4 == 0 else f"iter_{step}"
    assert best.stem == f"best_lfw_{figure}_{name}"
    checkpoint = torch.load(best)
    assert checkpoint["state_dict"]["scale"] == runner.weights[step - 1][0]
    assert checkpoint["meta"]["iter"] == step
    for path in (tmp_path / "work").glob("epoch_*.pth"):  # Each with its own weights still.
        epoch = int(path.stem.removeprefix("epoch_"))
        assert torch.load(path)["state_dict"]["scale"] == runner.weights[4 * epoch - 1][0]


def test_the_best_is_remembered_on_resuming(pairs, tmp_path):
    saved = checkpoints(save_best="lfw/eer", interval=3)
    hooks = [verification(pairs, interval=3)]
    runner = train(tmp_path, hooks, 6, model=Scaled(), **saved)
    score = runner.message_hub.get_info("best_score")
    runner = train(tmp_path, hooks, 9, model=Scaled(), resume=True, **saved)
    values = figures_logged(runner, "lfw/eer")
    assert len(values) == 3
    assert runner.message_hub.get_info("best_score") == min(score, *values)
    assert len(list((tmp_path / "work").glob("best_*.pth"))) == 1


def test_training_stops_early_by_a_figure(pairs, tmp_path):
    stop = dict(type="EarlyStoppingHook", monitor="lfw/eer", patience=1, min_delta=2.0)
    runner = train(tmp_path, [stop, verification(pairs, interval=2)], 10)
    assert runner.iter == 4


def test_figures_join_the_metrics_of_a_validation_loop(pairs, tmp_path):
    """Verified every three iterations, validated every two: anew where somebody waits."""
    dataset = verification(pairs)["pair_sets"][0] | dict(type="FacePairDataset", name="own")
    validation = dict(
        val_dataloader=dict(
            batch_size=8, dataset=dataset, sampler=dict(type="DefaultSampler", shuffle=False)
        ),
        val_evaluator=dict(type="Counted"),
        val_cfg=dict(),
        train_cfg=dict(by_epoch=False, max_iters=4, val_interval=2),
    )
    METRICS.register_module(name="Counted", module=Counted, force=True)
    saved = checkpoints(save_best=["lfw/eer", "count"], rule=["less", "greater"])
    runner = train(
        tmp_path, [verification(pairs, interval=3)], 4, model=Scaled(), **saved, **validation
    )
    assert len(figures_logged(runner, "lfw/eer")) == 3  # After 2, 3 and 4 iterations.
    assert len(list((tmp_path / "work").glob("best_lfw_eer_*.pth"))) == 1
    assert len(list((tmp_path / "work").glob("best_count_*.pth"))) == 1


class Counted(BaseMetric):
    def process(self, data_batch, data_samples):
        self.results.append(len(data_samples))

    def compute_metrics(self, results):
        return {"count": len(results)}


@pytest.mark.parametrize("who", ["checkpoint", "stop", "plateau"])
@pytest.mark.parametrize("name", ["lfw/acuracy", "lfw/tar_at_far_1e-06", "accuracy/top1", "loss"])
def test_figures_that_there_will_not_be_are_refused_before_training(pairs, tmp_path, who, name):
    kwargs, hooks = {}, [verification(pairs)]
    if who == "checkpoint":
        kwargs = checkpoints(save_best=name, rule="less")
    elif who == "stop":
        hooks.append(dict(type="EarlyStoppingHook", monitor=name, rule="less"))
    else:
        kwargs = dict(param_scheduler=dict(type="ReduceOnPlateauLR", monitor=name))
    with pytest.raises(ValueError, match=rf"must name a figure that there will be: .*got '{name}'"):
        train(tmp_path, hooks, **kwargs)
    assert not list(tmp_path.rglob("*.pth"))


@pytest.mark.parametrize(
    ("key", "rule"),
    [
        ("lfw/eer", "less"),
        ("topics/eer", "less"),
        ("accessories/eer_origin", "less"),
        ("lfw/accuracy", "greater"),
        ("losses/accuracy", "greater"),
        ("lfw/tar_at_far_0.001", "greater"),
        ("accuracy/top1", "greater"),
        ("loss", "less"),
    ],
)
def test_hooks_know_which_way_a_figure_is_better(key, rule):
    assert CheckpointHook(save_best=key).rules == [rule]
    assert EarlyStoppingHook(monitor=key).rule == rule
    assert CheckpointHook(save_best=key, rule="greater").rules == ["greater"]


def fail_to_verify(rank):
    """What each of two ranks says where rank 1 cannot embed, and where rank 0 cannot verify."""
    said = []
    items = [dict(inputs=torch.zeros(4, 4, 3)), dict(inputs="no image"), *[None] * 2]
    try:
        embed_faces(FirstPixels(), items[:2], batch_size=1)
    except Exception as error:
        said.append(str(error))
    metric = METRICS.build(dict(type="FaceVerification", folds=2, far_targets=[0.5]))
    issame = np.arange(8) % 2 == 0
    metric.dataset_meta = dict(name="lfw", issame=issame, face_of=np.arange(16), views=1)
    vectors = [dict(sample_idx=i, embedding=torch.full((3,), float("nan"))) for i in range(16)]
    metric.process(None, vectors[rank::2])
    try:
        metric.evaluate(16)
    except Exception as error:
        said.append(str(error))
    return said


def test_what_one_rank_cannot_verify_fails_on_all():
    answers = on_ranks(fail_to_verify, 2)
    assert answers[0] == answers[1]
    assert len(answers[0]) == 2
    assert "rank 1 could not embed faces" in answers[0][0]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [(dict(pair_sets=[]), "at least one pair set"), (dict(pair_sets=[{}], interval=0), "interval")],
)
def test_the_verification_hook_refuses_what_it_cannot_do(arguments, message):
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
    with pytest.raises(ValueError, match=r"bad\.pth: .*(print|not readable)"):
        load_torch_file(tmp_path / "bad.pth")
    assert "this must not run" not in capsys.readouterr().out


def test_the_history_gives_its_statistics_and_no_other_attribute(tmp_path):
    class Reads:
        def __reduce__(self):
            return (getattr, (HistoryBuffer, "register_statistics"))

    torch.save({"history": Reads()}, tmp_path / "bad.pth")
    with pytest.raises(ValueError, match=r"bad\.pth: .*(print|not readable)"):
        load_torch_file(tmp_path / "bad.pth")


def test_the_loss_builds_from_the_root_registry():
    head = MODELS.build(dict(type="SphereFace2", num_classes=5, embedding_size=4, margin=0.2))
    assert isinstance(head, SphereFace2)
    assert head.recipe.margin == 0.2


def run_without(blocked, code):
    """Run code where importing `blocked` fails."""
    block = f"import sys\nfor name in {blocked!r}: sys.modules[name] = None\n"
    return python("-c", block + code)


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
from sf2_plugin.integrations.mmengine.runner_patches import PATCHES
first = [getattr(Runner, name).__wrapped__ for name in PATCHES]
adapters = [m for n, m in list(sys.modules.items()) if n.startswith("sf2_plugin.integrations.mm")]
for module in adapters + adapters[::-1]:
    importlib.reload(module)
for name in [n for n in sys.modules if n.startswith("sf2_plugin.integrations.mm")]:
    del sys.modules[name]
import sf2_plugin.integrations.mmpretrain
print([getattr(Runner, name).__wrapped__ for name in PATCHES] == first)
from mmpretrain.registry import HOOKS, MODELS
print(MODELS.build(dict(type="SphereFace2ClsHead", num_classes=3, in_channels=4)).in_channels)
print(HOOKS.get("PartialFCHook").__module__)
"""
    result = run_without([], code)
    lines = result.stdout.split()
    assert lines == ["True", "4", "sf2_plugin.integrations.mmengine.partial_fc_hook"], result.stderr


@pytest.mark.parametrize("name", ["mmengine", "mmpretrain"])
def test_a_missing_framework_is_one_line_that_names_the_extra(name):
    result = run_without([name], f"import sf2_plugin.integrations.{name}")
    assert result.returncode == 1
    assert advice(name) in result.stderr.splitlines()[-1]
