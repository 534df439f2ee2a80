"""Class centers that start where a trained network puts the faces of their classes."""

from collections.abc import Iterable, Iterator

import torch
from torch import Tensor, distributed

from .checks import check_finite, check_inputs, check_labels
from .definition import unit
from .distributed import (
    exchange_device,
    from_all_ranks,
    gather,
    on_all_ranks,
    rank_and_world_size,
)
from .head import SphereFace2, sphereface2_loss

#: Embeddings (b, D) and labels (b,).
Faces = tuple[Tensor, Tensor]

#: Faces, of the first ones, that the bias is fitted to: each of them meets every class.
FITTED_TO = 256


@torch.no_grad()
def start_from_means(head: SphereFace2, batches: Iterable[Faces]) -> int:
    """Put each class center in the direction of the mean of its faces' unit embeddings.

    A class without faces keeps its center. The bias becomes that of least loss for the first faces
    against the new centers; a fresh head's is for right angles, and far off here. Where class
    centers are shared out over ranks, each rank adds up those of its own classes.

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
    group, classes = head.process_group, head.classes
    _, world_size = rank_and_world_size(group)
    wide = torch.promote_types(head.weight.dtype, torch.float32)
    sums = torch.zeros(len(classes), head.embedding_size, dtype=wide)
    first: list[Faces] = []
    for embeddings, labels in _of_all_ranks(head, batches):
        rest = FITTED_TO - sum(len(taken) for _, taken in first)
        if rest:
            first.append((embeddings[:rest], labels[:rest]))
        sums = sums.to(embeddings.device)
        held = (labels >= classes.start) & (labels < classes.stop)
        sums.index_add_(0, labels[held] - classes.start, unit(embeddings[held]))
    if world_size > 1 and not head.sharded:  # A GPU adds up in another order each time.
        distributed.broadcast(sums, src=0)
    found = sums.any(dim=1)
    head.weight[found.to(head.weight.device)] = unit(sums[found]).to(head.weight)
    head.bias.fill_(_fitted_bias(head, first))
    numbers = from_all_ranks(int(found.sum()), group)
    return sum(numbers) if head.sharded else numbers[0]


def _fitted_bias(head: SphereFace2, faces: list[Faces]) -> float:
    """The bias of least loss for some faces, the same on all ranks, by halving where it may lie.

    The loss is convex in it. Where there is no known face it is a fresh head's.
    """
    start = head.recipe.initial_bias(head.num_classes)
    x, labels = (torch.cat(parts) for parts in zip(*faces, strict=True)) if faces else (None, None)
    if x is None or labels is None or not (labels >= 0).any():
        return start
    device, classes = head.weight.device, head.classes
    held = (labels >= classes.start) & (labels < classes.stop)
    own = torch.where(held, labels - classes.start, -1).to(device)
    x = x.to(device)

    def slope(at: float) -> float:
        bias = torch.full_like(head.bias, at).requires_grad_()
        with torch.enable_grad(), torch.autocast(device.type, enabled=False):
            loss = sphereface2_loss(x, head.weight.detach(), own, bias, head.recipe)
            (gradient,) = torch.autograd.grad(loss, bias)
        shares = from_all_ranks(gradient.item(), head.process_group)
        return sum(shares) if head.sharded else shares[0]

    # No logit is further from 0 than the scale and its margin allow.
    low, high = start - 10 * head.recipe.scale, start + 10 * head.recipe.scale
    while high - low > 1e-3:
        middle = (low + high) / 2
        low, high = (low, middle) if slope(middle) > 0 else (middle, high)
    return (low + high) / 2


def _of_all_ranks(head: SphereFace2, batches: Iterable[Faces]) -> Iterator[Faces]:
    """The faces of every rank's next batch, until none has one."""
    group = head.process_group
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


def _check(head: SphereFace2, embeddings: Tensor, labels: Tensor) -> None:
    like = embeddings.new_empty(())
    check_inputs(embeddings, like.expand(0, head.embedding_size), labels, like.expand(1))
    check_labels(labels, head.num_classes)
    check_finite(embeddings)
