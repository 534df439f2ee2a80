"""A margin schedule: a function of the iteration, checked before training."""

import math

import pytest

from sf2_plugin import Recipe
from sf2_plugin.margin_schedule import MODES, MarginSchedule


@pytest.mark.parametrize("mode", MODES)
def test_the_margin_moves_from_begin_to_end(mode):
    schedule = MarginSchedule(0.1, 0.4, begin=10, end=20, mode=mode)
    assert schedule.margin_at(0) == schedule.margin_at(10) == pytest.approx(0.1)
    assert schedule.margin_at(20) == schedule.margin_at(99) == pytest.approx(0.4)
    margins = [schedule.margin_at(i) for i in range(25)]
    assert margins == sorted(margins)


def test_wespeakers_exponential_formula():
    schedule = MarginSchedule(0.0, 0.2, begin=100, end=300)
    progress = (150 - 100) / (300 - 100)
    ratio = 1 - math.exp(progress * math.log(1e-3 / (1 + 1e-6))) * 1.0
    assert schedule.margin_at(150) == pytest.approx(0.2 * ratio, rel=2e-3)


def test_the_recipe_changes_by_its_margin_alone_and_only_when_it_must():
    schedule = MarginSchedule(0.0, 0.4, begin=0, end=4, mode="linear")
    recipe = Recipe(scale=64, margin=0.1)
    assert schedule.recipe_at(1, recipe) is recipe
    assert schedule.recipe_at(2, recipe) == Recipe(scale=64, margin=0.2)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ((0, 0.4, 5, 5), "begin and end must be 0 <= begin < end, got 5 and 5"),
        ((0, 0.4, -1, 5), "begin and end must be"),
        ((0, 0.4, 0, 5, "cosine"), "mode must be one of 'linear', 'exponential', got 'cosine'"),
        ((0, "0.4", 0, 5), "end_margin must be a number"),
        ((0, math.nan, 0, 5), "end_margin must be a number"),
        ((0, 0.4, None, 5), "begin must be a number"),
    ],
)
def test_what_cannot_be_is_refused(arguments, message):
    with pytest.raises(ValueError, match=message):
        MarginSchedule(*arguments)


def test_a_margin_outside_the_recipes_domain_is_refused_before_training():
    schedule = MarginSchedule(0.0, 2.0, begin=0, end=5)
    schedule.check(Recipe())
    with pytest.raises(ValueError, match="margin must be a number at least 1"):
        schedule.check(Recipe(margin_type="M", margin=1.7))
