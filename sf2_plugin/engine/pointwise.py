"""What lies between the matrix products of the sweep; every backend brings its own."""

from abc import ABC, abstractmethod

from torch import Tensor

from ..recipe import Recipe
from .sgd import SGDStep


class Pointwise(ABC):
    """The loss of a batch, class chunk by class chunk: cosines in, slopes out, sums kept.

    Args:
        x: (B, D) unit embeddings in the dtype of the products' factors.
        weight: (C, D) class centers.
        labels: (B,) int64 in -1..C-1.
        bias: (1,).
        negative_weight: factor on the negatives' loss.
        chunk_size: classes at a time.
        boost: factor on the slopes.
    """

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
        self.x = x
        self.labels = labels
        self.bias = bias
        self.recipe = recipe
        self.negative_weight = negative_weight
        self.boost = boost

    @abstractmethod
    def unit_rows_(self, rows: Tensor) -> tuple[Tensor, Tensor]:
        """Class centers (c, D) at length one in the products' dtype, and their lengths (c, 1).

        They are stored back into `rows` where the recipe normalises in place. A row of zeros stays
        zero, and its length counts as one.
        """

    @abstractmethod
    def slopes_(self, z: Tensor, start: int) -> Tensor:
        """Slopes (c, B) of the logits' terms by the cosines `z` (c, B), which are used up.

        The classes are those from `start` on. The slopes are in the dtype of the products.
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
