"""Class centers from a checkpoint into a head."""

from pathlib import Path

import torch

from ..partial_fc import PartialFCSphereFace2
from .checkpoints import HEAD, Shards, read_shards


def load_centers(head: PartialFCSphereFace2, folder: str | Path) -> Shards:
    """Give a head the class centers, and the bias where there is one, of a folder's checkpoint.

    The checkpoint may be of any number of ranks; each rank reads the rows of its own classes.

    Returns:
        What was read.

    Raises:
        ValueError: another number of classes or another embedding size; or as `read_shards`.
    """
    shards = read_shards(folder)
    if difference := difference_from(head, shards):
        raise ValueError(f"{folder} {difference}")
    copy_centers(head, shards)
    return shards


def difference_from(head: PartialFCSphereFace2, shards: Shards) -> str | None:
    """How the number of classes or the embeddings' size is not the head's, if it is not."""
    found = (shards.num_classes, shards.embedding_size)
    wanted = (head.num_classes, head.embedding_size)
    if found == wanted:
        return None
    return (
        f"holds {found[0]} classes of size {found[1]}, and the head has {wanted[0]} of size "
        f"{wanted[1]}"
    )


def copy_centers(head: PartialFCSphereFace2, shards: Shards) -> None:
    """As `load_centers`, from shards that were read and fit."""
    head.catch_up()
    with torch.no_grad():
        head.weight.copy_(shards.rows((HEAD, "weight"), head.classes))
        if shards.has_bias:
            head.bias.copy_(shards.checkpoints[0][HEAD]["bias"])
