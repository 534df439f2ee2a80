"""What fails on one rank fails on all of them."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from torch import distributed

from sf2_plugin.distributed import rank_and_world_size


@contextmanager
def on_all_ranks(what: str) -> Iterator[None]:
    """What fails on one rank fails on all of them, and none waits for another in vain."""
    error: Exception | None = None
    try:
        yield
    except Exception as caught:
        error = caught
    failures = from_all_ranks(error and f"{type(error).__name__}: {error}")
    if error:
        raise error
    for rank, failure in enumerate(failures):
        if failure:
            raise RuntimeError(f"rank {rank} could not {what}: {failure}")


def from_all_ranks(value: Any) -> list[Any]:
    """Every rank's value, which must be a plain one, in the order of ranks."""
    _, world_size = rank_and_world_size()
    values = [value] * world_size
    if world_size > 1:
        distributed.all_gather_object(values, value)
    return values
