"""The host's checkpoints: written whole or not at all, and resumed together or not at all."""

import os
import re
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path
from typing import Any

from sf2_plugin.atomic import atomic_file
from sf2_plugin.distributed import from_all_ranks, on_all_ranks, rank_and_world_size
from sf2_plugin.shards import WORLD_SIZE, file_name, is_partial_fc_v2, recorded_ranks
from sf2_plugin.torch_files import load_torch_file

from .host import host_config, replace
from .loss import NAMES


def write_whole_and_check() -> None:
    replace("torch", "save", _save)
    replace("torch", "load", _load)


def _is_shard(file: Any) -> bool:
    if not isinstance(file, (str, os.PathLike)):
        return False
    return re.fullmatch(r"checkpoint_gpu_\d+\.pt", Path(file).name) is not None


# The functions that follow keep torch's names of parameters.


def _save(save: Callable[..., None]) -> Callable[..., None]:
    def save_whole(obj: Any, f: Any, *args: Any, **kwargs: Any) -> None:
        if not isinstance(f, (str, os.PathLike)):
            return save(obj, f, *args, **kwargs)
        path = Path(f)
        if not _is_shard(path):
            with atomic_file(path) as file:
                return save(obj, file, *args, **kwargs)
        _, world_size = rank_and_world_size()
        # No rank's file takes the place of the last one before all are on disk.
        with ExitStack() as replaced_at_the_end, on_all_ranks("save"):
            for left in path.parent.glob(f".{path.name}.*.partial"):  # By a rank that was killed.
                left.unlink(missing_ok=True)
            file = replaced_at_the_end.enter_context(atomic_file(path))
            save({**obj, WORLD_SIZE: world_size}, file, *args, **kwargs)
            file.flush()
            os.fsync(file.fileno())

    return save_whole


def _load(load: Callable[..., Any]) -> Callable[..., Any]:
    def load_checked(f: Any, *args: Any, **kwargs: Any) -> Any:
        if not _is_shard(f):
            return load(f, *args, **kwargs)
        path = Path(f)
        with on_all_ranks("resume"):
            checkpoint = load_torch_file(path, load)
            _check_number_of_ranks(checkpoint, path)
            _check_head(checkpoint, path)
        _check_step(checkpoint, path.parent)
        return checkpoint

    return load_checked


def _check_number_of_ranks(checkpoint: dict[str, Any], path: Path) -> None:
    saved, (_, world_size) = recorded_ranks(checkpoint, path), rank_and_world_size()
    if saved not in (None, world_size):
        raise ValueError(
            f"{path} is of a checkpoint of {saved} ranks and this run has {world_size}: "
            f"sf2 shards reshard {path.parent} --ranks {world_size} --out DIR"
        )


def _check_head(checkpoint: dict[str, Any], path: Path) -> None:
    _, world_size = rank_and_world_size()
    if host_config().get("loss") in NAMES and is_partial_fc_v2(checkpoint):
        raise ValueError(
            f"{path} holds the class centers of PartialFC_V2, and config.loss is "
            f"{host_config().get('loss')!r}: "
            f"sf2 shards import {path.parent} --ranks {world_size} --out DIR"
        )


def _check_step(checkpoint: dict[str, Any], folder: Path) -> None:
    steps = from_all_ranks(checkpoint.get("global_step"))
    if len(set(steps)) > 1:
        saved = ", ".join(f"{file_name(rank)} at step {step}" for rank, step in enumerate(steps))
        raise ValueError(f"{folder} holds files that were not saved together: {saved}")
