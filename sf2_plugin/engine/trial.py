"""What "auto" asks of a kernel before it relies on it: a small case, against the plain engine."""

import logging
from functools import cache
from typing import Any

import torch
from torch import Tensor

from ..compat import allows_tf32
from ..definition import unit
from ..recipe import Recipe
from .backends import pointwise_of
from .sweep import Sweep, sweep

#: Faces, classes and classes a chunk: several tiles and chunks, some whole, some with a rest.
FACES, CLASSES, CHUNK = 160, 520, 300

#: The plain engine, which takes over.
PLAIN = "chunked"

logger = logging.getLogger("sf2_plugin")


def proven(
    backend: str, device: torch.device, dtype: torch.dtype, recipe: Recipe, size: int
) -> str:
    """`backend` where its answers on `device` are right, and otherwise "chunked", which is logged.

    Tried once a process for each way in which kernels are compiled, in milliseconds beside the
    compilation, which the first step needs anyway.

    Args:
        dtype: of the products' factors.
        size: of an embedding.
    """
    if backend == PLAIN or (device.type == "cuda" and torch.cuda.is_current_stream_capturing()):
        return backend  # A CUDA graph records what a step before it has tried.
    compiled_for = Recipe.from_preset(
        margin_type=recipe.margin_type,
        gradient=recipe.gradient,
        weight_norm=recipe.weight_norm,
        t=recipe.t,
        interclass_filtering_threshold=0.3 * (recipe.interclass_filtering_threshold > 0),
    )
    return _proven(backend, device, dtype, compiled_for, size, allows_tf32())


@cache
def _proven(
    backend: str, device: torch.device, dtype: torch.dtype, recipe: Recipe, size: int, tf32: bool
) -> str:
    try:
        fault = _fault(backend, device, dtype, recipe, size, tf32)
    except Exception as error:
        fault = f"{type(error).__name__}: {error}".splitlines()[0]
    if not fault:
        return backend
    logger.warning(
        "SphereFace2's backend %r does not work on %s, and %r takes its place (%s). Please report "
        "this line and what sf2 doctor says at https://github.com/sf2-plugin/sf2-plugin/issues",
        backend,
        device,
        PLAIN,
        fault,
    )
    return PLAIN


def _fault(
    backend: str, device: torch.device, dtype: torch.dtype, recipe: Recipe, size: int, tf32: bool
) -> str | None:
    """What of the small case's answers is wrong, or None."""
    generator = torch.Generator().manual_seed(0)
    # Whatever the default device and dtype are.
    drawn: dict[str, Any] = dict(generator=generator, device="cpu", dtype=torch.float32)
    weight = torch.randn(CLASSES, size, **drawn)
    x = torch.randn(FACES, size, **drawn)
    labels = torch.randint(-1, CLASSES, (FACES,), generator=generator, device="cpu")
    x = unit(x + weight[labels])
    x, weight, labels = x.to(device), weight.to(device), labels.to(device)
    bias = torch.full((1,), -4.0, device=device, dtype=torch.float32)

    def answers(backend: str) -> Sweep:
        return sweep(
            x,
            weight.clone(),
            labels,
            bias,
            recipe,
            pointwise_of(backend),
            product_dtype=dtype,
            chunk_size=CHUNK,
        )

    rounding = 2.0**-11 if dtype == torch.float32 and tf32 else torch.finfo(dtype).eps
    tolerance = max(8 * rounding, 1e-5)
    for name, actual, expected in zip(Sweep._fields, answers(backend), answers(PLAIN), strict=True):
        error = _relative_error(actual, expected)
        if not error <= tolerance:
            return f"{name} differs by {error:.1e} from {PLAIN!r}, in {dtype}"
    return None


def _relative_error(actual: Tensor, expected: Tensor) -> float:
    """The largest, by the largest value."""
    return ((actual - expected).abs().max() / expected.abs().max()).item()
