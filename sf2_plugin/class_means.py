"""Class centers that start where a trained network puts the faces of their classes."""

from collections.abc import Iterable, Iterator

import torch
from torch import Tensor, distributed

from .checks import check_finite, check_inputs, check_labels
from .definition import unit
from .distributed import (
    ProcessGroup,
    exchange_device,
    from_all_ranks,
    gather,
    on_all_ranks,
    rank_and_world_size,
)
from .head import SphereFace2
from .partial_fc import PartialFCSphereFace2

#: Embeddings (b, D) and labels (b,).
Faces = tuple[Tensor, Tensor]


@torch.no_grad()
def start_from_means(head: SphereFace2, batches: Iterable[Faces]) -> int:
    """Put each class center in the direction of the mean of its faces' unit embeddings.

    A class without faces keeps its center. The bias becomes the recipe's initial one, as in a fresh
    head. Where class centers are shared out over ranks, each rank adds up those of its own classes.

    Args:
        head: every rank of its process group must call this.
        batches: this rank's share of the faces, batch by batch; a label of -1 is a face of no
            known identity. Ranks may have different numbers of batches.

    Returns:
        How many classes have faces, over all ranks.

    Raises:
        OSError, TypeError, ValueError, ...: on all ranks, what `batches` raises on one, or
            embeddings and labels that do not fit the head or are not finite.
    """
    group, classes = _group(head), _classes(head)
    _, world_size = rank_and_world_size(group)
    sharded = isinstance(head, PartialFCSphereFace2)
    wide = torch.promote_types(head.weight.dtype, torch.float32)
    sums = torch.zeros(len(classes), head.embedding_size, dtype=wide)
    for embeddings, labels in _of_all_ranks(head, batches):
        sums = sums.to(embeddings.device)
        held = (labels >= classes.start) & (labels < classes.stop)
        sums.index_add_(0, labels[held] - classes.start, unit(embeddings[held]))
    if world_size > 1 and not sharded:  # A GPU adds up in another order each time.
        distributed.broadcast(sums, src=0)
    found = sums.any(dim=1)
    head.weight[found.to(head.weight.device)] = unit(sums[found]).to(head.weight)
    head.bias.fill_(head.recipe.initial_bias(head.num_classes))
    numbers = from_all_ranks(int(found.sum()), group)
    return sum(numbers) if sharded else numbers[0]


def _of_all_ranks(head: SphereFace2, batches: Iterable[Faces]) -> Iterator[Faces]:
    """The faces of every rank's next batch, until none has one."""
    group = _group(head)
    _, world_size = rank_and_world_size(group)
    rest = iter(batches)
    device = head.weight.device
    nobody = torch.empty(0, head.embedding_size), torch.empty(0, dtype=torch.long)
    while True:
        with on_all_ranks("embed faces", group):
            batch = next(rest, None)
            embeddings, labels = nobody if batch is None else batch
            _check(head, embeddings, labels)
        sizes = from_all_ranks(None if batch is None else len(labels), group)
        if sizes == [None] * world_size:
            return
        if batch is not None:
            device = embeddings.device
        if world_size > 1:
            device = exchange_device(device, group)
        counts = [size or 0 for size in sizes]
        wide = torch.promote_types(head.weight.dtype, torch.float32)
        yield (
            gather(embeddings.to(device, wide), counts, group),
            gather(labels.to(device, torch.long), counts, group),
        )


def _group(head: SphereFace2) -> ProcessGroup:
    """The ranks that hold the head, or copies of it."""
    return head.process_group if isinstance(head, PartialFCSphereFace2) else None


def _classes(head: SphereFace2) -> range:
    return head.classes if isinstance(head, PartialFCSphereFace2) else range(head.num_classes)


def _check(head: SphereFace2, embeddings: Tensor, labels: Tensor) -> None:
    like = embeddings.new_empty(())
    check_inputs(embeddings, like.expand(0, head.embedding_size), labels, like.expand(1))
    check_labels(labels, head.num_classes)
    check_finite(embeddings)
