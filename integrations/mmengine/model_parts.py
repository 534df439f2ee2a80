"""Where a model's class centers are, and what else it has."""

from mmengine.model import is_model_wrapper
from mmengine.runner import Runner
from torch import nn

from sf2_plugin import SphereFace2


def bare_model(runner: Runner) -> nn.Module:
    """The runner's model without what wraps it."""
    return runner.model.module if is_model_wrapper(runner.model) else runner.model


def heads_of(model: nn.Module) -> list[SphereFace2]:
    return [module for module in model.modules() if isinstance(module, SphereFace2)]
