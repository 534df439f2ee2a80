"""Where a sharded head's parameters stand in Runner's optimizers, and in what they save."""

from collections.abc import Iterator
from itertools import chain
from typing import Any

from mmengine.optim import OptimWrapper, OptimWrapperDict
from mmengine.runner import Runner
from torch import nn

from sf2_plugin import PartialFCSphereFace2


def optimizers(runner: Runner, saved: dict | None = None) -> list[tuple[OptimWrapper, Any]]:
    """Runner's optimizers, each with its part of a checkpoint's optimizer state."""
    wrapper = runner.optim_wrapper
    if isinstance(wrapper, OptimWrapperDict):
        return [(each, saved and saved[name]) for name, each in wrapper.items()]
    return [(wrapper, saved)]


def places(
    wrapper: OptimWrapper, head: PartialFCSphereFace2
) -> Iterator[tuple[str, int, nn.Parameter]]:
    """The head's parameters that an optimizer updates: name, number in its state, parameter."""
    names = {id(parameter): name for name, parameter in head.named_parameters()}
    parameters = chain.from_iterable(g["params"] for g in wrapper.optimizer.param_groups)
    for index, parameter in enumerate(parameters):
        if id(parameter) in names:
            yield names[id(parameter)], index, parameter
