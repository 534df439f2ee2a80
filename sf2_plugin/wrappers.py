"""A plain head inside wrappers that hold its parameters: FSDP, DDP, DataParallel.

What they do to the class centers is right only where nothing is stored in a copy of theirs and
nothing moves on one rank alone. Each is made so here, or refused by name with the way out.
"""

from typing import Any
from weakref import WeakSet

import torch
from torch import nn
from torch.nn.parallel import DistributedDataParallel
from torch.optim.optimizer import Optimizer, register_optimizer_step_pre_hook

from .compat import is_compiling
from .definition import unit
from .distributed import rank_and_world_size

IN_GRAPH = 'take weight_norm="in_graph" (presets "wespeaker" and "uniface" have it)'


def check_wrappers(head: Any) -> None:
    """Raises RuntimeError where `head` sits in a wrapper that would train something else."""
    if _is_sharded_tensor(head.weight):
        raise RuntimeError(
            "weight must be whole in forward, got a DTensor: let fully_shard gather it, by calling "
            "the module it was applied to, or take PartialFCSphereFace2, which needs no gathering"
        )
    if head.recipe.weight_norm != "in_place":
        return
    if getattr(head, "_is_replica", False):
        raise RuntimeError(
            "class centers that are stored at length one must not be a copy, got those of "
            f"torch.nn.DataParallel, which forgets them: {IN_GRAPH}, or DistributedDataParallel"
        )
    if getattr(head, "_is_fsdp_managed_module", False):
        if not isinstance(head.weight, nn.Parameter):
            raise RuntimeError(
                "class centers that are stored at length one must lie whole on a rank, got those "
                f"of FullyShardedDataParallel, which cuts through rows: {IN_GRAPH}, or fully_shard "
                "(FSDP2), or keep the head out by ignored_modules=[head]"
            )
        if not head._stored_before_steps:
            _store_before_steps(head)
            head._stored_before_steps = True


def check_fused_ranks(head: Any) -> None:
    """Raises RuntimeError where ranks would each make a step of their own on `head`'s centers."""
    _, world_size = rank_and_world_size()
    if world_size > 1 and not head.sharded:
        raise RuntimeError(
            "fuse_sgd must have all faces of a step, got those of one of "
            f"{world_size} ranks, whose class centers would drift apart: take "
            "PartialFCSphereFace2, which shares the centers out, or leave fuse_sgd out"
        )
    if getattr(head, "_is_replica", False) or getattr(head, "_is_fsdp_managed_module", False):
        raise RuntimeError(
            "fuse_sgd must move the centers that are kept, got a copy of a wrapper's (FSDP or "
            "DataParallel): take PartialFCSphereFace2, or leave fuse_sgd out"
        )


def check_not_wrapped(head: Any) -> None:
    """Raises RuntimeError where a wrapper takes the shards of `head` for copies of one parameter.

    It would make the ranks' class centers equal, or average their gradients.
    """
    active = getattr(DistributedDataParallel, "_active_ddp_module", None)
    held = getattr(active, "_module_parameters", ())
    wrapper = None
    if any(parameter is head.weight for parameter in held):
        wrapper = "DistributedDataParallel"
    elif getattr(head, "_is_fsdp_managed_module", False) or _is_sharded_tensor(head.weight):
        wrapper = "FSDP"
    if wrapper:
        raise RuntimeError(
            f"PartialFCSphereFace2 must stay out of {wrapper}, which takes every rank's class "
            "centers for the same, got one inside it: wrap the backbone alone, and call the head "
            "on its embeddings"
        )


#: Heads under fully_shard whose centers are to be stored at length one.
_heads: WeakSet[Any] = WeakSet()


@torch.compiler.disable
def _store_before_steps(head: Any) -> None:
    """Let every optimizer's step begin with the centers of `head` stored at length one.

    Under fully_shard, forward sees and normalises a gathered copy of them. Their rows lie whole on
    a rank, so each normalises its own: before the step, as forward does without FSDP.
    """
    if not _heads:
        register_optimizer_step_pre_hook(_store)
    _heads.add(head)


def _store(optimizer: Optimizer, args: Any, kwargs: Any) -> None:
    stepped = [p for group in optimizer.param_groups for p in group["params"]]
    for head in _heads:
        weight = head.weight
        if head.recipe.weight_norm != "in_place" or not any(weight is p for p in stepped):
            continue
        if any(placement.is_shard() and placement.dim != 0 for placement in weight.placements):
            raise RuntimeError(
                "class centers that are stored at length one must be sharded by rows, got "
                f"{weight.placements}: {IN_GRAPH}, or leave out shard_placement_fn"
            )
        with torch.no_grad():
            rows = weight.to_local()
            rows.copy_(unit(rows))


def _is_sharded_tensor(tensor: Any) -> bool:
    """Whether it is a DTensor, without importing what defines them."""
    return not is_compiling() and hasattr(tensor, "placements") and hasattr(tensor, "to_local")
