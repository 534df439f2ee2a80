"""What ranks agree on: a fault of one ends all, with one sentence."""

import pytest

from sf2_plugin.distributed import by_value, from_all_ranks, on_all_ranks

from ..ranks import on_ranks


class OwnError(Exception):
    pass


FAULTS = {
    "none": {},
    "one": {1: ValueError("labels must be integers")},
    "the same": {0: OSError(28, "No space left"), 2: OSError(28, "No space left")},
    "two": {1: FileNotFoundError("no a.pt"), 2: TypeError("no tensor")},
    "a kind of its own": {2: OwnError("its trouble")},
    "no words": {0: KeyError("weight")},
}


def attempt(faults):
    try:
        with on_all_ranks("save"):
            if faults:
                raise faults
    except Exception as error:
        return type(error).__name__, str(error), error.__cause__ is faults
    return None


def on_three_ranks(rank):
    return {name: attempt(faults.get(rank)) for name, faults in FAULTS.items()}


def test_a_fault_of_one_rank_ends_all_with_one_sentence():
    ranks = on_ranks(on_three_ranks, 3)
    expected = {
        "one": ("ValueError", "rank 1 could not save: labels must be integers"),
        "the same": ("OSError", "ranks 0 and 2 could not save: [Errno 28] No space left"),
        "two": (
            "FileNotFoundError",
            "rank 1 could not save: no a.pt; rank 2 could not save: no tensor",
        ),
        "a kind of its own": ("RuntimeError", "rank 2 could not save: OwnError: its trouble"),
        "no words": ("RuntimeError", "rank 0 could not save: KeyError: 'weight'"),
    }
    for answers in ranks:
        assert answers.pop("none") is None
        assert {name: answer[:2] for name, answer in answers.items()} == expected
        assert all(own_cause for *_, own_cause in answers.values())


def test_one_rank_alone_keeps_its_error():
    with pytest.raises(OwnError, match="its trouble"), on_all_ranks("save"):
        raise OwnError("its trouble")
    assert from_all_ranks("value") == ["value"]


@pytest.mark.parametrize(
    ("ranks", "words"),
    [
        ([3], "rank 3"),
        ([0, 1], "ranks 0 and 1"),
        ([0, 1, 2], "ranks 0 to 2"),
        ([0, 2, 3, 4, 7, 8], "ranks 0, 2 to 4, 7 and 8"),
        (range(1024), "ranks 0 to 1023"),
    ],
)
def test_ranks_in_words(ranks, words):
    assert by_value(dict.fromkeys(ranks, "value")) == [("value", words)]
