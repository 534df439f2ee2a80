"""`fuse_sgd` in MMEngine: what Runner trains, saves and resumes is its optimizer's step."""

import sys
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch

pytest.importorskip("mmpretrain", reason='needs pip install "sf2-plugin[mmpretrain]"')

from mmengine.dist import init_dist
from mmengine.hooks import Hook
from mmengine.model import BaseDataPreprocessor
from mmengine.optim import OptimWrapper
from mmengine.registry import init_default_scope
from mmpretrain.registry import MODELS
from sf2_plugin.integrations.mmengine import FuseSGDHook
from torch import distributed, nn

from sf2_plugin import PartialFCSphereFace2
from sf2_plugin.ending import rest
from sf2_plugin.shards import HEAD, read_shards

from ..parity import relative_error
from ..processes import torchrun
from .test_mmengine_partial_fc import Losses, Projection, runner_of

CLASSES, SIZE = 60, 6


class DrawsByIteration(Hook):
    """A resumed run draws what the first one did."""

    def before_train_iter(self, runner, batch_idx, data_batch=None):
        torch.manual_seed(runner.iter)


def train(folder, name, sampled=True, fuse_sgd=False, **kwargs):
    """A runner that has trained, and its losses."""
    init_default_scope("mmpretrain")
    torch.manual_seed(0)
    kind = dict(partial_fc=True, sample_rate=0.1) if sampled else {}
    model = MODELS.build(
        dict(
            type="ImageClassifier",
            backbone=Projection(),
            data_preprocessor=BaseDataPreprocessor(),
            head=dict(
                type="SphereFace2ClsHead",
                num_classes=CLASSES,
                in_channels=SIZE,
                fuse_sgd=fuse_sgd,
                **kind,
            ),
        )
    ).double()
    losses = Losses()
    runner = runner_of(
        model,
        folder,
        name,
        optim_wrapper=dict(
            optimizer=dict(type="SGD", lr=0.1, momentum=0.9, weight_decay=5e-3),
            paramwise_cfg=dict(custom_keys={"head": dict(lr_mult=2.0)}),
        ),
        param_scheduler=dict(type="CosineAnnealingLR", by_epoch=False, T_max=8),
        train_cfg=dict(by_epoch=True, max_epochs=4),
        default_hooks=dict(checkpoint=dict(type="CheckpointHook", interval=1)),
        custom_hooks=[losses, DrawsByIteration()],
        **kwargs,
    )
    runner.train()
    return runner, losses.values


def assert_same(shards, expected, tolerance):
    """Centers, bias and momentum of two checkpoints, wherever their rows lie."""
    assert shards.sharded == expected.sharded
    for place in shards.sharded:
        rows = [each.rows(place, range(each.num_classes)) for each in (shards, expected)]
        assert relative_error(*rows) < tolerance, place
    bias = [each.checkpoints[0][HEAD]["bias"] for each in (shards, expected)]
    assert relative_error(*bias) < tolerance


def worker(folder):
    init_dist("pytorch", backend="gloo")
    answer = {name: train(folder, name, fuse_sgd=name == "fused")[1] for name in ("dense", "fused")}
    last = str(folder / "fused" / "epoch_2.pth")
    answer["resumed"] = train(folder, "resumed", fuse_sgd=True, load_from=last, resume=True)[1]
    torch.save(answer, folder / f"rank_{distributed.get_rank()}.pt")
    rest()
    distributed.destroy_process_group()


def test_two_ranks_of_mmengine_train_save_and_resume_what_its_optimizer_makes(tmp_path):
    torchrun(__name__, tmp_path)
    for rank in range(2):
        losses = torch.load(tmp_path / f"rank_{rank}.pt")
        assert losses["fused"] == pytest.approx(losses["dense"], rel=1e-9)
        assert losses["resumed"] == pytest.approx(losses["dense"][4:], rel=1e-9)
    expected = read_shards(tmp_path / "dense" / "epoch_4.shards")
    for name in ("fused", "resumed"):
        assert_same(read_shards(tmp_path / name / "epoch_4.shards"), expected, 1e-9)


def test_a_head_of_one_process(tmp_path):
    runners = [
        train(tmp_path, name, sampled=False, fuse_sgd=name == "fused")
        for name in ("dense", "fused")
    ]
    (dense, losses), (fused, fused_losses) = runners
    assert fused_losses == pytest.approx(losses, rel=1e-9)
    assert fused.model.head.loss_module.weight.grad is None
    pairs = zip(fused.model.parameters(), dense.model.parameters(), strict=True)
    assert all(relative_error(actual, expected) < 1e-9 for actual, expected in pairs)


@pytest.mark.parametrize(
    ("arguments", "model", "error", "message"),
    [
        (
            dict(clip_grad=dict(max_norm=5)),
            None,
            ValueError,
            "clip_grad must be None with fuse_sgd",
        ),
        (dict(accumulative_counts=2), None, ValueError, "accumulative_counts must be 1 with fuse"),
        ({}, nn.Linear(2, 2), ValueError, "must find one SphereFace2 head in the model, got 0"),
        (dict(optimizer="AdamW"), None, TypeError, "must be a torch.optim.SGD, got AdamW"),
        (dict(of=nn.Linear(2, 2)), None, ValueError, "optim_wrapper must hold the class centers"),
    ],
)
def test_what_would_not_reach_the_class_centers_is_refused(arguments, model, error, message):
    head = PartialFCSphereFace2(CLASSES, SIZE)
    kind, of = arguments.pop("optimizer", "SGD"), arguments.pop("of", head)
    optimizer = getattr(torch.optim, kind)(of.parameters(), lr=0.1)
    wrapper = OptimWrapper(optimizer, **arguments)
    with pytest.raises(error, match=message):
        FuseSGDHook().before_train(SimpleNamespace(model=model or head, optim_wrapper=wrapper))


def test_missed_steps_go_with_a_fused_sharded_head():
    head = dict(type="mmpretrain.SphereFace2ClsHead", num_classes=5, in_channels=3)
    with pytest.raises(ValueError, match="missed_steps needs partial_fc=True and fuse_sgd=True"):
        MODELS.build(head | dict(missed_steps="skipped", fuse_sgd=True))
    options = dict(missed_steps="skipped", fuse_sgd=True, partial_fc=True)
    assert MODELS.build(head | options).fused_sgd == {"missed_steps": "skipped"}


if __name__ == "__main__":
    worker(Path(sys.argv[1]))
