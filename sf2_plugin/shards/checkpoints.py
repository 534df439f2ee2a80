"""The checkpoints of all ranks as one thing: read, found to belong together, described."""

import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeGuard

import torch
from torch import Tensor

from ..distributed import classes_of_rank
from ..torch_files import load_torch_file
from .marks import MARK, mark_of, marked_files, waiting_names
from .places import Place, at, differences, replaced

HEAD = "state_dict_softmax_fc"
OPTIMIZER = "state_optimizer"
#: How many ranks saved together. Without it, as the bare host saves, nothing tells that the last
#: files are missing: the first ones of a split are a split of fewer classes.
WORLD_SIZE = "world_size"
#: Where rank 0 keeps what the ranks that resharding left out had of their own, a backbone's
#: running statistics for one, so that going back to as many ranks loses nothing.
LEFT_OUT = "ranks_left_out"
Checkpoint = dict[str, Any]

_NAME = re.compile("checkpoint_gpu_(0|[1-9][0-9]*)\\.pt")


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

    @property
    def has_bias(self) -> bool:
        return "bias" in self.checkpoints[0][HEAD]

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
            "bias": first[HEAD]["bias"].item() if self.has_bias else None,
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

    Of ranks beyond the number that the checkpoint records, an older run's, none is read. A set
    whose files had not all taken their names when the run was killed is found all the same.

    Raises:
        ValueError: a file that cannot be read, a rank that is missing, or ranks that were not
            saved together; each names the file.
        FileNotFoundError: the folder has no such files.
    """
    folder = Path(folder)
    paths = _marked_set(folder) or _named_set(folder)
    return checked([load_torch_file(path) for path in paths], paths)


def _marked_set(folder: Path) -> list[Path] | None:
    """The files of the newest save that is whole, where files bear marks."""
    first = folder / file_name(0)
    if not (first.exists() or waiting_names(first)):
        return None
    for mark, path in marked_files(first).items():
        ranks = recorded_ranks(load_torch_file(path), path)
        if mark is None or ranks is None:
            continue
        rest = [folder / file_name(rank) for rank in range(1, ranks)]
        if not all(each.exists() or waiting_names(each) for each in rest):
            continue
        found = [path, *(marked_files(each).get(mark) for each in rest)]
        if None not in found:
            return [each for each in found if each]
    return None


def _named_set(folder: Path) -> list[Path]:
    matches = (_NAME.fullmatch(path.name) for path in folder.glob("*.pt"))
    found = {int(match[1]) for match in matches if match}
    if not found:
        raise FileNotFoundError(f"{folder} has no {file_name(0)}")
    first = folder / file_name(0)
    recorded = recorded_ranks(load_torch_file(first), first) if 0 in found else None
    world_size = recorded or max(found) + 1
    missing = next((rank for rank in range(world_size) if rank not in found), None)
    if missing is not None:
        raise ValueError(f"{folder / file_name(missing)} is missing: there are {sorted(found)}")
    return [folder / file_name(rank) for rank in range(world_size)]


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
    """The checkpoints of ranks 0, 1, ..., read from `paths`.

    Raises:
        ValueError: what is amiss with which file, or which do not belong together.
    """
    for checkpoint, path in zip(checkpoints, paths, strict=True):
        check_form(checkpoint, path)
    weights = [checkpoint[HEAD]["weight"] for checkpoint in checkpoints]
    first, sharded = checkpoints[0], _sharded_places(checkpoints[0])
    for checkpoint, path in zip(checkpoints[1:], paths[1:], strict=True):
        for name in (MARK, "epoch", "global_step", WORLD_SIZE):
            if checkpoint.get(name) != first.get(name):
                raise ValueError(
                    f"{path} was saved at {name} {checkpoint.get(name)} and {paths[0]} at "
                    f"{first.get(name)}: they do not belong together"
                )
        if difference := _difference(checkpoint, first, sharded):
            raise ValueError(f"{path} and {paths[0]} were saved from different heads: {difference}")
    num_classes = sum(map(len, weights))
    for rank, (weight, path) in enumerate(zip(weights, paths, strict=True)):
        share = len(classes_of_rank(num_classes, rank, len(paths)))
        if len(weight) != share:
            raise ValueError(
                f"{path} holds {len(weight)} classes, and rank {rank} of {len(paths)} with "
                f"{num_classes} classes in all holds {share}: ranks are missing or do not belong "
                "together"
            )
    return Shards(checkpoints, num_classes, weights[0].shape[1], sharded)


def check_form(checkpoint: Any, path: Path) -> None:
    """Refuse what is no rank's checkpoint, whatever its file holds.

    Raises:
        ValueError: says what is amiss with `path`.
    """
    head = checkpoint.get(HEAD) if isinstance(checkpoint, dict) else None
    if not (isinstance(head, dict) and _is_matrix(head.get("weight"))):
        raise ValueError(f"{path} has no class centers: no matrix {HEAD!r}, 'weight'")
    bias = head.get("bias")
    one_number = isinstance(bias, Tensor) and bias.is_floating_point() and bias.numel() == 1
    if "bias" in head and not one_number:
        raise ValueError(f"{path} has class centers with a bias that is not one number")
    for name in ("epoch", "global_step"):
        value = checkpoint.get(name)
        if value is not None and type(value) is not int:
            raise ValueError(f"{path} holds {name} {str(value)[:40]!r}, which is no whole number")
    recorded_ranks(checkpoint, path)
    mark_of(checkpoint, path)
    try:
        for place in _sharded_places(checkpoint):
            if not _is_matrix(at(checkpoint, place)):
                raise TypeError
    except (AttributeError, IndexError, KeyError, TypeError):
        raise ValueError(f"{path} holds an optimizer's state that is not torch's") from None
    try:
        for places in dict(checkpoint.get(LEFT_OUT, {})).values():
            replaced(checkpoint, dict(places))
    except (AttributeError, IndexError, KeyError, TypeError, ValueError):
        raise ValueError(f"{path} holds {LEFT_OUT!r} that do not fit the rest") from None


def _is_matrix(value: Any) -> TypeGuard[Tensor]:
    return isinstance(value, Tensor) and value.ndim == 2 and value.is_floating_point()


def _difference(checkpoint: Checkpoint, first: Checkpoint, sharded: list[Place]) -> str | None:
    """What tells that a rank's checkpoint was not saved together with rank 0's."""
    names = [content.keys() - {LEFT_OUT} for content in (checkpoint, first)]
    if names[0] != names[1]:
        return f"{', '.join(sorted(map(str, names[0] ^ names[1])))} in one of them alone"
    one, other = (content[HEAD]["weight"] for content in (checkpoint, first))
    if one.shape[1] != other.shape[1]:
        return f"class centers of size {one.shape[1]} and {other.shape[1]}"
    if one.dtype != other.dtype:
        return f"class centers in {one.dtype} and {other.dtype}"
    if _sharded_places(checkpoint) != sharded:
        return "other optimizers' states of the class centers"
    for place in sharded:
        one, other = at(checkpoint, place), at(first, place)
        if one.dtype != other.dtype:
            return f"{place[-1]} in {one.dtype} and {other.dtype}"
    shared: list[Place] = [(HEAD,), (OPTIMIZER, "param_groups"), ("state_lr_scheduler",)]
    if OPTIMIZER in first:
        shared += [(OPTIMIZER, "state", index) for index in head_parameters(first)]
    for place in shared:
        try:
            one, other = at(checkpoint, place), at(first, place)
        except KeyError:  # Of neither, as the names are the same, but for an optimizer's numbers.
            continue
        inside = {each[len(place) :] for each in sharded if each[: len(place)] == place}
        if any(differences(one, other, but=inside)):
            return f"other values in {place[0]!r}"
    return None


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
        "bias" not in checkpoint[HEAD]
        and OPTIMIZER in checkpoint
        and len(head_parameters(checkpoint)) == 1
    )
