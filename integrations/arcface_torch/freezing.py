"""``config.freeze``: epochs in which the head alone trains."""

import functools
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

from . import host


def stand_still(forward: Callable[..., Tensor]) -> Callable[..., Tensor]:
    """Around DistributedDataParallel.forward: the host's backbone in epochs in which it is frozen.

    No gradient reaches it then, and parameters without one are passed over by optimizers, weight
    decay and DDP; in evaluation mode its statistics of batch normalisation stay as well.
    """

    @functools.wraps(forward)
    def run(wrapper: Any, *args: Any, **kwargs: Any) -> Tensor:
        network: nn.Module = wrapper.module
        if network is not host.backbone or not is_frozen():
            return forward(wrapper, *args, **kwargs)
        training = network.training
        network.eval()
        try:
            with torch.no_grad():
                return network(*args, **kwargs)
        finally:
            network.train(training)

    return run


def is_frozen() -> bool:
    """Whether the epoch that the host is in is one of the first ``config.freeze``.

    Raises:
        ValueError: no number of epochs, or a loader that does not tell its epoch.
    """
    epochs = host.host_config().get("freeze") or 0
    if type(epochs) is not int or epochs < 0:
        raise ValueError(f"config.freeze must be a whole number of epochs, got {epochs!r}")
    if not epochs:
        return False
    sampler: Any = getattr(host.loader, "sampler", None)
    if sampler is None:
        raise ValueError(
            f"config.freeze must be 0 with config.dali, whose loader tells no epoch, got {epochs}"
        )
    return sampler.epoch < epochs
