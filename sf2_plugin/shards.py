"""Checkpoints of a sharded head on disk: shown, resharded to another number of ranks, imported.

arcface_torch saves one file a rank, `checkpoint_gpu_{rank}.pt`, and so does this project's head
inside of it. The centers of a rank's classes, and the optimizer's tensors of their shape, are that
rank's share; all else (backbone, schedule, step, the bias) is each rank's copy of the same.
Files are read without running code in them, and a folder is written whole or not at all.
"""

import argparse
import copy
import json
import re
from collections import OrderedDict
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from .atomic import atomic_folder
from .distributed import classes_of_rank
from .partial_fc import PartialFCSphereFace2
from .progress import progress_bar

HEAD = "state_dict_softmax_fc"
OPTIMIZER = "state_optimizer"
#: How many ranks saved together. Without it, as the bare host saves, nothing tells that the last
#: files are missing: the first ones of a split are a split of fewer classes.
WORLD_SIZE = "world_size"
#: Where rank 0 keeps what the ranks that resharding left out had of their own, a backbone's
#: running statistics for one, so that going back to as many ranks loses nothing.
LEFT_OUT = "ranks_left_out"

Checkpoint = dict[str, Any]
#: Keys and indices that lead to one value in a checkpoint.
Place = tuple[Any, ...]


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
        shares = [_at(checkpoint, place) for checkpoint in self.checkpoints]
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


def load_checkpoint(path: Path, load: Callable[..., Any] = torch.load) -> Any:
    """A file that `torch.save` wrote, its tensors left on disk until they are used.

    Args:
        load: torch's own function, for whoever has put another in its place.

    Raises:
        ValueError: the file is cut short, is no checkpoint, or holds more than tensors and plain
            values, which would mean running code from it.
        FileNotFoundError: there is no such file.
    """
    try:
        return load(path, map_location="cpu", weights_only=True, mmap=True)
    except FileNotFoundError:
        raise
    except Exception as error:  # The zip reader and the unpickler fail in ways of their own.
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise ValueError(f"{path} is cut short or no checkpoint of tensors: {reason}") from None


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
    recorded = recorded_ranks(load_checkpoint(first), first) if 0 in found else None
    world_size = recorded or max(found) + 1
    missing = next((rank for rank in range(world_size) if rank not in found), None)
    if missing is not None:
        raise ValueError(f"{folder / file_name(missing)} is missing: there are {sorted(found)}")
    paths = [folder / file_name(rank) for rank in range(world_size)]
    return _checked([load_checkpoint(path) for path in paths], paths)


def recorded_ranks(checkpoint: Any, path: Path) -> int | None:
    """How many ranks saved together with this one; None where the checkpoint does not say.

    Raises:
        ValueError: it says something else than a number of ranks.
    """
    ranks = checkpoint.get(WORLD_SIZE) if isinstance(checkpoint, dict) else None
    if ranks is not None and not (type(ranks) is int and ranks > 0):
        raise ValueError(f"{path} holds {WORLD_SIZE} {ranks!r}, which is no number of ranks")
    return ranks


def _checked(checkpoints: list[Checkpoint], paths: list[Path]) -> Shards:
    for checkpoint, path in zip(checkpoints, paths, strict=True):
        head = checkpoint.get(HEAD) if isinstance(checkpoint, dict) else None
        weight = head.get("weight") if isinstance(head, dict) else None
        if not (isinstance(weight, Tensor) and weight.ndim == 2):
            raise ValueError(f"{path} has no class centers: no matrix {HEAD!r}, 'weight'")
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
        if not same_names or not all(_equal(others[name], copied[name]) for name in copied):
            raise ValueError(f"{path} and {paths[0]} were saved from different heads")
    return Shards(checkpoints, num_classes, weights[0].shape[1], sharded)


def _sharded_places(checkpoint: Checkpoint) -> list[Place]:
    """Where the class centers are, and the optimizer's tensors of their shape."""
    places: list[Place] = [(HEAD, "weight")]
    if OPTIMIZER in checkpoint:
        shape = checkpoint[HEAD]["weight"].shape
        index = _head_parameters(checkpoint)[0]
        state = checkpoint[OPTIMIZER]["state"].get(index, {})
        places += [
            (OPTIMIZER, "state", index, name)
            for name, value in state.items()
            if isinstance(value, Tensor) and value.shape == shape
        ]
    return places


def _head_parameters(checkpoint: Checkpoint) -> list[int]:
    """The optimizer's numbers of the head's parameters, which are its last group."""
    return checkpoint[OPTIMIZER]["param_groups"][-1]["params"]


def reshard(shards: Shards, world_size: int) -> Iterator[Checkpoint]:
    """The same checkpoint for `world_size` ranks, rank by rank.

    A rank that was there keeps what it had of its own; a new one takes rank 0's; what ranks that
    are left out had of their own goes along with rank 0 (`LEFT_OUT`).
    """
    first = {name: value for name, value in shards.checkpoints[0].items() if name != LEFT_OUT}
    base = dict(_leaves(first))
    own: dict[int, dict[Place, Any]] = dict(shards.checkpoints[0].get(LEFT_OUT, {}))
    for rank, checkpoint in enumerate(shards.checkpoints[1:], start=1):
        own[rank] = {
            place: value
            for place, value in _leaves(checkpoint)
            if place not in shards.sharded and not _equal(value, base.get(place))
        }
    left_out = {rank: values for rank, values in own.items() if rank >= world_size and values}
    for rank in range(world_size):
        classes = classes_of_rank(shards.num_classes, rank, world_size)
        share = {place: shards.rows(place, classes) for place in shards.sharded}
        checkpoint = _replaced(first, {**own.get(rank, {}), **share})
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


def import_shards(source: str | Path) -> Shards:
    """Class centers that other code trained, as a checkpoint of this project's head.

    Args:
        source: a folder of arcface_torch's `checkpoint_gpu_{rank}.pt`, or a checkpoint file of
            OpenSphere or wespeaker whose head holds (classes, D) centers.

    From arcface_torch all of the checkpoint is kept (backbone, schedule, step, the backbone's
    momentum), so that training resumes from it with this loss; the head's momentum, which belongs
    to another loss, is dropped. From the others only the head is taken: see `load_centers`.
    Where the source has no bias, the checkpoint has none, and a head that loads it keeps its own,
    fresh one, which fits its hyperparameters.

    Raises:
        ValueError: a file that cannot be read, or holds no centers that are recognised.
        FileNotFoundError: there is no such file or folder.
    """
    source = Path(source)
    if source.is_dir():
        shards = read_shards(source)
        ranks = range(len(shards.checkpoints))
        converted = [
            {**_with_bias_to_train(checkpoint), WORLD_SIZE: len(ranks)}
            for checkpoint in shards.checkpoints
        ]
        return _checked(converted, [source / file_name(rank) for rank in ranks])
    weight, bias = _centers_of_file(source)
    head = OrderedDict(weight=weight)
    if bias is not None:
        if not (isinstance(bias, Tensor) and bias.numel() == 1):
            raise ValueError(f"{source} has class centers with a bias that is not one number")
        head["bias"] = bias.reshape(1)
    return _checked([{HEAD: head, WORLD_SIZE: 1}], [source])


def is_partial_fc_v2(checkpoint: Checkpoint) -> bool:
    """Whether the optimizer has class centers of the head and no bias, as with arcface_torch's."""
    return (
        "bias" not in checkpoint.get(HEAD, {})
        and OPTIMIZER in checkpoint
        and len(_head_parameters(checkpoint)) == 1
    )


def _with_bias_to_train(checkpoint: Checkpoint) -> Checkpoint:
    """PartialFC_V2's checkpoint, with a second parameter of the head in the optimizer."""
    if not is_partial_fc_v2(checkpoint):
        return checkpoint
    optimizer = checkpoint[OPTIMIZER]
    (weight,) = _head_parameters(checkpoint)
    state = {number: kept for number, kept in optimizer["state"].items() if number != weight}
    groups = len(optimizer["param_groups"])
    changes: dict[Place, Any] = {
        (OPTIMIZER, "state"): state,
        (OPTIMIZER, "param_groups", groups - 1, "params"): [weight, weight + 1],
    }
    return _replaced(checkpoint, changes)


def _centers_of_file(path: Path) -> tuple[Tensor, Tensor | None]:
    content = load_checkpoint(path)
    if isinstance(content, dict):
        model = content.get("model", content)
        head = model.get("head") if isinstance(model, dict) else None
        if isinstance(head, dict) and "w" in head:  # OpenSphere
            return head["w"], head.get("b")
        if "projection.weight" in content:  # wespeaker
            return content["projection.weight"], content.get("projection.bias")
    raise ValueError(
        f"{path} holds no class centers in a form that is known: OpenSphere's ('head' with 'w'), "
        "wespeaker's ('projection.weight'), or, as a folder, arcface_torch's"
    )


def load_centers(head: PartialFCSphereFace2, folder: str | Path) -> None:
    """Give a head the class centers, and the bias where there is one, of a folder's checkpoint.

    The checkpoint may be of any number of ranks; each rank reads the rows of its own classes.

    Raises:
        ValueError: another number of classes or another embedding size; or as `read_shards`.
    """
    shards = read_shards(folder)
    found = (shards.num_classes, shards.embedding_size)
    wanted = (head.num_classes, head.embedding_size)
    if found != wanted:
        raise ValueError(
            f"{folder} holds {found[0]} classes of size {found[1]}, and the head has {wanted[0]} "
            f"of size {wanted[1]}"
        )
    with torch.no_grad():
        head.weight.copy_(shards.rows((HEAD, "weight"), head.classes))
        if "bias" in shards.checkpoints[0][HEAD]:
            head.bias.copy_(shards.checkpoints[0][HEAD]["bias"])


def _at(tree: Any, place: Place) -> Any:
    for key in place:
        tree = tree[key]
    return tree


def _leaves(tree: Any, place: Place = ()) -> Iterator[tuple[Place, Any]]:
    """Every value in nested dicts and lists, and where it is."""
    if isinstance(tree, dict):
        for key, value in tree.items():
            yield from _leaves(value, (*place, key))
    elif isinstance(tree, list):
        for index, value in enumerate(tree):
            yield from _leaves(value, (*place, index))
    else:
        yield place, tree


def _replaced(tree: Any, changes: dict[Place, Any]) -> Any:
    """`tree` with other values at some places; what lies on the way to them is copied."""
    tree = copy.copy(tree)
    for (key, *rest), value in changes.items():
        tree[key] = _replaced(tree[key], {tuple(rest): value}) if rest else value
    return tree


def _equal(a: Any, b: Any) -> bool:
    if isinstance(a, Tensor) and isinstance(b, Tensor):
        return a.dtype == b.dtype and torch.equal(a, b)
    return type(a) is type(b) and a == b


def add_arguments(parser: argparse.ArgumentParser) -> None:
    from .cli import add_commands

    add_commands(parser, COMMANDS)


COMMANDS = {
    "show": ("sf2_plugin.shards:add_show_arguments", "what a sharded checkpoint holds"),
    "reshard": (
        "sf2_plugin.shards:add_reshard_arguments",
        "the same checkpoint for another number of ranks",
    ),
    "import": (
        "sf2_plugin.shards:add_import_arguments",
        "class centers from arcface_torch, OpenSphere or wespeaker, as a checkpoint of this head",
    ),
}


def add_show_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("folder", metavar="DIR", help="with one checkpoint_gpu_RANK.pt a rank")
    parser.add_argument("--json", action="store_true", help="print as JSON")
    parser.set_defaults(run=lambda given: _show(read_shards(given.folder), given.json))


def add_reshard_arguments(parser: argparse.ArgumentParser) -> None:
    from .cli import count

    parser.add_argument("folder", metavar="DIR", help="with one checkpoint_gpu_RANK.pt a rank")
    parser.add_argument("--ranks", type=count, required=True, help="how many there shall be")
    parser.add_argument("--out", required=True, metavar="DIR", help="new or empty folder")
    parser.set_defaults(run=lambda given: _write(read_shards(given.folder), given))


def add_import_arguments(parser: argparse.ArgumentParser) -> None:
    from .cli import count

    parser.add_argument(
        "source", help="a folder of arcface_torch, or a checkpoint file of OpenSphere or wespeaker"
    )
    parser.add_argument("--ranks", type=count, default=1, help="default %(default)s")
    parser.add_argument("--out", required=True, metavar="DIR", help="new or empty folder")
    parser.set_defaults(run=lambda given: _write(import_shards(given.source), given))


def _write(shards: Shards, given: argparse.Namespace) -> None:
    progress = progress_bar("writing")

    def reported() -> Iterator[Checkpoint]:
        for rank, checkpoint in enumerate(reshard(shards, given.ranks)):
            yield checkpoint
            progress(rank + 1, given.ranks)

    write_shards(reported(), given.out)
    _show(read_shards(given.out), as_json=False)


def _show(shards: Shards, as_json: bool) -> None:
    figures = shards.describe()
    if as_json:
        print(json.dumps(figures, indent=2))
        return
    print(
        f"{figures['head']}: {figures['classes']} classes of size {figures['embedding_size']}, "
        f"{figures['dtype']}, {figures['ranks']} ranks"
    )
    if figures["ranks_recorded"] is None:
        print("number of ranks: not recorded, so files missing at the end would go unnoticed")
    for name in ("epoch", "global_step", "bias"):
        if figures[name] is not None:
            print(f"{name.replace('_', ' ')}: {figures[name]:g}")
    print("optimizer:", ", ".join(figures["optimizer"]) or "no state for the class centers")
    for shard in figures["shards"]:
        first, held = shard["first_class"], shard["classes"]
        print(f"{shard['file']}: " + (f"classes {first}..{first + held - 1}" if held else "none"))
