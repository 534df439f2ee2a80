"""What is done around Runner's methods for a model whose head is sharded, or without a GPU.

MMEngine takes a model to be the same on every rank: it wraps the whole of it in DDP, broadcasts
its weights from rank 0, and rank 0 alone saves. `PATCHES` names what is done otherwise where the
model holds a `PartialFCSphereFace2`; any other model goes straight through.
"""

from collections.abc import Callable
from contextvars import ContextVar
from pathlib import Path
from typing import Any

from mmengine.model import is_model_wrapper
from mmengine.optim import OptimWrapper
from mmengine.runner import Runner
from torch import nn
from torch.nn.parallel import DistributedDataParallel

from sf2_plugin import PartialFCSphereFace2
from sf2_plugin.compat import hook_state_dict
from sf2_plugin.distributed import on_all_ranks
from sf2_plugin.shards import MARK, WORLD_SIZE, copy_centers

from .figures_hook import HeadWatchHook
from .fused_sgd_hook import fusing_hook
from .gloo_wrapper import wrapper_without_gpu
from .method_patches import patch_methods
from .model_parts import heads_of
from .optimizer_places import optimizers, places
from .partial_fc_hook import PartialFCHook, sharded_head
from .rank_files import STEP, optimizer_state, save_together, shard_of, shards_of


def _wrap_model(original: Any, runner: Runner, wrapper: dict | None, model: nn.Module) -> nn.Module:
    head, wrapper = sharded_head(model), wrapper_without_gpu(runner, wrapper)
    if head is None:
        return original(runner, wrapper, model)
    hook_state_dict(head, saved=_leave_out, loads=_fill_in)
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
    if heads_of(runner.model):
        runner.register_hook(HeadWatchHook())
    if hook := fusing_hook(runner.model):
        runner.register_hook(hook)


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
    if head is None:
        return original(
            runner, out_dir, filename, file_client_args, save_optimizer, *args, **kwargs
        )
    if "://" in str(out_dir):
        raise ValueError(f"shards are saved to a folder that all ranks see, got {out_dir}")
    meta = kwargs.pop("meta", None) or {}
    shard = shard_of(runner, head, save_optimizer)
    shard |= {"epoch": meta.get("epoch"), STEP: meta.get("iter"), WORLD_SIZE: head.world_size}

    def save(path: Path, mark: str) -> None:
        place = (str(path.parent), path.name, file_client_args, save_optimizer)
        original(runner, *place, *args, meta=meta | {MARK: mark}, **kwargs)

    save_together(shard, Path(out_dir, filename), head.rank, save)


def _load_checkpoint(
    original: Any, runner: Runner, filename: str, *args: Any, **kwargs: Any
) -> dict[str, Any]:
    _brought.set(False)
    checkpoint = original(runner, filename, *args, **kwargs)
    head = sharded_head(runner.model)
    if head is None:
        return checkpoint
    with on_all_ranks(f"load the shards of {filename}"):
        shards = shards_of(filename, checkpoint, head)
        if isinstance(shards, str) and _resuming.get():
            raise ValueError(f"{filename} cannot be resumed: {shards}")
    if isinstance(shards, str):
        if not _brought.get():
            runner.logger.warning(
                f"Class centers and bias start afresh, none are loaded with {filename}: {shards}"
            )
        return checkpoint
    copy_centers(head, shards)
    if "optimizer" in checkpoint and isinstance(runner.optim_wrapper, OptimWrapper):
        # Runner.resume then gives it to this rank's optimizer with all the rest.
        state = optimizer_state(head, shards)
        for optimizer, saved in optimizers(runner, checkpoint["optimizer"]):
            for name, index, _ in places(optimizer, head):
                if state.get(name):
                    saved["state"][index] = state[name]
    return checkpoint


#: Whether it is Runner.resume that calls Runner.load_checkpoint.
_resuming: ContextVar[bool] = ContextVar("_resuming", default=False)

#: Whether the state that was loaded last had class centers, of a head that is not sharded.
_brought: ContextVar[bool] = ContextVar("_brought", default=False)


def _resume(original: Any, runner: Runner, *args: Any, **kwargs: Any) -> None:
    token = _resuming.set(True)
    try:
        original(runner, *args, **kwargs)
    finally:
        _resuming.reset(token)


def _leave_out(head: nn.Module, state: dict[str, Any], prefix: str, _: Any) -> None:
    """Whoever saves or broadcasts the model's state takes it to be the same on every rank.

    The bias is, and it calibrates scores where the centers are not at hand.
    """
    del state[prefix + "weight"]


def _fill_in(head: PartialFCSphereFace2, state: dict[str, Any], prefix: str, *_: Any) -> None:
    """A checkpoint brings none of the centers, or, from a head that is not sharded, all of them.

    Its bias goes by the number of the centers: where they are read from shards it comes with them,
    and where there are none the head keeps its own.
    """
    _brought.set(prefix + "weight" in state)
    if not _brought.get() and not _resuming.get():
        state[prefix + "bias"] = head.bias.detach()
    weight = state.setdefault(prefix + "weight", head.weight.detach())
    if len(weight) == head.num_classes:
        state[prefix + "weight"] = weight[head.classes.start : head.classes.stop]


#: What is called instead of each of Runner's methods, with the method itself as first argument.
PATCHES: dict[str, Callable[..., Any]] = {
    "wrap_model": _wrap_model,
    "register_hooks": _register_hooks,
    "save_checkpoint": _save_checkpoint,
    "load_checkpoint": _load_checkpoint,
    "resume": _resume,
}


def patch_runner() -> None:
    patch_methods("mmengine.runner.Runner", PATCHES)
