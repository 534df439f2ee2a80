"""Class centers over the ranks of a process group, and what its ranks exchange and agree on.

Gradients keep the convention of arcface_torch: the backbone sits in DistributedDataParallel, which
averages over ranks, while every rank's loss is that of the global batch. The gradient that flows
back into a rank's embeddings is therefore multiplied by the number of ranks.
"""

from collections.abc import Callable, Hashable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, distributed
from torch.autograd import Function
from torch.autograd.function import once_differentiable
from torch.nn.functional import pad

from .compat import all_gather_single, reduce_scatter_single

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


@contextmanager
def on_all_ranks(
    what: str, group: ProcessGroup = None, undo: Callable[[], None] = lambda: None
) -> Iterator[None]:
    """A block that fails on all ranks if it fails on one, so that none waits for another in vain.

    Every rank of the group must enter it. They all raise the same sentence, which names the ranks
    that failed and why; it is an OSError, TypeError or ValueError where the first error was one,
    and a RuntimeError otherwise. A single rank's error stays as it is.

    Args:
        what: what the block does, to complete "rank 1 could not ...".
        undo: called on every rank once all know that the block failed on one; not where a rank
            was lost, as the others may have gone on.

    Example:
        >>> with on_all_ranks("save"):
        ...     pass
    """
    error: Exception | None = None
    try:
        yield
    except Exception as caught:
        error = caught
    if rank_and_world_size(group)[1] == 1:
        if error:
            undo()
            raise error
        return
    failures = from_all_ranks(error and (_kind(error), _sentence(error)), group)
    failed = {rank: failure for rank, failure in enumerate(failures) if failure}
    if failed:
        undo()
        kind, _ = next(iter(failed.values()))
        by_reason = by_value({rank: reason for rank, (_, reason) in failed.items()})
        said = (f"{ranks} could not {what}: {reason}" for reason, ranks in by_reason)
        raise kind("; ".join(said)) from error


#: What `on_all_ranks` raises of; FileNotFoundError is told from other faults of the system.
_KINDS = (FileNotFoundError, OSError, TypeError, ValueError)


def _kind(error: Exception) -> type[Exception]:
    return next((kind for kind in _KINDS if isinstance(error, kind)), RuntimeError)


def _sentence(error: Exception) -> str:
    telling = isinstance(error, (*_KINDS, RuntimeError)) and str(error)
    return str(error) if telling else f"{type(error).__name__}: {error}"


def from_all_ranks(value: Any, group: ProcessGroup = None) -> list[Any]:
    """Every rank's value, which pickle must be able to copy, in the order of ranks."""
    _, world_size = rank_and_world_size(group)
    values = [value] * world_size
    if world_size > 1:
        distributed.all_gather_object(values, value, group=group)
    return values


def by_value(values: Mapping[int, Hashable]) -> list[tuple[Any, str]]:
    """Each value that ranks have, and which ranks, in words.

    Example:
        >>> by_value({0: 10, 1: 10, 2: 20})
        [(10, 'ranks 0 and 1'), (20, 'rank 2')]
    """
    ranks: dict[Any, list[int]] = {}
    for rank, value in values.items():
        ranks.setdefault(value, []).append(rank)
    return [(value, _in_words(having)) for value, having in ranks.items()]


def _in_words(ranks: Iterable[int]) -> str:
    """Ranks in ascending order as "rank 3", "ranks 0 and 2" or "ranks 0 to 5, 7 and 9"."""
    runs: list[list[int]] = []
    for rank in ranks:
        if runs and rank == runs[-1][-1] + 1:
            runs[-1].append(rank)
        else:
            runs.append([rank])
    parts: list[str] = []
    for run in runs:
        parts += [f"{run[0]} to {run[-1]}"] if len(run) > 2 else map(str, run)
    if runs == [runs[0][:1]]:
        return f"rank {parts[0]}"
    *others, last = parts
    return f"ranks {', '.join(others)} and {last}" if others else f"ranks {last}"


def gather_numbers(mine: Tensor, group: ProcessGroup = None) -> list[list[int]]:
    """Every rank's whole numbers, in the order of ranks; waits for them.

    Args:
        mine: (n,) int64, on an `exchange_device`.
    """
    _, world_size = rank_and_world_size(group)
    if world_size == 1:
        return [mine.tolist()]
    everyone = mine.new_empty(world_size * len(mine))
    all_gather_single(everyone, mine, group=group)
    return everyone.view(world_size, len(mine)).tolist()


def exchange_device(preferred: torch.device, group: ProcessGroup = None) -> torch.device:
    """A device of the kind on which all ranks can talk, wherever a rank keeps its tensors."""
    serving = dict(pair.split(":") for pair in distributed.get_backend_config(group).split(","))
    kind = "cpu"
    if serving.get("cpu", "nccl") == "nccl":
        kind = next(kind for kind in serving if kind != "cpu")
    return preferred if preferred.type == kind else torch.device(kind)


def gather(rows: Tensor, sizes: Sequence[int], group: ProcessGroup = None) -> Tensor:
    """The rows of every rank, in the order of ranks, on every rank.

    In the backward pass each rank's rows get the sum of what all ranks made of them, times the
    number of ranks (see above). Gradients below float32 are summed in it.

    Args:
        rows: (sizes[rank], ...) of this rank.
        sizes: rows of each rank.
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
            all_gather_single(everyone, padded, group=group)
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
            reduce_scatter_single(mine, torch.cat(parts), group=ctx.group)
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
