"""The checkpoints of all ranks as one thing: read, found to belong together, described."""

import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from ..distributed import classes_of_rank
from ..torch_files import load_torch_file
from .places import Place, at, equal

HEAD = "state_dict_softmax_fc"
OPTIMIZER = "state_optimizer"
#: How many ranks saved together. Without it, as the bare host saves, nothing tells that the last
#: files are missing: the first ones of a split are a split of fewer classes.
WORLD_SIZE = "world_size"
Checkpoint = dict[str, Any]


@dataclass(frozen=True)
class Shards:
    """The checkpoints of all ranks, in their order, found to belong together.

    Attributes:
        checkpoints: one a rank.
        num_classes: C, over all ranks.
        embedding_size: D.
        sharded: where in a checkpoint tensors of one row a class are.
    """

    checkpoints: list[Checkpoint]
    num_classes: int
    embedding_size: int
    sharded: list[Place]

    def rows(self, place: Place, classes: range) -> Tensor:
        """The rows of `classes` of the sharded tensor at `place`, copied."""
        shares = [at(checkpoint, place) for checkpoint in self.checkpoints]
        start, pieces = 0, []
        for share in shares:
            held = range(start, start + len(share))
            first, last = max(held.start, classes.start), min(held.stop, classes.stop)
            if first < last:
                pieces.append(share[first - start : last - start])
            start = held.stop
        return torch.cat(pieces) if pieces else shares[0][:0].clone()

    def describe(self) -> dict[str, Any]:
        """Plain figures, ready for JSON."""
        first = self.checkpoints[0]
        weight = first[HEAD]["weight"]
        ranks = range(len(self.checkpoints))
        classes = [classes_of_rank(self.num_classes, rank, len(ranks)) for rank in ranks]
        return {
            "head": "PartialFC_V2" if is_partial_fc_v2(first) else "SphereFace2",
            "ranks": len(ranks),
            "ranks_recorded": first.get(WORLD_SIZE),
            "classes": self.num_classes,
            "embedding_size": self.embedding_size,
            "dtype": str(weight.dtype).removeprefix("torch."),
            "bias": first[HEAD]["bias"].item() if "bias" in first[HEAD] else None,
            "epoch": first.get("epoch"),
            "global_step": first.get("global_step"),
            "optimizer": sorted(place[-1] for place in self.sharded if place[0] == OPTIMIZER),
            "shards": [
                {"file": file_name(rank), "first_class": held.start, "classes": len(held)}
                for rank, held in zip(ranks, classes, strict=True)
            ],
        }


def file_name(rank: int) -> str:
    """arcface_torch's name of a rank's checkpoint."""
    return f"checkpoint_gpu_{rank}.pt"


def read_shards(folder: str | Path) -> Shards:
    """The checkpoints `checkpoint_gpu_{rank}.pt` of a folder.

    Of ranks beyond the number that the checkpoint records, an older run's, none is read.

    Raises:
        ValueError: a file that cannot be read, a rank that is missing, or ranks that were not
            saved together; each names the file.
        FileNotFoundError: the folder has no such files.
    """
    folder = Path(folder)
    matches = (re.fullmatch(r"checkpoint_gpu_(\d+)\.pt", path.name) for path in folder.glob("*.pt"))
    found = {int(match[1]) for match in matches if match}
    if not found:
        raise FileNotFoundError(f"{folder} has no {file_name(0)}")
    first = folder / file_name(0)
    recorded = recorded_ranks(load_torch_file(first), first) if 0 in found else None
    world_size = recorded or max(found) + 1
    missing = next((rank for rank in range(world_size) if rank not in found), None)
    if missing is not None:
        raise ValueError(f"{folder / file_name(missing)} is missing: there are {sorted(found)}")
    paths = [folder / file_name(rank) for rank in range(world_size)]
    return checked([load_torch_file(path) for path in paths], paths)


def recorded_ranks(checkpoint: Any, path: Path) -> int | None:
    """How many ranks saved together with this one; None where the checkpoint does not say.

    Raises:
        ValueError: it says something else than a number of ranks.
    """
    ranks = checkpoint.get(WORLD_SIZE) if isinstance(checkpoint, dict) else None
    if ranks is not None and not (type(ranks) is int and ranks > 0):
        raise ValueError(f"{path} holds {WORLD_SIZE} {ranks!r}, which is no number of ranks")
    return ranks


def checked(checkpoints: list[Checkpoint], paths: list[Path]) -> Shards:
    """The checkpoints of ranks 0, 1, ..., read from `paths`; a ValueError names what is amiss."""
    for checkpoint, path in zip(checkpoints, paths, strict=True):
        head = checkpoint.get(HEAD) if isinstance(checkpoint, dict) else None
        weight = head.get("weight") if isinstance(head, dict) else None
        if not (isinstance(weight, Tensor) and weight.ndim == 2):
            raise ValueError(f"{path} has no class centers: no matrix {HEAD!r}, 'weight'")
        try:
            _sharded_places(checkpoint)
        except (AttributeError, IndexError, KeyError, TypeError):
            raise ValueError(f"{path} holds an optimizer's state that is not torch's") from None
    weights = [checkpoint[HEAD]["weight"] for checkpoint in checkpoints]
    num_classes = sum(map(len, weights))
    for rank, (weight, path) in enumerate(zip(weights, paths, strict=True)):
        share = len(classes_of_rank(num_classes, rank, len(paths)))
        if len(weight) != share:
            raise ValueError(
                f"{path} holds {len(weight)} classes, and rank {rank} of {len(paths)} with "
                f"{num_classes} classes in all holds {share}: ranks are missing or do not belong "
                "together"
            )
    first, sharded = checkpoints[0], _sharded_places(checkpoints[0])
    copied = {name: value for name, value in first[HEAD].items() if name != "weight"}
    for checkpoint, path in zip(checkpoints, paths, strict=True):
        for name in ("epoch", "global_step", WORLD_SIZE):
            if checkpoint.get(name) != first.get(name):
                raise ValueError(
                    f"{path} was saved at {name} {checkpoint.get(name)} and {paths[0]} at "
                    f"{first.get(name)}: they do not belong together"
                )
        others = {name: value for name, value in checkpoint[HEAD].items() if name != "weight"}
        same_names = others.keys() == copied.keys() and _sharded_places(checkpoint) == sharded
        if not same_names or not all(equal(others[name], copied[name]) for name in copied):
            raise ValueError(f"{path} and {paths[0]} were saved from different heads")
    return Shards(checkpoints, num_classes, weights[0].shape[1], sharded)


def _sharded_places(checkpoint: Checkpoint) -> list[Place]:
    """Where the class centers are, and the optimizer's tensors of their shape."""
    places: list[Place] = [(HEAD, "weight")]
    if OPTIMIZER in checkpoint:
        shape = checkpoint[HEAD]["weight"].shape
        index = head_parameters(checkpoint)[0]
        state = checkpoint[OPTIMIZER]["state"].get(index, {})
        places += [
            (OPTIMIZER, "state", index, name)
            for name, value in state.items()
            if isinstance(value, Tensor) and value.shape == shape
        ]
    return places


def head_parameters(checkpoint: Checkpoint) -> list[int]:
    """The optimizer's numbers of the head's parameters, which are its last group."""
    return checkpoint[OPTIMIZER]["param_groups"][-1]["params"]


def is_partial_fc_v2(checkpoint: Checkpoint) -> bool:
    """Whether the optimizer has class centers of the head and no bias, as with arcface_torch's."""
    return (
        "bias" not in checkpoint.get(HEAD, {})
        and OPTIMIZER in checkpoint
        and len(head_parameters(checkpoint)) == 1
    )
