"""Class centers that other code trained, as a checkpoint of this project's head."""

from collections import OrderedDict
from pathlib import Path
from typing import Any

from torch import Tensor

from ..torch_files import load_torch_file
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
from .places import Place, replaced


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
        return checked(converted, [source / file_name(rank) for rank in ranks])
    weight, bias = _centers_of_file(source)
    head = OrderedDict(weight=weight)
    if bias is not None:
        if not (isinstance(bias, Tensor) and bias.numel() == 1):
            raise ValueError(f"{source} has class centers with a bias that is not one number")
        head["bias"] = bias.reshape(1)
    return checked([{HEAD: head, WORLD_SIZE: 1}], [source])


def _with_bias_to_train(checkpoint: Checkpoint) -> Checkpoint:
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


def _centers_of_file(path: Path) -> tuple[Tensor, Tensor | None]:
    content = load_torch_file(path)
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
