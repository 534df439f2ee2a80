"""The one pass over chunks of classes.

A one-vs-all loss has no normaliser over classes: the slope of a logit depends on that logit alone.
So a chunk of class centers can be normalised, compared with the batch, turned into gradients and
forgotten before the next one is looked at. That is three matrix products for loss and gradients,
and no (B, C) matrix; a softmax cannot do this, because the slope of each logit waits for the sum
over all of them.
"""

from typing import NamedTuple

import torch
from torch import Tensor

from ..recipe import Recipe
from . import pointwise_torch as pointwise

#: Bytes that a chunk of cosines may take: about what stays in a core's second-level cache on a
#: CPU, and enough to keep a GPU busy for longer than it takes to launch the next kernel.
CHUNK_BYTES = {"cpu": 1024 * 1024, "cuda": 64 * 1024 * 1024}
SMALLEST_CHUNK = 128


class Sweep(NamedTuple):
    """Loss of a batch and its gradients; a gradient nobody asked for has no elements."""

    loss: Tensor
    embeddings: Tensor
    weight: Tensor
    bias: Tensor


def default_chunk_size(batch_size: int, num_classes: int, device: torch.device) -> int:
    """Classes a chunk, from the batch size and what the device's cache holds."""
    budget = CHUNK_BYTES.get(device.type, CHUNK_BYTES["cuda"])
    chunk = budget // (4 * max(batch_size, 1))
    return max(min(chunk, num_classes), min(SMALLEST_CHUNK, num_classes), 1)


def sweep(
    x: Tensor,
    weight: Tensor,
    labels: Tensor,
    bias: Tensor,
    recipe: Recipe,
    *,
    product_dtype: torch.dtype,
    negative_weight: float = 1.0,
    chunk_size: int | None = None,
    embeddings_gradient: bool = True,
    weight_gradient: bool = True,
) -> Sweep:
    """Loss and gradients of unit embeddings `x` (B, D) against class centers `weight` (C, D).

    With ``recipe.weight_norm == "in_place"``, `weight` holds unit class centers afterwards.

    Args:
        x: (B, D), float32 or float64.
        labels: (B,) int64 in -1..C-1.
        product_dtype: what the factors of the matrix products are rounded to on CUDA.
        negative_weight: factor on the negatives' loss.
        chunk_size: classes at a time; None chooses by `default_chunk_size`.
    """
    batch_size, num_classes = len(x), len(weight)
    in_place = recipe.weight_norm == "in_place"
    chunk_size = chunk_size or default_chunk_size(batch_size, num_classes, x.device)
    # dL/dz = loss_weight / B * (slope of the logit's own term): this one factor goes into the
    # small operands, so that the large ones need no pass of their own.
    factor = recipe.loss_weight / max(batch_size, 1)
    # A half-precision product on a CPU would round its result too; there, all is float32.
    dtype = product_dtype if x.is_cuda else x.dtype
    products = _Products(x.to(dtype), (x * factor).to(dtype))

    loss = torch.zeros((), dtype=torch.float64, device=x.device)
    bias_gradient = torch.zeros_like(loss)
    x_gradient = torch.zeros_like(x) if embeddings_gradient else x.new_empty(0)
    w_gradient = torch.empty_like(weight) if weight_gradient else weight.new_empty(0)

    own = _OwnClasses(labels, chunk_size, num_classes)
    centers, _ = pointwise.unit_rows_(weight[own.classes], in_place=False, dtype=dtype)
    z_own = (products.x[own.faces].to(x.dtype) * centers.to(x.dtype)).sum(dim=1)
    positive = pointwise.positives(z_own, bias, recipe)
    loss += positive.loss
    bias_gradient += positive.logit_gradient

    size = batch_size * min(chunk_size, num_classes)
    z_buffer, *scratch = (x.new_empty(size) for _ in range(3))
    for start in range(0, num_classes, chunk_size):
        rows = weight[start : start + chunk_size]
        w, lengths = pointwise.unit_rows_(rows, in_place=in_place, dtype=dtype)
        z = z_buffer[: batch_size * len(w)].view(batch_size, len(w))
        products.cosines(w, out=z)

        mine, at = own.in_chunk(start)
        negative = pointwise.negatives_(
            z, at, bias, recipe, negative_weight, (scratch[0], scratch[1])
        )
        loss += negative.loss
        bias_gradient += negative.logit_gradient
        z_gradient = negative.cosine_gradient
        z_gradient[at] = positive.cosine_gradient[mine]

        z_gradient = z_gradient.to(dtype)
        if embeddings_gradient:
            products.add_embeddings_gradient(z_gradient, w, out=x_gradient)
        if weight_gradient:
            out = w_gradient[start : start + chunk_size]
            products.weight_gradient(z_gradient, out=out)
            if not in_place:
                pointwise.project_rows_(out, w, lengths)

    return Sweep(
        (loss * (factor / recipe.scale)).to(x.dtype),
        x_gradient.mul_(factor),
        w_gradient,
        (bias_gradient * (factor / recipe.scale)).to(bias.dtype).reshape(bias.shape),
    )


class _Products(NamedTuple):
    """The three matrix products of a chunk, from the two forms of the embeddings they need.

    Results are summed, and kept where that is asked for, in float32 or wider.
    """

    x: Tensor
    scaled_x: Tensor

    def cosines(self, w: Tensor, out: Tensor) -> None:
        _multiply(self.x, w.T, out)

    def add_embeddings_gradient(self, z_gradient: Tensor, w: Tensor, out: Tensor) -> None:
        if out.dtype == w.dtype:
            out.addmm_(z_gradient, w)
        else:
            out += torch.mm(z_gradient, w, out_dtype=out.dtype)

    def weight_gradient(self, z_gradient: Tensor, out: Tensor) -> None:
        _multiply(z_gradient.T, self.scaled_x, out)


def _multiply(a: Tensor, b: Tensor, out: Tensor) -> None:
    if out.dtype == a.dtype:
        torch.mm(a, b, out=out)
    elif a.is_cuda and out.dtype == torch.float32:
        out.copy_(torch.mm(a, b, out_dtype=torch.float32))
    else:
        out.copy_(torch.mm(a, b))


class _OwnClasses:
    """Where the faces' own classes lie, ordered by class so that each chunk finds its own."""

    def __init__(self, labels: Tensor, chunk_size: int, num_classes: int) -> None:
        self.chunk_size = chunk_size
        self.classes, self.faces = labels.sort()
        starts = torch.arange(0, num_classes + chunk_size, chunk_size, device=labels.device)
        self.bounds = torch.searchsorted(self.classes, starts).tolist()
        known = self.bounds[0]  # Labels of -1 come first.
        self.classes, self.faces = self.classes[known:], self.faces[known:]
        self.bounds = [bound - known for bound in self.bounds]

    def in_chunk(self, start: int) -> tuple[slice, tuple[Tensor, Tensor]]:
        """Which of the ordered faces have their class in this chunk, and their (row, column)."""
        chunk = start // self.chunk_size
        mine = slice(self.bounds[chunk], self.bounds[chunk + 1])
        return mine, (self.faces[mine], self.classes[mine] - start)
