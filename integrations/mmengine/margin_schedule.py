"""A margin that grows while a model trains."""

import dataclasses
from typing import Any

from mmengine.hooks import Hook
from mmengine.model import is_model_wrapper
from mmengine.registry import HOOKS
from mmengine.runner import Runner

from sf2_plugin import SphereFace2

#: What is left of the way at the end of an exponential schedule, before it is rescaled to arrive.
REMAINDER = 1e-3


@HOOKS.register_module()
class MarginScheduleHook(Hook):
    """Moves the margin of every SphereFace2 head from one value to another, as wespeaker does.

    Args:
        begin_margin: margin up to iteration `begin`.
        end_margin: margin from iteration `end` on.
        begin: first iteration of the change.
        end: iteration at which it is complete.
        mode: "linear", or "exponential", which moves fast at first and slowly at the end.

    The margin is a function of the iteration alone, so resuming needs no state. It is logged as
    ``margin``.

    Example:
        >>> custom_hooks = [dict(type="MarginScheduleHook", begin_margin=0.0, end_margin=0.4,
        ...                      begin=5000, end=20000)]
    """

    priority = "ABOVE_NORMAL"

    def __init__(
        self,
        begin_margin: float,
        end_margin: float,
        begin: int,
        end: int,
        mode: str = "exponential",
    ) -> None:
        if mode not in ("linear", "exponential"):
            raise ValueError(f"mode must be 'linear' or 'exponential', got {mode!r}")
        if not 0 <= begin < end:
            raise ValueError(f"begin and end must be 0 <= begin < end, got {begin} and {end}")
        self.begin_margin = begin_margin
        self.end_margin = end_margin
        self.begin = begin
        self.end = end
        self.mode = mode

    def margin_at(self, iteration: int) -> float:
        """The margin at an iteration, counted from 0."""
        progress = (iteration - self.begin) / (self.end - self.begin)
        progress = min(max(progress, 0.0), 1.0)
        if self.mode == "exponential":
            progress = (1 - REMAINDER**progress) / (1 - REMAINDER)
        return self.begin_margin + (self.end_margin - self.begin_margin) * progress

    def before_train(self, runner: Runner) -> None:
        model = runner.model.module if is_model_wrapper(runner.model) else runner.model
        self.heads = [module for module in model.modules() if isinstance(module, SphereFace2)]
        if not self.heads:
            raise ValueError("MarginScheduleHook found no SphereFace2 head in the model")
        for head in self.heads:  # Both ends are refused before training, not in its middle.
            for margin in (self.begin_margin, self.end_margin):
                dataclasses.replace(head.recipe, margin=margin)

    def before_train_iter(self, runner: Runner, batch_idx: int, *args: Any, **kwargs: Any) -> None:
        margin = self.margin_at(runner.iter)
        for head in self.heads:
            if head.recipe.margin != margin:
                head.recipe = dataclasses.replace(head.recipe, margin=margin)
        runner.message_hub.update_scalar("train/margin", margin)
