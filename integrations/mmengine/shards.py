"""A rank's share of a checkpoint on disk: ``epoch_3.shards/`` beside ``epoch_3.pth``."""

import copy
import os
import shutil
from pathlib import Path
from typing import Any

import torch
from mmengine.dist import barrier, is_main_process
from mmengine.runner import Runner

from sf2_plugin import PartialFCSphereFace2
from sf2_plugin.atomic import atomic_file
from sf2_plugin.shards import HEAD, OPTIMIZER, Shards, difference_from, file_name, read_shards

from .optimizer_places import optimizers, places


def shards_folder(checkpoint: str | Path) -> Path:
    """Where the shards of a checkpoint lie: ``epoch_3.shards`` beside ``epoch_3.pth``."""
    return Path(checkpoint).with_suffix(".shards")


def shard_of(runner: Runner, head: PartialFCSphereFace2, with_optimizer: bool) -> dict[str, Any]:
    """What this rank alone holds, as `sf2_plugin.shards` reads it."""
    parameters = dict(head.named_parameters())
    shard: dict[str, Any] = {HEAD: {name: p.detach() for name, p in parameters.items()}}
    if with_optimizer:
        state = {
            list(parameters).index(name): wrapper.optimizer.state.get(parameter, {})
            for wrapper, _ in optimizers(runner)
            for name, _, parameter in places(wrapper, head)
        }
        group = {"params": list(range(len(parameters)))}
        shard[OPTIMIZER] = {"state": state, "param_groups": [group]}
    return shard


def save_shard(shard: dict[str, Any], folder: Path, rank: int) -> None:
    """Every rank writes its file, then the folder takes its name, whole.

    A folder of that name is removed once the new one is in its place.
    """
    partial, old = (folder.with_name(f".{folder.name}.{part}") for part in ("partial", "old"))
    if is_main_process():
        shutil.rmtree(partial, ignore_errors=True)
        partial.mkdir(parents=True)
    barrier()
    with atomic_file(partial / file_name(rank)) as file:
        torch.save(shard, file)
    barrier()
    if is_main_process():
        if folder.exists():
            shutil.rmtree(old, ignore_errors=True)
            os.replace(folder, old)
        os.replace(partial, folder)
        shutil.rmtree(old, ignore_errors=True)


def optimizer_state(head: PartialFCSphereFace2, shards: Shards) -> dict[str, dict[str, Any]]:
    """What the optimizer kept of each of the head's parameters, for this rank's classes."""
    saved = shards.checkpoints[0].get(OPTIMIZER, {"state": {}})["state"]
    return {
        name: {
            key: shards.rows(place, head.classes)
            if (place := (OPTIMIZER, "state", index, key)) in shards.sharded
            else copy.deepcopy(value)
            for key, value in saved.get(index, {}).items()
        }
        for index, (name, _) in enumerate(head.named_parameters())
    }


def shards_beside(checkpoint: str, head: PartialFCSphereFace2) -> Shards | str:
    """The shards beside a checkpoint, or why they cannot be this head's."""
    folder = shards_folder(checkpoint)
    if not folder.is_dir():
        return f"there is no {folder}"
    shards = read_shards(folder)
    difference = difference_from(head, shards)
    return f"{folder} {difference}" if difference else shards
