"""The hook that looks after a sharded head while it trains."""

import functools
from collections.abc import Callable
from pathlib import Path
from typing import Any

from mmengine.dist import get_world_size
from mmengine.hooks import CheckpointHook, Hook
from mmengine.registry import HOOKS
from mmengine.runner import Runner
from torch import nn

from sf2_plugin import PartialFCSphereFace2
from sf2_plugin.compat import loss_scaler_of_all_ranks

from .clipping import clip_grad_norm_over_ranks
from .optimizer_places import optimizers, places
from .rank_files import claim_folder, remove_shards


def sharded_head(model: nn.Module) -> PartialFCSphereFace2 | None:
    """The model's head whose class centers are sharded, if it has one.

    Raises:
        ValueError: it has several.
    """
    heads = [module for module in model.modules() if isinstance(module, PartialFCSphereFace2)]
    if len(heads) > 1:
        raise ValueError(f"a model may have one PartialFCSphereFace2, this one has {len(heads)}")
    return heads[0] if heads else None


@HOOKS.register_module(force=True)
class PartialFCHook(Hook):
    """Looks after a sharded head while it trains; Runner registers it where there is one.

    Rank 0's checkpoint leaves the shard's optimizer state out, shards go when `CheckpointHook`
    removes their checkpoint, and what couples ranks is made to agree between them:
    ``clip_grad=dict(max_norm=...)`` clips by the norm of the whole model's gradient, all shards
    included, and a loss scaler skips a step on all ranks or on none. `EMAHook` averages the
    backbone as ever; its averages of the class centers, on which no embedding depends, are in no
    checkpoint and begin anew on resuming.
    """

    priority = "LOWEST"  # CheckpointHook has opened its folder by then.

    def before_train(self, runner: Runner) -> None:
        head = sharded_head(runner.model)
        if head is None:
            return
        for wrapper, _ in optimizers(runner):
            if getattr(wrapper, "clip_func", None) is nn.utils.clip_grad_norm_:
                wrapper.clip_func = functools.partial(clip_grad_norm_over_ranks, head.weight)
            scaler = getattr(wrapper, "loss_scaler", None)
            if scaler is not None and scaler.is_enabled() and get_world_size() > 1:
                wrapper.loss_scaler = loss_scaler_of_all_ranks(head.weight.device.type)
                wrapper.loss_scaler.load_state_dict(scaler.state_dict())
        for hook in runner.hooks:
            if isinstance(hook, CheckpointHook):
                if "://" not in str(hook.out_dir):
                    claim_folder(Path(hook.out_dir))
                hook.file_backend.remove = _with_shards(hook.file_backend.remove)

    def before_save_checkpoint(self, runner: Runner, checkpoint: dict[str, Any]) -> None:
        head = sharded_head(runner.model)
        if head is not None and "optimizer" in checkpoint:
            for optimizer, saved in optimizers(runner, checkpoint["optimizer"]):
                for _, index, _ in places(optimizer, head):
                    saved["state"].pop(index, None)


def _with_shards(remove: Callable[[str], None]) -> Callable[[str], None]:
    def remove_both(checkpoint: str) -> None:
        remove(checkpoint)
        remove_shards(checkpoint)

    return remove_both
