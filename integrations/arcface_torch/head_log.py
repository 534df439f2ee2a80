"""A head's cosines and bias, and the backbone's gradient, in the host's log and TensorBoard."""

import logging
from collections.abc import Callable
from typing import Any

from torch import Tensor, distributed

from sf2_plugin import SphereFace2
from sf2_plugin.watching import HeadWatch

#: The head that is watched, and the norm of the backbone's gradient when the host last clipped it.
head: SphereFace2 | None = None
gradient_norm: Tensor | None = None


def watch(each: Any) -> None:
    """Watch the head that the host has built, if it is one to be watched."""
    global head
    if isinstance(each, SphereFace2):
        head = each
        head.watch = HeadWatch()


def remember_norm(clip: Callable[..., Tensor]) -> Callable[..., Tensor]:
    """torch's clip_grad_norm_, which answers the norm before it clips."""

    def clip_and_remember(*args: Any, **kwargs: Any) -> Tensor:
        global gradient_norm
        gradient_norm = clip(*args, **kwargs)
        return gradient_norm

    return clip_and_remember


def callback_logging(original: type) -> type:
    """The host's CallBackLogging, which also logs the head, at the same interval."""

    base: Any = original

    class CallBackLogging(base):
        def __call__(self, global_step: int, *args: Any, **kwargs: Any) -> None:
            super().__call__(global_step, *args, **kwargs)
            if head is None or head.watch is None:
                return
            figures = head.watch.figures()
            if figures and gradient_norm is not None:
                figures["gradient_norm"] = float(gradient_norm)
            if figures and distributed.get_rank() == 0:
                shown = "   ".join(f"{name} {value:.4f}" for name, value in figures.items())
                logging.info("Step %d   %s", global_step, shown)
                writer = getattr(self, "writer", None)
                if writer is not None:
                    for name, value in figures.items():
                        writer.add_scalar(name, value, global_step)
            head.watch.due = (global_step + 1) % self.frequent == 0

    return CallBackLogging
