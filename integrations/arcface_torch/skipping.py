"""``config.skip_not_finite``: a step with NaN or infinity in a gradient is left out."""

from typing import Any

from torch import nn
from torch.optim.optimizer import Optimizer, register_optimizer_step_pre_hook

from sf2_plugin.finite_steps import FiniteSteps

from . import host


def skip_not_finite(head: nn.Module) -> None:
    """Leave such steps out of the optimizer that the host will build for this head."""
    steps = FiniteSteps(head if host.backbone is None else host.backbone, head)
    own = {id(parameter) for parameter in head.parameters()}

    def before_step(optimizer: Optimizer, *rest: Any) -> None:
        if any(id(p) in own for group in optimizer.param_groups for p in group["params"]):
            steps.before_step(optimizer)

    register_optimizer_step_pre_hook(before_step)
