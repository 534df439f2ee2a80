"""The host's checkpoints: written whole or not at all, and resumed together or not at all."""

import os
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

from torch import distributed

from sf2_plugin.data.atomic import atomic_file
from sf2_plugin.distributed import rank_and_world_size
from sf2_plugin.shards import file_name, load_checkpoint

from .host import replace


def write_whole_and_check() -> None:
    replace("torch", "save", _save)
    replace("torch", "load", _load)


def _is_shard(file: Any) -> bool:
    if not isinstance(file, (str, os.PathLike)):
        return False
    return re.fullmatch(r"checkpoint_gpu_\d+\.pt", Path(file).name) is not None


def _save(save: Callable[..., None]) -> Callable[..., None]:
    def save_whole(content: Any, file: Any, *args: Any, **kwargs: Any) -> None:
        if not isinstance(file, (str, os.PathLike)):
            return save(content, file, *args, **kwargs)
        with atomic_file(Path(file)) as whole:
            save(content, whole, *args, **kwargs)
            if _is_shard(file):
                # No rank's file takes the place of the last one before all are written.
                distributed.barrier()

    return save_whole


def _load(load: Callable[..., Any]) -> Callable[..., Any]:
    def load_checked(file: Any, *args: Any, **kwargs: Any) -> Any:
        if not _is_shard(file):
            return load(file, *args, **kwargs)
        _check_number_of_ranks(Path(file).parent)
        checkpoint = load_checkpoint(Path(file), load)
        _check_step(checkpoint, Path(file).parent)
        return checkpoint

    return load_checked


def _check_number_of_ranks(folder: Path) -> None:
    _, world_size = rank_and_world_size()
    saved = sum(map(_is_shard, folder.iterdir())) if folder.is_dir() else 0
    if saved != world_size:
        raise ValueError(
            f"{folder} holds the checkpoint of {saved} ranks and this run has {world_size}: "
            f"sf2 shards reshard {folder} --ranks {world_size} --out DIR"
        )


def _check_step(checkpoint: dict[str, Any], folder: Path) -> None:
    _, world_size = rank_and_world_size()
    steps: list[Any] = [None] * world_size
    distributed.all_gather_object(steps, checkpoint["global_step"])
    if len(set(steps)) > 1:
        saved = ", ".join(f"{file_name(rank)} at step {step}" for rank, step in enumerate(steps))
        raise ValueError(f"{folder} holds files that were not saved together: {saved}")
