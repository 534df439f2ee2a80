"""What lies between the matrix products of the sweep; every backend brings its own."""

from abc import ABC, abstractmethod
from collections.abc import Collection
from typing import ClassVar

import torch
from torch import Tensor

from ..checks import require_one_of
from ..recipe import Recipe
from .memory import reused_empty
from .sgd import SGDStep


class Pointwise(ABC):
    """The loss of a batch, class chunk by class chunk: class centers in, slopes out, sums kept.

    Args:
        x: (B, D) unit embeddings in the dtype of the products' factors.
        weight: (C, D) class centers.
        labels: (B,) int64 in -1..C-1.
        bias: (1,).
        negative_weight: factor on the negatives' loss.
        chunk_size: classes at a time.
        boost: factor on the slopes.

    Raises:
        ValueError: a margin type that the backend does not serve.
    """

    #: Names of `sf2_plugin.margins.MARGIN_TYPES` that the backend serves: all of them, or a test
    #: says which are missing.
    margin_types: ClassVar[Collection[str]]

    def __init__(
        self,
        x: Tensor,
        weight: Tensor,
        labels: Tensor,
        bias: Tensor,
        recipe: Recipe,
        *,
        negative_weight: float,
        chunk_size: int,
        boost: float,
    ) -> None:
        require_one_of(
            f"margin_type for {type(self).__name__}", recipe.margin_type, self.margin_types
        )
        self.x = x
        self.weight = weight
        self.chunk_size = chunk_size
        self.cosines: Tensor | None = None
        self.labels = labels
        self.bias = bias
        self.recipe = recipe
        self.negative_weight = negative_weight
        self.boost = boost

    def chunk(self, start: int) -> tuple[Tensor, Tensor, Tensor]:
        """What `unit_rows_` and `slopes_` make of the classes from `start` on.

        Chunks are asked for in order. What is returned is used up by the next call.

        Returns:
            Unit rows (c, D), their lengths (c, 1) and the slopes (c, B).
        """
        w, lengths = self.unit_rows_(self.weight[start : start + self.chunk_size])
        if self.cosines is None:
            wide = torch.promote_types(self.x.dtype, torch.float32)
            self.cosines = reused_empty(self.x, len(w), len(self.x), dtype=wide)
        z = self.cosines[
            : len(w)
        ]  # Classes by faces: the layout in which a CPU multiplies fastest.
        multiply(w, self.x.T, out=z)
        return w, lengths, self.slopes_(z, start)

    @abstractmethod
    def unit_rows_(self, rows: Tensor) -> tuple[Tensor, Tensor]:
        """Class centers (c, D) at length one in the products' dtype, and their lengths (c, 1).

        They are stored back into `rows` where the recipe normalises in place. A row of zeros stays
        zero, and its length counts as one.
        """

    @abstractmethod
    def slopes_(self, z: Tensor, start: int) -> Tensor:
        """From cosines `z` (c, B), which are used up, to slopes (c, B) in the products' dtype.

        The classes are those from `start` on. With l = scale * phi + bias a logit, phi being phi+
        for a face's own class and phi- for any other, and phi' its slope by z (1 for
        ``gradient="detached"``), the slopes are those of the terms by z, divided by the scale,

        - own class: term lam * softplus(-l), slope -boost * lam * sigmoid(-l) * phi'
        - another's: term (1 - lam) * negative_weight * softplus(l),
          slope boost * (1 - lam) * negative_weight * sigmoid(l) * phi'
        - another's whose z exceeds an interclass_filtering_threshold above 0: 0 and 0

        (A logit's slope is scale * phi', and the loss is divided by the scale: the two cancel.)
        The terms, and their slopes by the bias, are added to the sums that `totals` gives.
        """

    @abstractmethod
    def project_rows_(self, gradient: Tensor, rows: Tensor, lengths: Tensor) -> None:
        """Turn the gradient (c, D) by the unit rows into that by `rows`."""

    @abstractmethod
    def step_rows_(
        self, rows: Tensor, gradient: Tensor, momentum_buffer: Tensor | None, step: SGDStep
    ) -> None:
        """Make SGD's step on class centers `rows` (c, D), all three of whose tensors are used.

        What is not finite in the gradient counts as zero: there is no loss scaler to skip the step.
        """

    @abstractmethod
    def totals(self) -> tuple[Tensor, Tensor]:
        """The terms' sum over all chunks, and their slope by the bias; float64 scalars."""

    @staticmethod
    def scale_(tensor: Tensor, factor: Tensor) -> Tensor:
        """tensor *= factor, a scalar on the same device."""
        return tensor.mul_(factor)


def multiply(a: Tensor, b: Tensor, *, out: Tensor, alpha: float = 1.0, beta: float = 0.0) -> None:
    """out = beta * out + alpha * a @ b, added up in float32 or wider."""
    if out.dtype == a.dtype:
        torch.addmm(out, a, b, alpha=alpha, beta=beta, out=out)
    elif a.is_cuda and out.dtype == torch.float32:
        torch.addmm(out, a, b, out_dtype=torch.float32, alpha=alpha, beta=beta, out=out)
    else:  # Class centers of another dtype than the embeddings: converted where it is stored.
        out.copy_(torch.addmm(out.to(a.dtype), a, b, alpha=alpha, beta=beta))
