"""The host's checkpoints: written whole or not at all, and resumed together or not at all."""

import logging
import os
import re
from collections.abc import Callable
from hashlib import blake2b
from pathlib import Path
from typing import Any

import torch

from sf2_plugin.atomic import atomic_file
from sf2_plugin.distributed import from_all_ranks, on_all_ranks, rank_and_world_size
from sf2_plugin.shards import (
    MARK,
    WORLD_SIZE,
    check_form,
    claim,
    common_mark,
    file_name,
    file_of_set,
    is_claimed,
    is_partial_fc_v2,
    mark_of,
    marked_files,
    new_mark,
    recorded_ranks,
    remove_leftovers,
    settle,
    with_bias_to_train,
)
from sf2_plugin.torch_files import load_torch_file

from . import margin
from .head_choice import NAMES
from .host import host_config
from .resuming import check_config

#: Of a backbone's state, what each rank keeps of its own faces: batch normalisation's statistics.
OWN = ("running_mean", "running_var", "num_batches_tracked")


def _is_shard(file: Any) -> bool:
    if not isinstance(file, (str, os.PathLike)):
        return False
    return re.fullmatch(r"checkpoint_gpu_\d+\.pt", Path(file).name) is not None


def claim_then_log(init_logging: Callable[..., None]) -> Callable[..., None]:
    """One job a folder: the host logs, and later saves, to the one it opens its log in."""

    def init(rank: int, models_root: str, *args: Any, **kwargs: Any) -> None:
        with on_all_ranks("start"):
            claim(_lock(Path(models_root, file_name(rank))))
        init_logging(rank, models_root, *args, **kwargs)

    return init


def _lock(path: Path) -> Path:
    return path.with_name(f".{path.name}.lock")


# The functions that follow keep torch's names of parameters.


def save_whole(save: Callable[..., None]) -> Callable[..., None]:
    def save_in_place(obj: Any, f: Any, *args: Any, **kwargs: Any) -> None:
        if not isinstance(f, (str, os.PathLike)):
            return save(obj, f, *args, **kwargs)
        path = Path(f)
        if not _is_shard(path):
            with atomic_file(path) as file:
                return save(obj, file, *args, **kwargs)
        _, world_size = rank_and_world_size()
        mark = new_mark()
        with file_of_set(path, mark) as file:
            save({**obj, WORLD_SIZE: world_size, MARK: mark}, file, *args, **kwargs)
        if is_claimed(_lock(path)):  # Else they may be another job's, at work.
            remove_leftovers(path)

    return save_in_place


def load_checked(load: Callable[..., Any]) -> Callable[..., Any]:
    def load_together(f: Any, *args: Any, **kwargs: Any) -> Any:
        if not _is_shard(f):
            return load(f, *args, **kwargs)
        path = Path(f)
        with on_all_ranks("resume"):
            found = marked_files(path, lambda each: load_torch_file(each, load))
        with on_all_ranks("resume"):
            mark = common_mark(from_all_ranks(list(found)))
            settle(path, found[mark])
            checkpoint = load_torch_file(path, load)
            _check_number_of_ranks(checkpoint, path)
            checkpoint = _for_the_head(checkpoint, path)
            check_config(checkpoint, path)
        _check_together(checkpoint, path.parent)
        margin.go_on_from(checkpoint.get("global_step"))
        return checkpoint

    return load_together


def resume_where_saved(get_config: Callable[..., Any]) -> Callable[..., Any]:
    """The host's config, with `resume` on where all ranks find files of one save, else off."""

    def get(*args: Any, **kwargs: Any) -> Any:
        config = get_config(*args, **kwargs)
        rank, _ = rank_and_world_size()
        if torch.cuda.is_available():  # The host sets it a line later.
            torch.cuda.set_device(int(os.environ.get("LOCAL_RANK", 0)))
        with on_all_ranks("resume"):
            try:
                marks = list(marked_files(Path(config.output, file_name(rank))))
            except FileNotFoundError:
                marks = []
        ranks = from_all_ranks(marks)
        config.resume = any(all(mark in marks for marks in ranks) for mark in ranks[0])
        return config

    return get


def _check_number_of_ranks(checkpoint: dict[str, Any], path: Path) -> None:
    saved, (_, world_size) = recorded_ranks(checkpoint, path), rank_and_world_size()
    if saved not in (None, world_size):
        raise ValueError(
            f"{path} is of a checkpoint of {saved} ranks and this run has {world_size}: "
            f"sf2 shards reshard {path.parent} --ranks {world_size} --out DIR"
        )


def _for_the_head(checkpoint: dict[str, Any], path: Path) -> dict[str, Any]:
    """PartialFC_V2's class centers are this project's too, its momentum of another loss is not."""
    name = host_config().get("loss")
    if name not in NAMES:
        return checkpoint
    check_form(checkpoint, path)
    if is_partial_fc_v2(checkpoint):
        logging.info(
            "%s is of PartialFC_V2, and config.loss is %r: taken are its backbone, class centers "
            "and schedule; the bias starts afresh, and so does the head's momentum",
            path,
            name,
        )
    return with_bias_to_train(checkpoint)


def _check_together(checkpoint: dict[str, Any], folder: Path) -> None:
    """Files without a mark, the bare host's, are compared by what must be equal in them."""
    marked = mark_of(checkpoint, folder) is not None
    backbone = "" if marked else _digest(checkpoint.get("state_dict_backbone", {}))
    ranks = from_all_ranks((checkpoint.get("global_step"), backbone))
    steps, backbones = (dict(enumerate(values)) for values in zip(*ranks, strict=True))
    for with_, values in (("at step", steps), ("of backbone", backbones)):
        if len(set(values.values())) > 1:
            saved = ", ".join(
                f"{file_name(rank)} {with_} {value}" for rank, value in values.items()
            )
            raise ValueError(f"{folder} holds files that were not saved together: {saved}")


def _digest(backbone: Any) -> str:
    """What every rank's copy of the backbone's weights has in common."""
    digest = blake2b(digest_size=8)
    for name, value in backbone.items():
        if not name.endswith(OWN):
            digest.update(name.encode())
            digest.update(value.detach().cpu().contiguous().flatten().view(torch.uint8).numpy())
    return digest.hexdigest()
