"""``config.sphereface2 = dict(fuse_sgd=True)``: SGD's step on the centers in the loss' pass."""

import logging
from collections.abc import Callable
from functools import partial
from typing import Any

import torch
from torch import nn

from sf2_plugin import PartialFCSphereFace2

from .host import host_config

FUSE_SGD, MISSED_STEPS = "fuse_sgd", "missed_steps"

#: What the host's config must hold, and why.
WANTED = {
    "optimizer": ("sgd", "whose step it is"),
    "gradient_acc": (1, "as gradients that add up over batches do not reach the class centers"),
    "skip_not_finite": (False, "as the step on the class centers is made before it could be left"),
}

#: Heads that wait for the host's optimizer, to make its step.
_waiting: list[Callable[[torch.optim.SGD], None]] = []


def take_fusion(name: str, items: dict[str, Any]) -> Callable[[nn.Module], None]:
    """Take ``fuse_sgd`` and ``missed_steps`` out of the items of ``config.NAME``.

    Returns:
        What makes a head wait for the host's optimizer, where they ask for that.

    Raises:
        ValueError: the host's optimizer could not make that step; names the entry of the config.
    """
    fuse = items.pop(FUSE_SGD, False)
    missed = {MISSED_STEPS: items.pop(MISSED_STEPS)} if MISSED_STEPS in items else {}
    if missed and not fuse:
        raise ValueError(f"config.{name} names {MISSED_STEPS}, which go with {FUSE_SGD}=True")
    for entry, (wanted, why) in WANTED.items() if fuse else ():
        if (found := host_config().get(entry, wanted)) != wanted:
            raise ValueError(
                f"config.{entry} must be {wanted!r} for config.{name}'s {FUSE_SGD}, {why}, got "
                f"{found!r}"
            )

    def wait(head: nn.Module) -> None:
        if not fuse:
            return
        if not isinstance(head, PartialFCSphereFace2):
            raise ValueError(f"config.{name} asks for {FUSE_SGD}, and only sphereface2 has it")
        _waiting.append(partial(head.fuse_sgd, **missed))

    return wait


def fuse_when_optimized(init: Callable[..., None]) -> Callable[..., None]:
    """Around PolynomialLRWarmup.__init__, which the host gives its optimizer once it has one."""

    def init_and_fuse(scheduler: Any, optimizer: Any, *args: Any, **kwargs: Any) -> None:
        init(scheduler, optimizer, *args, **kwargs)
        while _waiting:
            _waiting.pop()(optimizer)
            logging.info("the class centers' step of SGD is made within the loss' pass")

    return init_and_fuse
