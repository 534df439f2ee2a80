"""Which of a rank's classes take part in a step of Partial FC, and the loss against them alone."""

import math
from collections.abc import Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.autograd import Function
from torch.autograd.function import once_differentiable

from .checks import require_number
from .engine.memory import reused_empty
from .fused import Compute, SampledSGD

NEGATIVE_WEIGHTINGS = ("unbiased", "none")


def require_sample_rate(value: Any) -> None:
    require_number("sample_rate", value, "from 0 to 1", lambda v: 0 <= v <= 1)


class Sample(NamedTuple):
    """The classes that take part in a step, by their indices, in order.

    Attributes:
        present: those of the faces in the batch, which count once.
        sampled: of the others, a uniform sample without replacement.
        labels: (B,) the faces' places in `present`, -1 for a face of none of them.
        stands_for: for how many classes each of `sampled` stands.
    """

    present: Tensor
    sampled: Tensor
    labels: Tensor
    stands_for: float

    @classmethod
    def of(cls, labels: Tensor, num_classes: int, sample_rate: float) -> "Sample":
        # One more than there are classes, for the faces of none of them.
        in_batch = torch.zeros(num_classes + 1, dtype=torch.bool, device=labels.device)
        in_batch[labels] = True
        present = in_batch[:-1].nonzero().squeeze(1)
        absent = _indices(~in_batch[:-1], num_classes - len(present))
        sampled = draw(absent, math.ceil(sample_rate * len(absent)))
        places = torch.where(labels >= 0, torch.searchsorted(present, labels), -1)
        return cls(present, sampled, places, len(absent) / max(len(sampled), 1))


def draw(indices: Tensor, size: int) -> Tensor:
    """A uniform sample without replacement, in order."""
    places = torch.randperm(len(indices), device=indices.device)[:size]
    return indices[places.sort().values]


def _indices(mask: Tensor, count: int) -> Tensor:
    """Where `mask` holds; as `count` says how often, a GPU need not be waited for."""
    if mask.is_cuda:
        try:
            return torch.nonzero_static(mask, size=count).squeeze(1)
        except NotImplementedError:  # A torch that has it for CPUs alone.
            pass
    return mask.nonzero().squeeze(1)


@torch.compiler.disable  # How many steps which rows have missed is nothing to compile in.
def fused_loss(
    fused: SampledSGD, losses: Sequence[Compute], indices: Sequence[Tensor], x: Tensor
) -> Tensor:
    """The sum of `losses`, each against the class centers of one of `indices`, and their step."""

    def compute(x: Tensor, weight: Tensor, sgd: Any) -> Tensor:
        with fused.rows(indices, sgd) as parts:
            first, second = (
                loss(x, rows, step) for loss, (rows, step) in zip(losses, parts, strict=True)
            )
        return first + second

    return fused.loss(compute, x, fused.weight)


class TakeRows(Function):
    """Two sets of rows of the class centers; backward spreads both gradients over one tensor."""

    @staticmethod
    def forward(
        ctx: Any, weight: Tensor, present: Tensor, sampled: Tensor, sparse: bool
    ) -> tuple[Tensor, Tensor]:
        ctx.save_for_backward(present, sampled)
        ctx.weight, ctx.sparse = weight, sparse  # Its shape counts: its values may change.
        return weight.index_select(0, present), weight.index_select(0, sampled)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, None, None, None]:
        weight, indices = ctx.weight, ctx.saved_tensors
        if ctx.sparse:
            rows = torch.cat(gradients)
            gradient = torch.sparse_coo_tensor(
                torch.cat(indices)[None], rows, weight.shape, check_invariants=False
            )
        else:
            gradient = reused_empty(weight, *weight.shape).zero_()
            for index, rows in zip(indices, gradients, strict=True):
                gradient.index_copy_(0, index, rows)
        return gradient, None, None, None
