"""The same checkpoint for another number of ranks, and its files."""

from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import torch

from ..atomic import atomic_folder
from ..distributed import classes_of_rank
from .checkpoints import LEFT_OUT, WORLD_SIZE, Checkpoint, Shards, file_name
from .places import Place, differences, replaced


def reshard(shards: Shards, world_size: int) -> Iterator[Checkpoint]:
    """The same checkpoint for `world_size` ranks, rank by rank.

    A rank that was there keeps what it had of its own; a new one takes rank 0's; what ranks that
    are left out had of their own goes along with rank 0 (`LEFT_OUT`).
    """
    first = {name: value for name, value in shards.checkpoints[0].items() if name != LEFT_OUT}
    own: dict[int, dict[Place, Any]] = dict(shards.checkpoints[0].get(LEFT_OUT, {}))
    for rank, checkpoint in enumerate(shards.checkpoints[1:], start=1):
        own[rank] = dict(differences(checkpoint, first, but=shards.sharded))
    left_out = {rank: values for rank, values in own.items() if rank >= world_size and values}
    for rank in range(world_size):
        classes = classes_of_rank(shards.num_classes, rank, world_size)
        share = {place: shards.rows(place, classes) for place in shards.sharded}
        checkpoint = replaced(first, {**own.get(rank, {}), **share})
        if WORLD_SIZE in first:  # Else it stays as the host wrote it, byte for byte.
            checkpoint[WORLD_SIZE] = world_size
        if rank == 0 and left_out:
            checkpoint[LEFT_OUT] = left_out
        yield checkpoint


def write_shards(checkpoints: Iterable[Checkpoint], folder: str | Path) -> None:
    """Write the checkpoints of ranks 0, 1, ... into a new folder, all of them or none.

    Raises:
        ValueError: the folder exists and is not empty.
    """
    with atomic_folder(folder) as partial:
        for rank, checkpoint in enumerate(checkpoints):
            torch.save(checkpoint, partial / file_name(rank))
