"""A sharded head under MMEngine's Runner, started by torchrun, against the head of one process."""

import logging
import os
import shutil
import sys
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch

pytest.importorskip("mmpretrain", reason='needs pip install "sf2-plugin[mmpretrain]"')

import sf2_plugin.integrations.mmpretrain  # noqa: F401
from mmengine.dist import init_dist
from mmengine.hooks import Hook
from mmengine.model import BaseDataPreprocessor, BaseModule, is_model_wrapper
from mmengine.optim import OptimWrapper
from mmengine.registry import DATASETS, init_default_scope
from mmengine.runner import Runner
from mmpretrain.registry import MODELS
from mmpretrain.structures import DataSample
from sf2_plugin.integrations.mmengine import FaceVerificationHook, PartialFCHook
from sf2_plugin.integrations.mmengine.clipping import clip_grad_norm_over_ranks
from sf2_plugin.integrations.mmengine.dataset_embedding import embed_faces
from sf2_plugin.integrations.mmengine.rank_files import claim_folder, save_together, shards_of
from torch import distributed, nn

from sf2_plugin import PartialFCSphereFace2
from sf2_plugin.compat import loss_scaler_of_all_ranks
from sf2_plugin.data import encode_jpeg, write_pair_bin
from sf2_plugin.ending import rest
from sf2_plugin.shards import HEAD, MARK, read_shards, waiting

from ..devices import needs
from ..parity import relative_error
from ..processes import python, torchrun

#: A class count that two ranks do not divide.
NUM_CLASSES, SIZE, GLOBAL_BATCH, EPOCHS = 11, 6, 8, 4
#: Half of it clips every step.
MAX_NORM = 1.0
SCALES_ON_CPU = hasattr(torch.amp, "GradScaler")


class Projection(BaseModule):
    """A small backbone in double precision, of vectors or of an image's first pixels."""

    def __init__(self):
        super().__init__()
        self.layers = nn.Sequential(nn.Linear(8, 8), nn.Tanh(), nn.Linear(8, SIZE))

    def forward(self, inputs):
        rows = torch.stack(list(inputs)).flatten(1)[:, :8]
        return (self.layers(rows.to(self.layers[0].weight)),)


class Vectors(torch.utils.data.Dataset):
    """Two global batches an epoch."""

    def __init__(self):
        generator = torch.Generator().manual_seed(0)
        self.vectors = torch.randn(2 * GLOBAL_BATCH, 8, generator=generator).double()
        self.labels = torch.randint(NUM_CLASSES, (2 * GLOBAL_BATCH,), generator=generator)

    def __len__(self):
        return len(self.vectors)

    def __getitem__(self, i):
        sample = DataSample().set_gt_label(self.labels[i : i + 1])
        return {"inputs": self.vectors[i], "data_samples": sample}


class Losses(Hook):
    def __init__(self):
        self.values = []

    def after_train_iter(self, runner, batch_idx, data_batch=None, outputs=None):
        self.values.append(outputs["loss"].item())


def to_inputs(item):
    return {"inputs": torch.from_numpy(item["img"]) / 100, "data_samples": item}


def build_model(partial_fc):
    init_default_scope("mmpretrain")
    torch.manual_seed(0)
    head = dict(type="SphereFace2ClsHead", num_classes=NUM_CLASSES, in_channels=SIZE)
    model = MODELS.build(
        dict(
            type="ImageClassifier",
            backbone=Projection(),
            data_preprocessor=BaseDataPreprocessor(),
            head=head | dict(partial_fc=True),
        )
    )
    if not partial_fc:  # From the centers that a sharded head starts from.
        weight, bias = model.head.loss_module.parameters()
        model.head = MODELS.build(head)
        model.head.loss_module.load_state_dict(dict(weight=weight, bias=bias))
    return model.double()


def runner_of(model, folder, name, **kwargs):
    """A runner of this process, or of one of several ranks, that draws the same batches."""
    world_size = int(os.environ.get("WORLD_SIZE", 1))
    return Runner(
        model,
        work_dir=str(folder / name),
        experiment_name=f"{folder.name}_{name}",
        train_dataloader=dict(
            batch_size=GLOBAL_BATCH // world_size,
            dataset=Vectors(),
            sampler=dict(type="DefaultSampler", shuffle=True),
        ),
        randomness=dict(seed=0),
        log_level="ERROR",
        launcher="none" if world_size == 1 else "pytorch",
        **kwargs,
    )


def train(folder, name, partial_fc=True, clip="norm", epochs=EPOCHS, **kwargs):
    """A runner that has trained, the losses of its iterations, and its last verification."""
    losses = Losses()
    pair_set = dict(ann_file=str(folder / "faces.bin"), pipeline=[to_inputs])
    verification = FaceVerificationHook([pair_set], folds=2, batch_size=5)
    clip_grad = dict(norm=dict(max_norm=MAX_NORM), value=dict(type="value", clip_value=0.1))[clip]
    runner = runner_of(
        build_model(partial_fc),
        folder,
        name,
        optim_wrapper=dict(
            optimizer=dict(type="SGD", lr=0.1, momentum=0.9, weight_decay=5e-4),
            clip_grad=clip_grad,
        ),
        train_cfg=dict(by_epoch=True, max_epochs=epochs),
        default_hooks=dict(checkpoint=dict(type="CheckpointHook", interval=1, max_keep_ckpts=2)),
        custom_hooks=[losses, verification],
        **kwargs,
    )
    runner.train()
    return runner, losses.values, verification.reports


def state(runner):
    """Backbone, centers and bias of this rank."""
    model = runner.model.module if is_model_wrapper(runner.model) else runner.model
    return [p.detach() for p in (*model.backbone.parameters(), *model.head.parameters())]


def overflow():
    """A shared parameter after a step in which one rank's shard alone has an infinite gradient."""
    head, shared = PartialFCSphereFace2(NUM_CLASSES, SIZE), nn.Parameter(torch.ones(2))
    optimizer = torch.optim.SGD([shared, head.weight], lr=1.0)
    wrapper = OptimWrapper(optimizer)
    wrapper.loss_scaler = torch.amp.GradScaler("cpu", init_scale=4.0)
    PartialFCHook().before_train(SimpleNamespace(model=head, optim_wrapper=wrapper, hooks=[]))
    values = []
    for gradient in (1.0, float("inf")):
        wrapper.loss_scaler.scale(torch.zeros(()))
        shared.grad = torch.ones(2)
        on_this_rank = gradient if distributed.get_rank() == 1 else 1.0
        head.weight.grad = torch.full_like(head.weight, on_this_rank)
        wrapper.loss_scaler.step(optimizer)
        wrapper.loss_scaler.update()
        values += [shared[0].item(), wrapper.loss_scaler.get_scale()]
    return values


def worker(folder):
    # Where there is no GPU, ranks talk by gloo instead.
    init_dist("pytorch", backend="gloo" if torch.cuda.is_available() else "nccl")
    rank = distributed.get_rank()
    answer = {}
    for clip in ("norm", "value"):
        runner, losses, reports = train(folder, f"sharded_{clip}", clip=clip)
        answer[clip] = dict(losses=losses, state=state(runner), reports=reports)
    distributed.barrier()
    face = DATASETS.build(dict(type="FacePairDataset", ann_file=str(folder / "faces.bin")))[0]
    resumed, losses, _ = train(
        folder, "resumed", load_from=str(folder / "sharded_norm" / "epoch_3.pth"), resume=True
    )
    answer["resumed"] = dict(losses=losses, state=state(resumed))
    _, losses, _ = train(
        folder, "from_plain", epochs=1, load_from=str(folder / "plain_norm" / "epoch_4.pth")
    )
    answer["from_plain"] = losses
    answer["one_face"] = embed_faces(resumed.model, [to_inputs(face)], batch_size=5)
    if SCALES_ON_CPU:
        answer["overflow"] = overflow()
    torch.save(answer, folder / f"rank_{rank}.pt")
    rest()
    distributed.destroy_process_group()


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tmp_path_factory.mktemp("partial_fc")


@pytest.fixture(scope="module")
def plain(folder):
    """What one process trains, with a head that is not sharded, by the kind of clipping."""
    rng = np.random.default_rng(0)
    images = [encode_jpeg(rng.integers(0, 255, (16, 16, 3), np.uint8)) for _ in range(21)]
    places = rng.integers(21, size=40)
    write_pair_bin(folder / "faces.bin", [images[i] for i in places], np.arange(20) % 2 == 0)
    return {
        clip: train(folder, f"plain_{clip}", partial_fc=False, clip=clip)
        for clip in ("norm", "value")
    }


@pytest.fixture(scope="module")
def ranks(folder, plain):
    """What each of two ranks answers."""
    torchrun(__name__, folder)
    return [torch.load(folder / f"rank_{rank}.pt", weights_only=False) for rank in range(2)]


def assert_trained_alike(ranks, losses, whole):
    """Each rank's losses are those, and its weights are the whole model's, or its share."""
    *backbone, weight, bias = whole
    for rank in ranks:
        assert rank["losses"] == pytest.approx(losses, rel=1e-9)
        *rank_backbone, _, rank_bias = rank["state"]
        for actual, expected in zip(rank_backbone, backbone, strict=True):
            assert relative_error(actual, expected) < 1e-9
        for actual, first in zip(rank_backbone, ranks[0]["state"], strict=False):
            assert torch.equal(actual, first)
        assert relative_error(rank_bias, bias) < 1e-9
    assert relative_error(torch.cat([rank["state"][-2] for rank in ranks]), weight) < 1e-9


@pytest.mark.parametrize("clip", ["norm", "value"])
def test_two_ranks_train_what_one_process_trains(plain, ranks, clip):
    runner, losses, _ = plain[clip]
    assert len(losses) == 2 * EPOCHS
    assert losses[-1] < losses[0]
    assert_trained_alike([rank[clip] for rank in ranks], losses, state(runner))


def test_gradients_were_clipped(plain):
    norms = plain["norm"][0].message_hub.get_scalar("train/grad_norm").data[0]
    assert (norms > 2 * MAX_NORM).all()


def test_two_ranks_resume_exactly(ranks):
    for rank in ranks:
        assert rank["resumed"]["losses"] == rank["norm"]["losses"][-2:]
        for resumed, trained in zip(rank["resumed"]["state"], rank["norm"]["state"], strict=True):
            assert torch.equal(resumed, trained)


def test_one_rank_resumes_what_two_have_saved(plain, ranks, folder):
    start = dict(load_from=str(folder / "sharded_norm" / "epoch_3.pth"), resume=True)
    runner, losses, _ = train(folder, "one_rank", **start)
    whole, expected, _ = plain["norm"]
    assert_trained_alike([dict(losses=losses, state=state(runner))], expected[-2:], state(whole))


def test_two_ranks_start_from_the_checkpoint_of_a_plain_head(plain, ranks, folder):
    start = dict(load_from=str(folder / "plain_norm" / "epoch_4.pth"))
    _, losses, _ = train(folder, "plain_again", partial_fc=False, epochs=1, **start)
    for rank in ranks:
        assert rank["from_plain"] == pytest.approx(losses, rel=1e-9)


def test_shards_lie_beside_their_checkpoint_and_go_with_it(ranks, folder):
    saved = {path.name for path in (folder / "sharded_norm").iterdir() if "epoch" in path.name}
    assert saved == {"epoch_3.pth", "epoch_3.shards", "epoch_4.pth", "epoch_4.shards"}
    assert not list((folder / "plain_norm").glob("*.shards"))
    shards = read_shards(folder / "sharded_norm" / "epoch_4.shards")
    assert [len(checkpoint[HEAD]["weight"]) for checkpoint in shards.checkpoints] == [6, 5]
    figures = shards.describe()
    assert figures["optimizer"] == ["momentum_buffer"]
    assert (figures["epoch"], figures["global_step"]) == (4, 8)
    assert figures["ranks_recorded"] == 2
    for rank, checkpoint in zip(ranks, shards.checkpoints, strict=True):
        assert torch.equal(checkpoint[HEAD]["weight"], rank["norm"]["state"][-2])


def test_the_checkpoint_of_rank_0_leaves_the_shard_out(plain, ranks, folder):
    with_head, without = (
        torch.load(folder / name / "epoch_4.pth") for name in ("plain_norm", "sharded_norm")
    )
    lacks = with_head["state_dict"].keys() - without["state_dict"].keys()
    assert lacks == {"head.loss_module.weight"}
    states = [checkpoint["optimizer"]["state"].keys() for checkpoint in (with_head, without)]
    assert states[0] - states[1] == {4, 5}


def test_two_ranks_verify_as_one(plain, ranks):
    (expected,) = plain["norm"][2].values()
    (actual,) = ranks[0]["norm"]["reports"].values()
    np.testing.assert_allclose(actual.scores, expected.scores, atol=1e-6)
    np.testing.assert_array_equal(actual.accuracy, expected.accuracy)
    assert actual.auc == pytest.approx(expected.auc)
    assert ranks[1]["norm"]["reports"] == {}


def test_a_rank_without_faces_gets_the_embeddings_of_the_others(plain, ranks, folder):
    faces = DATASETS.build(dict(type="FacePairDataset", ann_file=str(folder / "faces.bin")))
    expected = embed_faces(plain["norm"][0].model, [to_inputs(faces[0])], batch_size=5)
    for rank in ranks:
        np.testing.assert_allclose(rank["one_face"], expected, atol=1e-6)


def test_a_loss_scaler_of_all_ranks_begins_at_a_number(monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    assert loss_scaler_of_all_ranks("cuda").state_dict()["scale"] == 2.0**16


@needs(SCALES_ON_CPU, "2.3")
def test_a_step_that_overflows_on_one_rank_is_skipped_on_all(ranks):
    for rank in ranks:
        assert rank["overflow"] == [0.75, 4.0, 0.75, 2.0]


def test_a_checkpoint_without_its_shards_is_not_resumed(ranks, folder, tmp_path):
    (tmp_path / "epoch_3.pth").symlink_to(folder / "sharded_norm" / "epoch_3.pth")
    with pytest.raises(ValueError, match=r"cannot be resumed: there is no .*epoch_3\.shards"):
        train(folder, "alone", load_from=str(tmp_path / "epoch_3.pth"), resume=True)


def test_resuming_reads_the_shards_once(folder, ranks, monkeypatch):
    read = []

    def counted(folder):
        read.append(folder)
        return read_shards(folder)

    monkeypatch.setattr("sf2_plugin.integrations.mmengine.rank_files.read_shards", counted)
    path = folder / "sharded_norm" / "epoch_3.pth"
    train(folder, "read_once", load_from=str(path), resume=True)
    assert read == [path.with_suffix(".shards")]


@pytest.mark.parametrize(
    "key", ["head.loss_module.weight", "head.norm_product.weight", "backbone.layers.0.weight"]
)
def test_a_warning_says_that_no_centers_are_loaded(tmp_path, key):
    """A plain head's and ArcFaceClsHead's are taken by a sharded one, with the bias that fits."""
    warnings = []
    runner = SimpleNamespace(
        model=build_model(partial_fc=True),
        logger=SimpleNamespace(warning=warnings.append, info=print),
        distributed=False,
        call_hook=lambda *args, **kwargs: None,
    )
    Runner.wrap_model(runner, None, runner.model)
    head = runner.model.head.loss_module
    bias = head.bias.item()
    rows = torch.randn(NUM_CLASSES if "head" in key else 8, SIZE if "head" in key else 8)
    torch.save({"state_dict": {key: rows}}, tmp_path / "epoch_3.pth")
    Runner.load_checkpoint(runner, str(tmp_path / "epoch_3.pth"))
    assert len(warnings) == ("head" not in key)
    assert torch.equal(head.weight, rows.double()) == ("head" in key)
    assert head.bias.item() == pytest.approx(bias)


def test_another_number_of_classes_starts_from_its_own_bias(plain, ranks, folder):
    """From shards and from a plain head's checkpoint; the backbone is taken in any case."""
    for name in ("sharded_norm", "plain_norm"):
        torch.manual_seed(1)
        runner = SimpleNamespace(model=build_model(partial_fc=True), logger=logging.getLogger("x"))
        head = runner.model.head = MODELS.build(
            dict(type="SphereFace2ClsHead", num_classes=50, in_channels=SIZE, partial_fc=True)
        ).double()
        own = [parameter.clone() for parameter in head.parameters()]
        runner.call_hook, runner.distributed = (lambda *args, **kwargs: None), False
        Runner.wrap_model(runner, None, runner.model)
        Runner.load_checkpoint(runner, str(folder / name / "epoch_4.pth"))
        for parameter, expected in zip(head.parameters(), own, strict=True):
            assert torch.equal(parameter, expected), name
        saved = torch.load(folder / name / "epoch_4.pth")["state_dict"]
        for key, value in runner.model.backbone.state_dict().items():
            assert torch.equal(value, saved[f"backbone.{key}"])


class Killed(BaseException):
    pass


def save_set(path, step, replace=os.replace):
    """A checkpoint and its shard, of an iteration; `replace` may kill it."""
    head = PartialFCSphereFace2(11, SIZE)
    torch.nn.init.constant_(head.bias, step)

    def save(path, mark):
        torch.save({"meta": {MARK: mark, "iter": step}}, path)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("sf2_plugin.integrations.mmengine.rank_files.os.replace", replace)
        save_together({HEAD: head.state_dict(), "global_step": step}, path, 0, save)


def step_of_set(path):
    """The iteration of a checkpoint, whose shards must be of it too."""
    checkpoint = torch.load(path)
    shards = shards_of(str(path), checkpoint, PartialFCSphereFace2(11, SIZE))
    assert shards.checkpoints[0][HEAD]["bias"].item() == checkpoint["meta"]["iter"]
    return checkpoint["meta"]["iter"]


def test_a_kill_always_leaves_a_whole_set(tmp_path):
    """Killed at each change of a name, before and after it, over a checkpoint of the same name."""
    for kill_at in range(1, 9):
        folder = tmp_path / str(kill_at)
        folder.mkdir()
        path = folder / "latest.pth"
        save_set(path, 1)
        changes = []

        def replace(source, target, kill_at=kill_at, changes=changes):
            changes.append(target)
            if kill_at == 2 * len(changes) - 1:
                raise Killed
            os.rename(source, target)
            if kill_at == 2 * len(changes):
                raise Killed

        with pytest.raises(Killed):
            save_set(path, 2, replace)
        # The shard's file, the checkpoint, the folder of old shards, that of the new ones.
        assert step_of_set(path) == (1 if kill_at < 4 else 2)
        claim_folder(folder)
        assert step_of_set(path) == (1 if kill_at < 4 else 2)
        left = {each.name for each in folder.iterdir()} - {".shards.lock"}
        assert left == {"latest.pth", "latest.shards"}
        save_set(path, 3)
        assert step_of_set(path) == 3
        assert not list(folder.glob(".latest*"))


def test_shards_of_another_save_are_refused(tmp_path):
    for step, name in enumerate(("a.pth", "b.pth")):
        save_set(tmp_path / name, step)
    shutil.rmtree(tmp_path / "a.shards")
    shutil.copytree(tmp_path / "b.shards", tmp_path / "a.shards")
    with pytest.raises(ValueError, match=r"not saved together: .*a\.pth bears .*a\.shards bears"):
        step_of_set(tmp_path / "a.pth")
    unmarked = {"meta": {"iter": 0}}
    with pytest.raises(ValueError, match=r"a\.pth bears no mark"):
        shards_of(str(tmp_path / "a.pth"), unmarked, PartialFCSphereFace2(11, SIZE))


def test_old_sets_without_marks_go_by_their_iteration(tmp_path):
    save_set(tmp_path / "a.pth", 5)
    (shard,) = (tmp_path / "a.shards").iterdir()
    content = torch.load(shard)
    del content[MARK]
    torch.save(content, shard)
    head = PartialFCSphereFace2(11, SIZE)
    shards = shards_of(str(tmp_path / "a.pth"), {"meta": {"iter": 5}}, head)
    assert shards.checkpoints[0]["global_step"] == 5
    with pytest.raises(ValueError, match=r"of iteration 4 and .* of 5: they were not saved"):
        shards_of(str(tmp_path / "a.pth"), {"meta": {"iter": 4}}, head)


def test_a_second_job_in_a_folder_is_told_and_cleans_nothing(tmp_path):
    """The second is another process, started while this one holds the folder."""
    claim_folder(tmp_path)
    work = waiting(tmp_path / "epoch_1.shards", "0123456789abcdef")
    work.mkdir()
    code = (
        "import sys, pathlib, sf2_plugin.integrations.mmengine.rank_files as shards\n"
        "shards.claim_folder(pathlib.Path(sys.argv[1]))"
    )
    second = python("-c", code, tmp_path)
    assert second.returncode == 1
    assert f"is in use by another job, process {os.getpid()}" in second.stderr
    assert work.is_dir()


def test_what_cannot_be_written_leaves_the_last_set(tmp_path):
    save_set(tmp_path / "latest.pth", 1)

    def full(source, target):
        raise OSError("No space left on device")

    with pytest.raises(OSError, match="No space left"):
        save_set(tmp_path / "latest.pth", 2, full)
    assert step_of_set(tmp_path / "latest.pth") == 1
    assert {path.name for path in tmp_path.iterdir()} == {"latest.pth", "latest.shards"}


def test_a_plain_head_has_no_hook(plain, folder):
    runner, _, _ = plain["norm"]
    assert not any(isinstance(hook, PartialFCHook) for hook in runner.hooks)


@pytest.mark.parametrize("norm_type", [1.0, 2.0, float("inf")])
@pytest.mark.parametrize("old_torch", [False, True])
def test_one_rank_clips_as_torch_does(norm_type, old_torch, monkeypatch):
    if old_torch:
        for name in ("get_total_norm", "clip_grads_with_norm_"):
            monkeypatch.delattr(nn.utils, name, raising=False)
    clipped = []
    for clip in (clip_grad_norm_over_ranks, nn.utils.clip_grad_norm_):
        torch.manual_seed(0)
        parameters = [nn.Parameter(torch.zeros(3, 2)), nn.Parameter(torch.zeros(2))]
        for parameter in parameters:
            parameter.grad = torch.randn_like(parameter)
        shard = [parameters[0]] if clip is clip_grad_norm_over_ranks else []
        norm = clip(*shard, parameters, 0.5, norm_type)
        clipped.append([norm, *(parameter.grad for parameter in parameters)])
    torch.testing.assert_close(*clipped)


def test_a_norm_that_is_not_finite_is_refused_where_asked():
    parameter = nn.Parameter(torch.zeros(2))
    parameter.grad = torch.full((2,), float("nan"))
    with pytest.raises(RuntimeError, match="the gradient's norm is nan"):
        clip_grad_norm_over_ranks(parameter, [parameter], 1.0, error_if_nonfinite=True)


def test_a_sharded_head_predicts_embeddings_alone():
    head = build_model(partial_fc=True).head
    features = (torch.randn(3, SIZE, dtype=torch.float64),)
    torch.testing.assert_close(head(features), features[0])
    for sample, embedding in zip(head.predict(features), features[0], strict=True):
        assert sample.keys() == ["embedding"]
        assert torch.equal(sample.embedding, embedding)


def test_the_head_passes_on_how_to_sample():
    config = dict(type="SphereFace2ClsHead", num_classes=11, in_channels=SIZE, partial_fc=True)
    for given in ({}, dict(negative_weighting="none"), dict(negative_weighting="unbiased")):
        loss = MODELS.build(config | dict(sample_rate=0.3, **given)).loss_module
        assert isinstance(loss, PartialFCSphereFace2)
        assert loss.sample_rate == 0.3
        assert loss.negative_weighting == given.get("negative_weighting", "none")


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (dict(partial_fc=True, cal_acc=True), "cal_acc needs all classes on one rank"),
        (dict(sample_rate=0.1), "sample_rate needs partial_fc=True"),
        (dict(partial_fc=True, sample_rate=2), "sample_rate must be a number from 0 to 1, got 2"),
    ],
)
def test_what_does_not_go_together_is_refused(arguments, message):
    with pytest.raises(ValueError, match=message):
        MODELS.build(dict(type="SphereFace2ClsHead", num_classes=11, in_channels=SIZE) | arguments)


def test_a_model_has_one_sharded_head_and_is_not_wrapped_yet():
    model = build_model(partial_fc=True)
    model.other = PartialFCSphereFace2(11, SIZE)
    with pytest.raises(ValueError, match="one PartialFCSphereFace2, this one has 2"):
        Runner.wrap_model(None, None, model)
    wrapped = nn.DataParallel(build_model(partial_fc=True))
    with pytest.raises(ValueError, match=r"must stay out of the model's wrapper.*got DataParallel"):
        Runner.wrap_model(None, None, wrapped)


if __name__ == "__main__":
    worker(Path(sys.argv[1]))
