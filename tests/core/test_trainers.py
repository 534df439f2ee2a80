"""Trainers and parallel modes train as one process with the reference backend, or are refused."""

import pytest

from benchmarks.trainers import MODES, PRESETS, TOLERANCE, absent, difference, train

from ..ranks import on_ranks


def _train(rank):
    return train(2)


@pytest.fixture(scope="module")
def answers():
    """By number of ranks: what each mode gives on each rank."""
    return {1: [train(1)], 2: on_ranks(_train, 2)}


@pytest.mark.parametrize("preset", PRESETS)
@pytest.mark.parametrize("name", MODES)
def test_trains_as_one_process_or_is_refused(answers, name, preset):
    mode = MODES[name]
    if absent(mode):
        pytest.skip(f"needs {absent(mode)}")
    found = difference(mode, preset, [rank[name][preset] for rank in answers[mode.ranks]])
    if preset in mode.refused:
        assert isinstance(found, str)
        assert " must " in found
        assert "take " in found
    else:
        assert not isinstance(found, str), found
        assert found < TOLERANCE
