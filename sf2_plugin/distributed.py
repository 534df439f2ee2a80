"""Class centers over the ranks of a process group, and the exchanges a sharded loss needs.

Gradients keep the convention of arcface_torch: the backbone sits in DistributedDataParallel, which
averages over ranks, while every rank's loss is that of the global batch. The gradient that flows
back into a rank's embeddings is therefore multiplied by the number of ranks.
"""

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, distributed
from torch.autograd import Function
from torch.autograd.function import once_differentiable
from torch.nn.functional import pad

_all_gather: Any
_reduce_scatter: Any
if hasattr(distributed, "all_gather_single"):  # Newer torch, where the older names warn.
    _all_gather = distributed.all_gather_single
    _reduce_scatter = distributed.reduce_scatter_single
elif distributed.is_available():
    _all_gather = distributed.all_gather_into_tensor
    _reduce_scatter = distributed.reduce_scatter_tensor

#: A torch.distributed process group; None stands for all ranks.
ProcessGroup = Any


def rank_and_world_size(group: ProcessGroup = None) -> tuple[int, int]:
    """This process' rank in the group and the group's size; 0 and 1 without torch.distributed.

    Raises:
        ValueError: this process is not in the group.
    """
    if not (distributed.is_available() and distributed.is_initialized()):
        return 0, 1
    rank = distributed.get_rank(group)
    if rank < 0:
        raise ValueError(f"process_group does not have rank {distributed.get_rank()} in it")
    return rank, distributed.get_world_size(group)


def classes_of_rank(num_classes: int, rank: int, world_size: int) -> range:
    """The classes whose centers a rank holds: equal shares, the first ranks one more each.

    The same split as arcface_torch's, so that its shards and ours are interchangeable.
    """
    share, rest = divmod(num_classes, world_size)
    start = share * rank + min(rank, rest)
    return range(start, start + share + (rank < rest))


def gather_sizes(size: int, device: torch.device, group: ProcessGroup = None) -> list[int]:
    """How many faces each rank brings to this step."""
    _, world_size = rank_and_world_size(group)
    if world_size == 1:
        return [size]
    sizes = torch.empty(world_size, dtype=torch.int64, device=device)
    mine = torch.full((1,), size, dtype=torch.int64, device=device)
    _all_gather(sizes, mine, group=group)
    return sizes.tolist()


def gather(rows: Tensor, sizes: Sequence[int], group: ProcessGroup = None) -> Tensor:
    """The rows of every rank, in the order of ranks, on every rank.

    In the backward pass each rank's rows get the sum of what all ranks made of them, times the
    number of ranks (see above). Gradients below float32 are summed in it.

    Args:
        rows: (sizes[rank], ...) of this rank.
        sizes: rows of each rank, from `gather_sizes`.
    """
    return rows if len(sizes) == 1 else _Gather.apply(rows, list(sizes), group)


def sum_over_ranks(share: Tensor, group: ProcessGroup = None) -> Tensor:
    """The sum of the ranks' shares of a loss; backward reaches this rank's share unchanged."""
    return share if rank_and_world_size(group)[1] == 1 else _SumOverRanks.apply(share, group)


def sum_gradient_over_ranks(parameter: Tensor, group: ProcessGroup = None) -> Tensor:
    """`parameter` itself, whose gradient will be the sum over ranks: the same bits on every rank.

    A parameter that starts equal on all ranks and is updated by equal optimizers stays equal.
    """
    if rank_and_world_size(group)[1] == 1:
        return parameter
    return _SumGradientOverRanks.apply(parameter, group)


class _Gather(Function):
    @staticmethod
    def forward(ctx: Any, rows: Tensor, sizes: list[int], group: ProcessGroup) -> Tensor:
        ctx.sizes, ctx.group = sizes, group
        largest = max(sizes)
        padded = _pad(rows, largest).contiguous()
        everyone = padded.new_empty(len(sizes) * largest, *rows.shape[1:])
        if largest:
            _all_gather(everyone, padded, group=group)
        if min(sizes) == largest:
            return everyone
        parts = zip(everyone.split(largest), sizes, strict=True)
        return torch.cat([part[:size] for part, size in parts])

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, None, None]:
        largest, dtype = max(ctx.sizes), gradient.dtype
        gradient = gradient.to(torch.promote_types(dtype, torch.float32))
        parts = [_pad(part, largest) for part in gradient.split(ctx.sizes)]
        mine = gradient.new_empty(largest, *gradient.shape[1:])
        if largest:
            _reduce_scatter(mine, torch.cat(parts), group=ctx.group)
        rank, world_size = rank_and_world_size(ctx.group)
        return (mine[: ctx.sizes[rank]] * world_size).to(dtype), None, None


def _pad(rows: Tensor, size: int) -> Tensor:
    """Collectives exchange blocks of one size: `rows` with zeros below."""
    return pad(rows, [0, 0] * (rows.ndim - 1) + [0, size - len(rows)])


class _SumOverRanks(Function):
    @staticmethod
    def forward(ctx: Any, share: Tensor, group: ProcessGroup) -> Tensor:
        total = share.clone()
        distributed.all_reduce(total, group=group)
        return total

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, None]:
        return gradient, None


class _SumGradientOverRanks(Function):
    @staticmethod
    def forward(ctx: Any, parameter: Tensor, group: ProcessGroup) -> Tensor:
        ctx.group = group
        return parameter.view_as(parameter)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, None]:
        total = gradient.clone()
        distributed.all_reduce(total, group=ctx.group)
        return total, None
