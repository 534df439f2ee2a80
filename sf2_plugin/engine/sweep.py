"""The one pass over chunks of classes.

A one-vs-all loss has no normaliser over classes: the slope of a logit depends on that logit alone.
So a chunk of class centers can be normalised, compared with the batch, turned into gradients and
forgotten before the next one is looked at. That is three matrix products for loss and gradients,
and no (B, C) matrix; a softmax cannot do this, because the slope of each logit waits for the sum
over all of them.
"""

import logging
import math
from functools import cache
from typing import NamedTuple

import torch
from torch import Tensor

from ..compat import MIXED_PRODUCTS
from ..recipe import Recipe
from .memory import reused_empty
from .pointwise import Pointwise, multiply
from .sgd import SGDStep

#: Bytes that a chunk of cosines may take on a CPU: what stays in its caches, with two more of the
#: kind, and long enough for threads that must be woken for each operator.
CPU_CHUNK_BYTES = 4 * 1024 * 1024
#: And on a GPU whose cache torch does not tell.
GPU_CHUNK_BYTES = 48 * 1024 * 1024
#: And multiprocessors of one that does not tell them: an H100's.
GPU_PROCESSORS = 132
#: What the libraries that multiply mostly cut products into.
TILE_CLASSES, TILE_WIDTH = 128, 256
SMALLEST_CHUNK = 128

logger = logging.getLogger("sf2_plugin")

#: Slopes are multiplied by up to this before they are rounded to float16, where the many small ones
#: of a large number of classes would otherwise vanish.
FLOAT16_BOOST = 1024.0


class Sweep(NamedTuple):
    """Loss of a batch and its gradients; a gradient nobody asked for has no elements."""

    loss: Tensor
    embeddings: Tensor
    weight: Tensor
    bias: Tensor


def default_chunk_size(
    batch_size: int, num_classes: int, embedding_size: int, device: torch.device
) -> int:
    """Classes a chunk, from the shapes and what the device's cache holds.

    On a GPU, a chunk of cosines or of class centers takes about as much as its second-level cache,
    which also keeps it busy for longer than the host needs to launch the next chunk.
    """
    if device.type == "cpu":
        chunk = CPU_CHUNK_BYTES // (4 * max(batch_size, 1))
    else:
        cache, processors = _gpu(device)
        chunk = cache // (4 * max(batch_size, embedding_size))
        chunk = whole_waves(chunk, batch_size, embedding_size, processors)
        if num_classes <= chunk * 4 // 3:  # No small rest for a chunk of its own.
            chunk = num_classes
    return max(min(chunk, num_classes), min(SMALLEST_CHUNK, num_classes), 1)


@cache
def whole_waves(chunk: int, batch_size: int, embedding_size: int, processors: int) -> int:
    """The number of classes near `chunk` at which a GPU's multiprocessors idle least.

    The products that give cosines (c, B) and the class centers' gradient (c, D) are cut into tiles,
    of which each multiprocessor takes one at a time; when the last are under way, the others wait.
    A tile of 128 by 256 takes as long as the elements it is summed over: D, and B. From two thirds
    of `chunk` to four thirds, this takes the whole bands of 128 classes with the least waiting, of
    equals the largest.
    """
    bands = chunk // TILE_CLASSES
    widths = (batch_size, embedding_size), (embedding_size, batch_size)
    across = [(-(-width // TILE_WIDTH), deep) for width, deep in widths]

    def busy(bands: int) -> float:
        needed = sum(bands * tiles * deep for tiles, deep in across)
        taken = sum(-(-bands * tiles // processors) * deep for tiles, deep in across)
        return needed / max(taken * processors, 1)

    if bands == 0 or bands > 16 * processors:  # Too few to choose from; too many to matter.
        return chunk
    near = range(max(bands * 2 // 3, 1), bands * 4 // 3 + 1)
    return TILE_CLASSES * max(near, key=lambda bands: (busy(bands), bands))


def _gpu(device: torch.device) -> tuple[int, int]:
    """Bytes of a GPU's second-level cache, and its multiprocessors."""
    known = device.type == "cuda" and torch.cuda.is_available()
    properties = torch.cuda.get_device_properties(device) if known else None
    cache = getattr(properties, "L2_cache_size", 0) or GPU_CHUNK_BYTES
    return cache, getattr(properties, "multi_processor_count", 0) or GPU_PROCESSORS


def float16_boost(recipe: Recipe, negative_weight: float) -> float:
    """A power of two, at most `FLOAT16_BOOST`, that no slope outgrows float16 by.

    (The exact gradient of an angular margin has no bound near the poles; there it is clamped.)
    """
    steepest = recipe.t if recipe.gradient == "exact" else 1.0
    largest = max(recipe.lam, (1 - recipe.lam) * negative_weight) * max(steepest, 1.0)
    room = torch.finfo(torch.float16).max / largest
    return min(FLOAT16_BOOST, 2.0 ** math.floor(math.log2(room)))


def sweep(
    x: Tensor,
    weight: Tensor,
    labels: Tensor,
    bias: Tensor,
    recipe: Recipe,
    pointwise: type[Pointwise],
    *,
    product_dtype: torch.dtype,
    negative_weight: float = 1.0,
    chunk_size: int | None = None,
    embeddings_gradient: bool = True,
    weight_gradient: bool = True,
    sgd: SGDStep | None = None,
) -> Sweep:
    """Loss and gradients of unit embeddings `x` (B, D) against class centers `weight` (C, D).

    With ``recipe.weight_norm == "in_place"``, `weight` holds unit class centers afterwards.

    Args:
        x: (B, D), float32 or float64.
        labels: (B,) int64 in -1..C-1.
        pointwise: the backend.
        product_dtype: what the factors of the matrix products are rounded to on CUDA.
        negative_weight: factor on the negatives' loss.
        chunk_size: classes at a time; None chooses by `default_chunk_size`.
        weight_gradient: False also where `sgd` makes the step, for which a chunk's is enough.
    """
    batch_size, num_classes = len(x), len(weight)
    chunk_size = chunk_size or default_chunk_size(batch_size, num_classes, x.shape[1], x.device)
    # A half-precision product on a CPU would round its result too; there, all is float32.
    mixed = x.is_cuda and x.dtype == torch.float32 and MIXED_PRODUCTS
    dtype = product_dtype if mixed else x.dtype
    if x.is_cuda and not MIXED_PRODUCTS and product_dtype != x.dtype:
        _report_full_precision(product_dtype)
    boost = float16_boost(recipe, negative_weight) if dtype == torch.float16 else 1.0
    # What all slopes share is left to the products, which multiply by it for nothing.
    factor = recipe.loss_weight / max(batch_size, 1)
    alpha = factor / boost

    x_gradient = torch.zeros_like(x) if embeddings_gradient else x.new_empty(0)
    w_gradient = reused_empty(weight, *weight.shape) if weight_gradient else weight.new_empty(0)
    height = min(chunk_size, num_classes)
    spare = reused_empty(weight, height, weight.shape[1]) if sgd else None
    loss_dtype = x.dtype
    x = x.to(dtype)
    parts = pointwise(
        x,
        weight,
        labels,
        bias,
        recipe,
        negative_weight=negative_weight,
        chunk_size=chunk_size,
        boost=boost,
    )
    for start in range(0, num_classes, chunk_size):
        rows = weight[start : start + chunk_size]
        w, lengths, slopes = parts.chunk(start)
        if embeddings_gradient:
            multiply(slopes.T, w, out=x_gradient, alpha=alpha, beta=1.0)
        if weight_gradient or spare is not None:
            gradient = w_gradient[start : start + chunk_size] if spare is None else spare[: len(w)]
            multiply(slopes, x, out=gradient, alpha=alpha)
            if recipe.weight_norm == "in_graph":
                parts.project_rows_(gradient, rows, lengths)
        if sgd:
            buffer = sgd.momentum_buffer
            part = None if buffer is None else buffer[start : start + chunk_size]
            parts.step_rows_(rows, gradient, part, sgd)

    loss, bias_gradient = (total * (factor / recipe.scale) for total in parts.totals())
    return Sweep(
        loss.to(loss_dtype),
        x_gradient,
        w_gradient,
        bias_gradient.to(bias.dtype).reshape(bias.shape),
    )


@cache
def _report_full_precision(wanted: torch.dtype) -> None:
    logger.warning(
        "SphereFace2 multiplies in float32 where autocast wants %s: adding such products up in "
        "float32 needs torch 2.10, and this is %s",
        wanted,
        torch.__version__,
    )
