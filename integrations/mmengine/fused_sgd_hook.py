"""The hook that lets a head make SGD's step on its class centers within the loss' pass."""

from typing import Any

from mmengine.hooks import Hook
from mmengine.optim import OptimWrapper
from mmengine.registry import HOOKS
from mmengine.runner import Runner
from torch import nn

from .model_parts import head_of
from .optimizer_places import optimizers


@HOOKS.register_module(force=True)
class FuseSGDHook(Hook):
    """`SphereFace2.fuse_sgd` with Runner's optimizer, whose learning rate and schedule it follows.

    Runner registers it for MMPretrain's ``SphereFace2ClsHead(fuse_sgd=True)``; for another model
    that holds a `SphereFace2`, ``custom_hooks=[dict(type="FuseSGDHook")]``.

    Args:
        options: as ``missed_steps`` of `PartialFCSphereFace2.fuse_sgd`.

    Raises:
        TypeError, ValueError: when training begins: no SGD, gradients that are clipped or
            accumulated, which would not reach the class centers, or not one head.
    """

    def __init__(self, **options: Any) -> None:
        self.options = options

    def before_train(self, runner: Runner) -> None:
        head = head_of(runner.model, "FuseSGDHook")
        wrapper = _wrapper_of(runner, head.weight)
        for entry, found, wanted in (
            ("clip_grad", wrapper.clip_grad_kwargs or None, None),
            ("accumulative_counts", wrapper._accumulative_counts, 1),
        ):
            if found != wanted:
                raise ValueError(
                    f"optim_wrapper.{entry} must be {wanted} with fuse_sgd, as it does not reach "
                    f"the class centers, got {found}"
                )
        head.fuse_sgd(wrapper.optimizer, **self.options)


def _wrapper_of(runner: Runner, weight: nn.Parameter) -> OptimWrapper:
    for wrapper, _ in optimizers(runner):
        groups = wrapper.optimizer.param_groups
        if any(parameter is weight for group in groups for parameter in group["params"]):
            return wrapper
    raise ValueError("optim_wrapper must hold the class centers to fuse SGD, got one without them")


def fusing_hook(model: nn.Module) -> FuseSGDHook | None:
    """The hook for the options that a module of the model asks for by its attribute `fused_sgd`."""
    asked = [getattr(module, "fused_sgd", None) for module in model.modules()]
    options = [each for each in asked if each is not None]
    return FuseSGDHook(**options[0]) if options else None
