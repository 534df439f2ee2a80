"""Class centers that other code trained, as a checkpoint of this project's head."""

import re
from collections import OrderedDict
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from torch import Tensor

from ..torch_files import load_torch_file
from ..weights import load_checkpoint, named_tensors
from .checkpoints import (
    HEAD,
    OPTIMIZER,
    WORLD_SIZE,
    Checkpoint,
    Shards,
    checked,
    file_name,
    head_parameters,
    is_partial_fc_v2,
    read_shards,
)
from .marks import MARK, new_mark
from .places import Place, replaced

#: Parts of a name that say how a model was wrapped or filed, not what a tensor is.
WRAPPERS = {"module", "state_dict", "model", "model_state_dict", "ema_state_dict"}


@dataclass(frozen=True)
class Form:
    """Where a trainer keeps its class centers, once `WRAPPERS` are left out of names.

    Attributes:
        trainer: whose it is.
        name: the centers' name; one that begins with a dot is the end of any name.
        bias: the name of one bias for all classes, where there may be one.
        transposed: the centers are (embedding size, classes).
    """

    trainer: str
    name: str
    bias: str | None = None
    transposed: bool = False

    def fits(self, name: str) -> bool:
        return f".{name}".endswith(self.name) if self.name.startswith(".") else name == self.name


FORMS = (
    Form("OpenSphere", "head.w", bias="head.b"),
    Form("wespeaker", "projection.weight", bias="projection.bias"),
    Form("SphereFace2ClsHead", "head.loss_module.weight", bias="head.loss_module.bias"),
    Form("MMPretrain's ArcFaceClsHead", "head.norm_product.weight"),
    Form("pytorch-metric-learning", ".W", transposed=True),
    Form("Keras-like heads", ".kernel", transposed=True),
    Form("face.evoLVe", "weight", bias="bias"),
)

#: The first Partial FC's file of a rank's centers; beside it lies their momentum, `..._mom.pt`.
_FIRST_PARTIAL_FC = re.compile("rank[_:](0|[1-9][0-9]*)_softmax_weight\\.pt")


def import_shards(source: str | Path, num_classes: int | None = None) -> Shards:
    """Class centers that other code trained, as a checkpoint of this project's head.

    Args:
        source: a folder of arcface_torch's `checkpoint_gpu_{rank}.pt`, or of the
            `rank_{rank}_softmax_weight.pt` of its first Partial FC, or a file with the centers of
            one of `FORMS`.
        num_classes: how many there must be; tells sub-centers, several of a class, from centers.

    From arcface_torch all of the checkpoint is kept (backbone, schedule, step, the backbone's
    momentum), so that training resumes from it with this loss; the head's momentum, which belongs
    to another loss, is dropped. From the others only the centers are taken: see `load_centers`.
    Where the source has no bias, the checkpoint has none, and a head that loads it keeps its own,
    fresh one, which fits its hyperparameters.

    Raises:
        ValueError: a file that cannot be read, or holds no centers that are recognised, or
            sub-centers.
        FileNotFoundError: there is no such file or folder.
    """
    source = Path(source)
    if not source.is_dir():
        shards = checked([{HEAD: _head_of_file(source), **_recorded(1)}], [source])
    elif paths := _first_partial_fc(source):
        heads = [OrderedDict(weight=load_torch_file(path)) for path in paths]
        recorded = _recorded(len(paths))
        shards = checked([{HEAD: head, **recorded} for head in heads], paths)
    else:
        read = read_shards(source).checkpoints
        recorded = _recorded(len(read))
        shards = checked(
            [{**with_bias_to_train(checkpoint), **recorded} for checkpoint in read],
            [source / file_name(rank) for rank in range(len(read))],
        )
    _check_number(shards.num_classes, num_classes, source)
    return shards


def _recorded(ranks: int) -> dict[str, Any]:
    """The entries that make one set of the files that are imported together."""
    return {WORLD_SIZE: ranks, MARK: new_mark()}


def _check_number(found: int, wanted: int | None, source: Path) -> None:
    if wanted in (None, found):
        return
    if wanted and found % wanted == 0:
        raise ValueError(
            f"{source} holds sub-centers, {found // wanted} for each of {wanted} classes: this "
            "head has one center a class"
        )
    raise ValueError(f"{source} holds {found} classes, and {wanted} are wanted")


def _first_partial_fc(folder: Path) -> list[Path]:
    """The files of ranks 0, 1, ...; none where the folder has others."""
    matches = {_FIRST_PARTIAL_FC.fullmatch(path.name): path for path in folder.glob("rank*.pt")}
    found = {int(match[1]): path for match, path in matches.items() if match}
    if not found or (folder / file_name(0)).exists():
        return []
    if missing := [rank for rank in range(max(found)) if rank not in found]:
        raise ValueError(f"{folder} has no softmax_weight.pt of rank {missing[0]}")
    return [found[rank] for rank in sorted(found)]


def with_bias_to_train(checkpoint: Checkpoint) -> Checkpoint:
    """PartialFC_V2's checkpoint, with a second parameter of the head in the optimizer."""
    if not is_partial_fc_v2(checkpoint):
        return checkpoint
    optimizer = checkpoint[OPTIMIZER]
    (weight,) = head_parameters(checkpoint)
    state = {number: kept for number, kept in optimizer["state"].items() if number != weight}
    groups = len(optimizer["param_groups"])
    changes: dict[Place, Any] = {
        (OPTIMIZER, "state"): state,
        (OPTIMIZER, "param_groups", groups - 1, "params"): [weight, weight + 1],
    }
    return replaced(checkpoint, changes)


def _head_of_file(path: Path) -> OrderedDict[str, Tensor]:
    content = load_checkpoint(path)
    tensors: dict[str, Tensor] = {}
    by_name = named_tensors(content)
    for name in sorted(by_name, key=_is_average):
        parts = [part for part in name.split(".") if part not in WRAPPERS]
        tensors.setdefault(".".join(parts), by_name[name])
    for form in FORMS:
        found = [name for name in tensors if form.fits(name)]
        if len(found) > 1:
            raise ValueError(f"{path} holds several class centers: {', '.join(found)}")
        if found:
            break
    else:
        known = ", ".join(f"{form.trainer} ({form.name!r})" for form in FORMS)
        raise ValueError(
            f"{path} holds no class centers in a form that is known: {known}, or, as a folder, "
            "arcface_torch's"
        )
    weight = tensors[found[0]]
    _refuse_sub_centers(content, weight, f"{path}, {found[0]}")
    head = OrderedDict(weight=weight.T.contiguous() if form.transposed else weight)
    if form.bias in tensors:
        bias = tensors[form.bias]
        if bias.numel() != 1:
            raise ValueError(f"{path} has class centers with a bias that is not one number")
        head["bias"] = bias.reshape(1)
    return head


def _is_average(name: str) -> bool:
    """Whether a tensor is of a copy of the model, as in `ema_state_dict`, and not the trained."""
    return any(part.startswith("ema") for part in name.split("."))


def _refuse_sub_centers(content: Any, weight: Tensor, where: str) -> None:
    """Several centers a class lie along a dimension of their own, or are told by the config."""
    meta = content.get("meta") if isinstance(content, dict) else None
    config = str(meta.get("cfg")) if isinstance(meta, dict) else ""
    told = re.search(r"num_subcenters\W{1,4}([0-9]+)", config)
    if weight.ndim == 3 or (told and int(told[1]) > 1):
        number = told[1] if told else "several"
        raise ValueError(
            f"{where}: sub-centers, {number} for each class, are held in {tuple(weight.shape)}; "
            "this head has one center a class"
        )
    if weight.ndim != 2:
        raise ValueError(f"{where}: class centers must be a matrix, got {tuple(weight.shape)}")
