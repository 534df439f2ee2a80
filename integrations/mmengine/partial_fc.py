"""A sharded head inside MMEngine's Runner: out of DDP, each rank's shard saved and resumed.

MMEngine takes a model to be the same on every rank: it wraps the whole of it in DDP, broadcasts
its weights from rank 0, and rank 0 alone saves. `PATCHES` names what is done around Runner's
methods where the model holds a `PartialFCSphereFace2`; any other model goes straight through.
"""

import copy
import functools
import math
import os
import shutil
from collections.abc import Callable, Iterable, Iterator
from contextvars import ContextVar
from itertools import chain
from pathlib import Path
from typing import Any

import torch
from mmengine.dist import all_reduce, barrier, get_world_size, is_main_process
from mmengine.hooks import CheckpointHook, Hook
from mmengine.model import is_model_wrapper
from mmengine.optim import OptimWrapper, OptimWrapperDict
from mmengine.registry import HOOKS
from mmengine.runner import Runner
from torch import Tensor, nn
from torch.distributed.fsdp.sharded_grad_scaler import ShardedGradScaler
from torch.nn.parallel import DistributedDataParallel

from sf2_plugin import PartialFCSphereFace2
from sf2_plugin.atomic import atomic_file
from sf2_plugin.shards import (
    HEAD,
    OPTIMIZER,
    WORLD_SIZE,
    Shards,
    copy_centers,
    difference_from,
    file_name,
    read_shards,
)


def sharded_head(model: nn.Module) -> PartialFCSphereFace2 | None:
    """The model's head whose class centers are sharded, if it has one.

    Raises:
        ValueError: it has several.
    """
    heads = [module for module in model.modules() if isinstance(module, PartialFCSphereFace2)]
    if len(heads) > 1:
        raise ValueError(f"a model may have one PartialFCSphereFace2, this one has {len(heads)}")
    return heads[0] if heads else None


def shards_folder(checkpoint: str | Path) -> Path:
    """Where the shards of a checkpoint lie: ``epoch_3.shards`` beside ``epoch_3.pth``."""
    return Path(checkpoint).with_suffix(".shards")


@HOOKS.register_module()
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
        for wrapper, _ in _optimizers(runner):
            if getattr(wrapper, "clip_func", None) is nn.utils.clip_grad_norm_:
                wrapper.clip_func = functools.partial(clip_grad_norm_over_ranks, head.weight)
            scaler = getattr(wrapper, "loss_scaler", None)
            if scaler is not None and scaler.is_enabled() and get_world_size() > 1:
                wrapper.loss_scaler = ShardedGradScaler(head.weight.device.type)
                wrapper.loss_scaler.load_state_dict(scaler.state_dict())
        for hook in runner.hooks:
            if isinstance(hook, CheckpointHook):
                hook.file_backend.remove = _with_shards(hook.file_backend.remove)

    def before_save_checkpoint(self, runner: Runner, checkpoint: dict[str, Any]) -> None:
        head = sharded_head(runner.model)
        if head is not None and "optimizer" in checkpoint:
            for optimizer, saved in _optimizers(runner, checkpoint["optimizer"]):
                for _, index, _ in _places(optimizer, head):
                    saved["state"].pop(index, None)


def _with_shards(remove: Callable[[str], None]) -> Callable[[str], None]:
    def remove_both(checkpoint: str) -> None:
        remove(checkpoint)
        shutil.rmtree(shards_folder(checkpoint), ignore_errors=True)

    return remove_both


def clip_grad_norm_over_ranks(
    shard: Tensor,
    parameters: Iterable[Tensor],
    max_norm: float,
    norm_type: float = 2.0,
    error_if_nonfinite: bool = False,
    foreach: bool | None = None,
) -> Tensor:
    """`torch.nn.utils.clip_grad_norm_` for parameters that are equal on all ranks but `shard`.

    Every rank clips by the same factor, that of the model whose shards lie on one rank. Were each
    to clip by its own shard's norm, their backbones would drift apart.
    """
    parameters = list(parameters)
    gradients = [(p is shard, p.grad) for p in parameters if p.grad is not None and p.numel()]
    shared, own = (
        nn.utils.get_total_norm(
            [gradient for of_shard, gradient in gradients if of_shard == sharded],
            norm_type,
            foreach=foreach,
        ).to(shard)
        for sharded in (False, True)
    )
    if math.isinf(norm_type):
        all_reduce(own, "max")
        total = torch.maximum(shared, own)
    else:
        own = own**norm_type
        all_reduce(own, "sum")
        total = (shared**norm_type + own) ** (1 / norm_type)
    if error_if_nonfinite and not total.isfinite():  # On every rank, so that none waits.
        raise RuntimeError(f"the gradient's norm is {total.item()}: it cannot be clipped")
    nn.utils.clip_grads_with_norm_(parameters, max_norm, total, foreach)
    return total


# Around Runner's methods ------------------------------------------------------------------------


def _wrap_model(original: Any, runner: Runner, wrapper: dict | None, model: nn.Module) -> nn.Module:
    head = sharded_head(model)
    if head is None:
        return original(runner, wrapper, model)
    head.register_state_dict_post_hook(_leave_out)
    head.register_load_state_dict_pre_hook(_fill_in)
    own = {id(parameter) for parameter in head.parameters()}
    names = {name for name, parameter in model.named_parameters() if id(parameter) in own}
    DistributedDataParallel._set_params_and_buffers_to_ignore_for_model(model, names)
    wrapped = original(runner, wrapper, model)
    if is_model_wrapper(wrapped) and not names <= getattr(wrapped, "parameters_to_ignore", set()):
        raise ValueError(
            "a sharded head must stay out of the model's wrapper: give Runner the bare model and "
            f"let it use MMDistributedDataParallel; got {type(wrapped).__name__}"
        )
    return wrapped


def _register_hooks(original: Any, runner: Runner, *args: Any, **kwargs: Any) -> None:
    original(runner, *args, **kwargs)
    if sharded_head(runner.model) is not None:
        runner.register_hook(PartialFCHook())


def _save_checkpoint(
    original: Any,
    runner: Runner,
    out_dir: str,
    filename: str,
    file_client_args: dict | None = None,
    save_optimizer: bool = True,
    *args: Any,
    **kwargs: Any,
) -> None:
    head = sharded_head(runner.model)
    if head is not None:
        if "://" in str(out_dir):
            raise ValueError(f"shards are saved to a folder that all ranks see, got {out_dir}")
        # Before the checkpoint, so that a checkpoint that is there has its shards.
        meta = kwargs.get("meta") or {}
        shard = _shard(runner, head, save_optimizer)
        shard.update(epoch=meta.get("epoch"), global_step=meta.get("iter"))
        shard[WORLD_SIZE] = head.world_size
        _save_shard(shard, shards_folder(Path(out_dir, filename)), head.rank)
    original(runner, out_dir, filename, file_client_args, save_optimizer, *args, **kwargs)


def _load_checkpoint(
    original: Any, runner: Runner, filename: str, *args: Any, **kwargs: Any
) -> dict[str, Any]:
    checkpoint = original(runner, filename, *args, **kwargs)
    head = sharded_head(runner.model)
    if head is None:
        return checkpoint
    shards = _to_resume.get() or _shards_beside(filename, head)
    if isinstance(shards, str):
        if not _brings_centers(checkpoint, runner.model, head):
            runner.logger.warning(f"No shards are loaded with {filename}: {shards}")
        return checkpoint
    copy_centers(head, shards)
    if "optimizer" in checkpoint and isinstance(runner.optim_wrapper, OptimWrapper):
        # Runner.resume then gives it to this rank's optimizer with all the rest.
        state = _optimizer_state(head, shards)
        for optimizer, saved in _optimizers(runner, checkpoint["optimizer"]):
            for name, index, _ in _places(optimizer, head):
                if state.get(name):
                    saved["state"][index] = state[name]
    return checkpoint


#: The shards that Runner.resume has read, for the Runner.load_checkpoint that it calls.
_to_resume: ContextVar[Shards | None] = ContextVar("_to_resume", default=None)


def _resume(original: Any, runner: Runner, filename: str, *args: Any, **kwargs: Any) -> None:
    head = sharded_head(runner.model)
    if head is None:
        return original(runner, filename, *args, **kwargs)
    shards = _shards_beside(filename, head)
    if isinstance(shards, str):
        raise ValueError(f"{filename} cannot be resumed: {shards}")
    token = _to_resume.set(shards)
    try:
        original(runner, filename, *args, **kwargs)
    finally:
        _to_resume.reset(token)


#: What is called instead of each of Runner's methods, with the method itself as first argument.
PATCHES: dict[str, Callable[..., Any]] = {
    "wrap_model": _wrap_model,
    "register_hooks": _register_hooks,
    "save_checkpoint": _save_checkpoint,
    "load_checkpoint": _load_checkpoint,
    "resume": _resume,
}


def patch_runner() -> None:
    for name, around in PATCHES.items():
        setattr(Runner, name, _around(getattr(Runner, name), around))


def _around(original: Any, around: Callable[..., Any]) -> Callable[..., Any]:
    @functools.wraps(original)
    def patched(*args: Any, **kwargs: Any) -> Any:
        return around(original, *args, **kwargs)

    return patched


# The model's state, and a shard's ---------------------------------------------------------------


def _leave_out(head: nn.Module, state: dict[str, Any], prefix: str, _: Any) -> None:
    """Whoever saves or broadcasts the model's state takes it to be the same on every rank.

    The bias is, and it calibrates scores where the centers are not at hand.
    """
    del state[prefix + "weight"]


def _fill_in(head: PartialFCSphereFace2, state: dict[str, Any], prefix: str, *_: Any) -> None:
    """A checkpoint brings none of the centers, or, from a head that is not sharded, all of them."""
    weight = state.setdefault(prefix + "weight", head.weight.detach())
    if len(weight) == head.num_classes:
        state[prefix + "weight"] = weight[head.classes.start : head.classes.stop]


def _optimizers(runner: Runner, saved: dict | None = None) -> list[tuple[OptimWrapper, Any]]:
    """Runner's optimizers, each with its part of a checkpoint's optimizer state."""
    wrapper = runner.optim_wrapper
    if isinstance(wrapper, OptimWrapperDict):
        return [(each, saved and saved[name]) for name, each in wrapper.items()]
    return [(wrapper, saved)]


def _places(
    wrapper: OptimWrapper, head: PartialFCSphereFace2
) -> Iterator[tuple[str, int, nn.Parameter]]:
    """The head's parameters that an optimizer updates: name, number in its state, parameter."""
    names = {id(parameter): name for name, parameter in head.named_parameters()}
    parameters = chain.from_iterable(g["params"] for g in wrapper.optimizer.param_groups)
    for index, parameter in enumerate(parameters):
        if id(parameter) in names:
            yield names[id(parameter)], index, parameter


def _shard(runner: Runner, head: PartialFCSphereFace2, with_optimizer: bool) -> dict[str, Any]:
    """What this rank alone holds, as `sf2_plugin.shards` reads it."""
    parameters = dict(head.named_parameters())
    shard: dict[str, Any] = {HEAD: {name: p.detach() for name, p in parameters.items()}}
    if with_optimizer:
        state = {
            list(parameters).index(name): wrapper.optimizer.state.get(parameter, {})
            for wrapper, _ in _optimizers(runner)
            for name, _, parameter in _places(wrapper, head)
        }
        group = {"params": list(range(len(parameters)))}
        shard[OPTIMIZER] = {"state": state, "param_groups": [group]}
    return shard


def _save_shard(shard: dict[str, Any], folder: Path, rank: int) -> None:
    """Every rank writes its file, then the folder takes its name, whole.

    A folder of that name is removed once the new one is in its place.
    """
    partial, old = (folder.with_name(f".{folder.name}.{part}") for part in ("partial", "old"))
    if is_main_process():
        shutil.rmtree(partial, ignore_errors=True)
        partial.mkdir(parents=True)
    barrier()
    with atomic_file(partial / file_name(rank)) as file:
        torch.save(shard, file)
    barrier()
    if is_main_process():
        if folder.exists():
            shutil.rmtree(old, ignore_errors=True)
            os.replace(folder, old)
        os.replace(partial, folder)
        shutil.rmtree(old, ignore_errors=True)


def _optimizer_state(head: PartialFCSphereFace2, shards: Shards) -> dict[str, dict[str, Any]]:
    """What the optimizer kept of each of the head's parameters, for this rank's classes."""
    saved = shards.checkpoints[0].get(OPTIMIZER, {"state": {}})["state"]
    return {
        name: {
            key: shards.rows(place, head.classes)
            if (place := (OPTIMIZER, "state", index, key)) in shards.sharded
            else copy.deepcopy(value)
            for key, value in saved.get(index, {}).items()
        }
        for index, (name, _) in enumerate(head.named_parameters())
    }


def _brings_centers(checkpoint: dict[str, Any], model: nn.Module, head: nn.Module) -> bool:
    """Whether it is the checkpoint of a head that is not sharded, which `_fill_in` has taken."""
    bare: Any = model.module if is_model_wrapper(model) else model
    (name,) = (name for name, module in bare.named_modules() if module is head)
    key = f"{name}.weight".lstrip(".")
    return any(each.endswith(key) for each in checkpoint.get("state_dict", checkpoint))


def _shards_beside(checkpoint: str, head: PartialFCSphereFace2) -> Shards | str:
    """The shards beside a checkpoint, or why they cannot be this head's."""
    folder = shards_folder(checkpoint)
    if not folder.is_dir():
        return f"there is no {folder}"
    shards = read_shards(folder)
    difference = difference_from(head, shards)
    return f"{folder} {difference}" if difference else shards
