"""Where a model's class centers are, and what else it has."""

from mmengine.model import is_model_wrapper
from mmengine.runner import Runner
from torch import nn

from sf2_plugin import SphereFace2


def bare_model(runner: Runner) -> nn.Module:
    """The runner's model without what wraps it."""
    return runner.model.module if is_model_wrapper(runner.model) else runner.model


def heads_of(model: nn.Module) -> list[SphereFace2]:
    """The model's SphereFace2 heads, in the order of its modules."""
    return [module for module in model.modules() if isinstance(module, SphereFace2)]


def head_of(model: nn.Module, asker: str) -> SphereFace2:
    """The model's one head.

    Raises:
        ValueError: it has none, or several, and `asker` needs one.
    """
    heads = heads_of(model)
    if len(heads) != 1:
        raise ValueError(f"{asker} must find one SphereFace2 head in the model, got {len(heads)}")
    return heads[0]
