"""A rank's share of a checkpoint on disk: ``epoch_3.shards/`` beside ``epoch_3.pth``."""

import copy
import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from mmengine.dist import is_main_process
from mmengine.runner import Runner

from sf2_plugin import PartialFCSphereFace2
from sf2_plugin.atomic import atomic_file
from sf2_plugin.distributed import on_all_ranks
from sf2_plugin.shards import (
    HEAD,
    MARK,
    OPTIMIZER,
    Shards,
    check_marks,
    claim,
    difference_from,
    file_name,
    mark_of,
    new_mark,
    read_shards,
    settle,
    waiting,
)
from sf2_plugin.shards.marks import waiting_in, waiting_names
from sf2_plugin.torch_files import load_torch_file

from .optimizer_places import optimizers, places

#: Where a shard says after how many iterations it was saved, as arcface_torch does.
STEP = "global_step"


def shards_folder(checkpoint: str | Path) -> Path:
    """Where the shards of a checkpoint lie: ``epoch_3.shards`` beside ``epoch_3.pth``."""
    return Path(checkpoint).with_suffix(".shards")


def shard_of(runner: Runner, head: PartialFCSphereFace2, with_optimizer: bool) -> dict[str, Any]:
    """What this rank alone holds, as `sf2_plugin.shards` reads it."""
    head.catch_up()
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


def save_together(
    shard: dict[str, Any], checkpoint: Path, rank: int, save: Callable[[Path, str], None]
) -> None:
    """Every rank's shard and rank 0's checkpoint, as one set.

    The shards wait in a folder of their own until the checkpoint, which names the one mark that
    all bear, has taken its place: at any time the checkpoint that is there has its shards, in the
    folder beside it or in one that waits.

    Args:
        shard: what `shard_of` gives.
        checkpoint: rank 0's file.
        rank: this process'.
        save: saves that file, on rank 0, as a path and with a mark.

    Raises:
        OSError, RuntimeError, ...: what one rank could not write, on all of them.
    """
    mark = new_mark()
    whole = waiting(shards_folder(checkpoint), mark)
    partial = checkpoint.with_name(f".{checkpoint.name}.partial")

    def undo() -> None:
        shutil.rmtree(whole, ignore_errors=True)
        partial.unlink(missing_ok=True)

    with on_all_ranks("save", undo=undo):
        whole.mkdir(parents=True, exist_ok=True)
        with atomic_file(whole / file_name(rank)) as file:
            torch.save(shard | {MARK: mark}, file)
    with on_all_ranks("save", undo=undo):
        save(partial, mark)
        if is_main_process():
            os.replace(partial, checkpoint)
    with on_all_ranks("save"):
        if is_main_process():
            settle(shards_folder(checkpoint), whole)


def claim_folder(folder: Path) -> None:
    """Keep other jobs out of a folder, and end what a kill has interrupted there.

    Raises:
        ValueError: another job saves its shards in it.
    """
    with on_all_ranks("start"):
        if not is_main_process():
            return
        folder.mkdir(parents=True, exist_ok=True)
        if not claim(folder / ".shards.lock"):  # Else a job at work may wait for them.
            return
        for whole, shards, mark in waiting_in(folder):
            files = [each for each in folder.iterdir() if shards_folder(each) == shards]
            checkpoints = [each for each in files if each.is_file()]
            if any(_mark(load_torch_file(each), each) == mark for each in checkpoints):
                settle(shards, whole)
            elif whole.is_dir():
                shutil.rmtree(whole)
        for left in folder.glob(".*.shards.old"):
            shutil.rmtree(left)
        for left in folder.glob(".*.pth.partial"):
            left.unlink()


def remove_shards(checkpoint: str | Path) -> None:
    """The shards of a checkpoint that is removed."""
    folder = shards_folder(checkpoint)
    for each in (folder, *waiting_names(folder)):
        shutil.rmtree(each, ignore_errors=True)


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


def shards_of(path: str, checkpoint: dict[str, Any], head: PartialFCSphereFace2) -> Shards | str:
    """The shards that were saved together with a checkpoint, or why there are none for this head.

    Raises:
        ValueError: shards lie beside it that were not saved together with it.
    """
    folder, mark = shards_folder(path), _mark(checkpoint, path)
    waits = waiting(folder, mark) if mark else folder
    if not folder.is_dir() and not waits.is_dir():
        return f"there is no {folder}"
    shards = read_shards(waits if waits.is_dir() else folder)
    first = shards.checkpoints[0]
    check_marks({path: mark, folder: mark_of(first, folder)})
    if mark is None:  # Saved before there were marks, with the step on both.
        saved, step = checkpoint.get("meta", {}).get("iter"), first.get(STEP)
        if None not in (saved, step) and saved != step:
            raise ValueError(
                f"{path} is of iteration {saved} and {folder} of {step}: they were not saved "
                "together"
            )
    difference = difference_from(head, shards)
    return f"{folder} {difference}" if difference else shards


def _mark(checkpoint: dict[str, Any], path: str | Path) -> str | None:
    return mark_of(checkpoint.get("meta"), path)
