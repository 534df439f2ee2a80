"""What a sharded head's ranks must have in common, found out once a step by one small exchange.

Ranks that disagree would train something else without a word, read each other's bits as another
dtype, or wait for each other in vain. So each step begins with an exchange of `NUMBERS` whole
numbers a rank; only where they tell that something is amiss do ranks exchange words, and then all
of them raise the same sentence.
"""

import struct
from collections.abc import Mapping
from hashlib import blake2b
from typing import Any

import torch
from torch import Tensor

from .checks import check_finite
from .distributed import (
    ProcessGroup,
    by_value,
    exchange_device,
    from_all_ranks,
    gather_numbers,
    on_all_ranks,
    rank_and_world_size,
)

#: Faces, digest of what must be equal, lowest and highest label, faces not finite, the bias' bits.
NUMBERS = 6
#: In the place of the number of faces: this rank cannot take part.
FAULT = -1


def agree_on_batch(
    embeddings: Tensor,
    labels: Tensor,
    bias: Tensor,
    common: Mapping[str, Any] | Exception,
    *,
    num_classes: int,
    check_finite: bool,
    group: ProcessGroup = None,
) -> list[int]:
    """How many faces each rank brings, once all are found to be able to take this step together.

    Waits for the device once, for all of it.

    Args:
        embeddings: (b, D), this rank's.
        labels: (b,) integers.
        bias: (1,).
        common: what must be equal on all ranks, by name; or why this rank cannot take its batch.
        num_classes: over all ranks.
        check_finite: whether embeddings with NaN or infinity are refused.

    Raises:
        ValueError: what differs between ranks, or what is wrong with a rank's batch: on all ranks
            at once, and the same sentence. Other kinds as `on_all_ranks`.
    """
    device = exchange_device(bias.device, group)
    mine = torch.full((NUMBERS,), FAULT, dtype=torch.int64, device=device)
    if not isinstance(common, Exception):
        try:
            mine = _numbers(embeddings, labels, bias, common, check_finite).to(device)
        except Exception as error:
            common = error
    ranks = gather_numbers(mine, group)
    sizes, digests, lowest, highest, not_finite, biases = map(list, zip(*ranks, strict=True))
    if FAULT in sizes or len(set(digests)) > 1:
        _explain(common, group)
    if len(set(biases)) > 1:
        require_equal("bias", [_as_float(bits) for bits in biases])
    wrong = {
        rank: f"labels from {low} to {high}"
        for rank, (low, high) in enumerate(zip(lowest, highest, strict=True))
        if low < -1 or high >= num_classes
    }
    if wrong:
        raise ValueError(
            f"labels must be -1 (no known identity) or in 0..{num_classes - 1}, got {_told(wrong)}"
        )
    unfit = {
        rank: f"NaN or infinity in {bad} of {size} rows"
        for rank, (bad, size) in enumerate(zip(not_finite, sizes, strict=True))
        if bad
    }
    if unfit:
        raise ValueError(f"embeddings must be finite, got {_told(unfit)}")
    return sizes


def check_finite_on_all_ranks(embeddings: Tensor, together: bool) -> None:
    """Embeddings hold no NaN and no infinity; waits for the device.

    Args:
        embeddings: (b, D), this rank's.
        together: whether every rank is here, and all of them end with the one that is refused.

    Raises:
        ValueError: how many rows hold one, and where.
    """
    if not (together and rank_and_world_size()[1] > 1):
        return check_finite(embeddings)
    with on_all_ranks("take its batch"):
        check_finite(embeddings)


def require_equal(name: str, values: list[Any]) -> None:
    """Raises a ValueError that tells which ranks have which of `values`, one a rank."""
    told = {rank: str(value) for rank, value in enumerate(values)}
    if len(set(told.values())) > 1:
        raise ValueError(f"{name} must be equal on all ranks, got {_told(told)}")


def _told(values: dict[int, str]) -> str:
    *others, last = (f"{value} on {ranks}" for value, ranks in by_value(values))
    return f"{', '.join(others)} and {last}" if others else last


def _numbers(
    embeddings: Tensor, labels: Tensor, bias: Tensor, common: Mapping[str, Any], check_finite: bool
) -> Tensor:
    """This rank's row, made on the device without waiting for it."""

    def whole(number: int) -> Tensor:
        return torch.full((1,), number, dtype=torch.int64, device=labels.device)

    ends = [whole(0), whole(0)]
    if len(labels):
        ends = [end.long().reshape(1) for end in labels.aminmax()]
    not_finite = whole(0)
    if check_finite:
        not_finite = (~torch.isfinite(embeddings.detach())).any(dim=1).sum().reshape(1)
    bits = bias.detach().double().view(torch.int64)
    return torch.cat([whole(len(embeddings)), whole(_digest(common)), *ends, not_finite, bits])


def _digest(common: Mapping[str, Any]) -> int:
    digest = blake2b(repr(list(common.items())).encode(), digest_size=8).digest()
    return int.from_bytes(digest, "big", signed=True)


def _as_float(bits: int) -> float:
    return struct.unpack("d", struct.pack("q", bits))[0]


def _explain(common: Mapping[str, Any] | Exception, group: ProcessGroup) -> None:
    with on_all_ranks("take its batch", group):
        if isinstance(common, Exception):
            raise common
    ranks = from_all_ranks({name: repr(value) for name, value in common.items()}, group)
    differences = []
    for name in common:
        try:
            require_equal(name, [rank.get(name) for rank in ranks])
        except ValueError as error:
            differences.append(str(error))
    raise ValueError("; ".join(differences))
