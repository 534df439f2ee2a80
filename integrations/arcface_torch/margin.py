"""``config.margin_schedule``: a margin that moves while the host trains."""

import logging
from typing import Any

from torch import nn

from sf2_plugin import SphereFace2
from sf2_plugin.margin_schedule import MarginSchedule

#: The host's steps so far: the host counts its batches, and a checkpoint says where it stood.
steps_done = 0


def schedule_margin(head: nn.Module, items: dict[str, Any]) -> None:
    """Move the head's margin by its steps of training.

    Args:
        items: of ``config.margin_schedule``: begin_margin, end_margin, begin, end (steps of the
            whole run, counted from 0), and mode.

    Raises:
        ValueError: what the schedule or the head cannot have.
    """
    if not isinstance(head, SphereFace2):
        raise ValueError(
            "config.margin_schedule must be with a config.loss of SphereFace2's, got "
            f"{type(head).__name__}"
        )
    try:
        schedule = MarginSchedule(**items)
    except TypeError as error:
        raise ValueError(f"config.margin_schedule must hold its items alone: {error}") from None
    schedule.check(head.recipe)
    head.register_forward_pre_hook(lambda head, inputs: _take_step(head, schedule))
    logging.info("config.margin_schedule: %s", schedule)


def _take_step(head: Any, schedule: MarginSchedule) -> None:
    global steps_done
    head.recipe = schedule.recipe_at(steps_done, head.recipe)
    if head.training:
        steps_done += 1


def go_on_from(step: Any) -> None:
    """A checkpoint of so many steps is resumed."""
    global steps_done
    steps_done = step if isinstance(step, int) else 0
