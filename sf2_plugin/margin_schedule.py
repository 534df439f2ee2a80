"""A margin that grows while a model trains, as a function of the iteration alone."""

import dataclasses
from dataclasses import dataclass

from .checks import require_number, require_one_of
from .recipe import Recipe

MODES = ("linear", "exponential")

#: What is left of the way at the end of an exponential schedule, before it is rescaled to arrive.
REMAINDER = 1e-3


@dataclass(frozen=True)
class MarginSchedule:
    """From one margin to another, as wespeaker moves it (its `MarginScheduler`).

    Attributes:
        begin_margin: margin up to iteration `begin`.
        end_margin: margin from iteration `end` on.
        begin: first iteration of the change, counted from 0.
        end: iteration at which it is complete.
        mode: "linear", or "exponential", which moves fast at first and slowly at the end.

    Raises:
        ValueError: an unknown mode, or iterations that are not 0 <= begin < end.

    Example:
        >>> schedule = MarginSchedule(0.0, 0.4, begin=5000, end=20000, mode="linear")
        >>> schedule.margin_at(12500)
        0.2
        >>> schedule.recipe_at(12500, Recipe()).margin
        0.2
    """

    begin_margin: float
    end_margin: float
    begin: int
    end: int
    mode: str = "exponential"

    def __post_init__(self) -> None:
        require_one_of("mode", self.mode, MODES)
        for name in ("begin_margin", "end_margin", "begin", "end"):
            require_number(name, getattr(self, name))
        if not 0 <= self.begin < self.end:
            raise ValueError(
                f"begin and end must be 0 <= begin < end, got {self.begin} and {self.end}"
            )

    def margin_at(self, iteration: int) -> float:
        """The margin at an iteration, counted from 0."""
        progress = (iteration - self.begin) / (self.end - self.begin)
        progress = min(max(progress, 0.0), 1.0)
        if self.mode == "exponential":
            progress = (1 - REMAINDER**progress) / (1 - REMAINDER)
        return self.begin_margin + (self.end_margin - self.begin_margin) * progress

    def recipe_at(self, iteration: int, recipe: Recipe) -> Recipe:
        """`recipe` with the margin at an iteration; `recipe` itself where it has that margin."""
        margin = self.margin_at(iteration)
        return recipe if recipe.margin == margin else dataclasses.replace(recipe, margin=margin)

    def check(self, recipe: Recipe) -> None:
        """Refuse a margin that `recipe` cannot have before training, not in its middle.

        Raises:
            ValueError: either margin is outside the domain of the recipe's margin type.
        """
        for margin in (self.begin_margin, self.end_margin):
            dataclasses.replace(recipe, margin=margin)
