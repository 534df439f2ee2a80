"""A margin that grows while a model trains."""

from typing import Any

from mmengine.hooks import Hook
from mmengine.registry import HOOKS
from mmengine.runner import Runner

from sf2_plugin.margin_schedule import MarginSchedule

from .model_parts import bare_model, heads_of


@HOOKS.register_module(force=True)
class MarginScheduleHook(Hook):
    """Moves the margin of every SphereFace2 head from one value to another, as wespeaker does.

    Args are those of `sf2_plugin.margin_schedule.MarginSchedule`: begin_margin, end_margin, begin
    and end (iterations), and mode.

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
        self.schedule = MarginSchedule(begin_margin, end_margin, begin, end, mode)

    def before_train(self, runner: Runner) -> None:
        self.heads = heads_of(bare_model(runner))
        if not self.heads:
            raise ValueError("MarginScheduleHook found no SphereFace2 head in the model")
        for head in self.heads:
            self.schedule.check(head.recipe)

    def before_train_iter(self, runner: Runner, batch_idx: int, *args: Any, **kwargs: Any) -> None:
        for head in self.heads:
            head.recipe = self.schedule.recipe_at(runner.iter, head.recipe)
        runner.message_hub.update_scalar("train/margin", self.schedule.margin_at(runner.iter))
