"""The head's products in half precision as on a GPU, on a CPU.

On a GPU the engine rounds the factors of each product and adds up in float32. A CPU would round the
sums too, so the engine multiplies in float32 there; this rounds the factors, and nothing else. (For
a face's own cosine, which is no product of matrices, a GPU rounds the class center too.)
"""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor

from sf2_plugin.engine import op
from sf2_plugin.engine.sweep import Sweep, float16_boost, sweep
from sf2_plugin.patching import replaced


@contextmanager
def rounded_products(dtype: torch.dtype) -> Iterator[None]:
    """Within, the factors of the head's products are rounded to `dtype`."""

    def rounded(factor: Tensor) -> Tensor:
        return factor.to(dtype).to(factor.dtype)

    def sweep_of_rounded(x: Tensor, *rest: Any, negative_weight: float, **options: Any) -> Sweep:
        *inputs, recipe, pointwise = rest
        boost = float16_boost(recipe, negative_weight) if dtype == torch.float16 else 1.0

        class Rounded(pointwise):
            def unit_rows_(self, rows: Tensor) -> tuple[Tensor, Tensor]:
                unit, lengths = super().unit_rows_(rows)
                return rounded(unit), lengths

            def slopes_(self, z: Tensor, start: int) -> Tensor:
                return rounded(super().slopes_(z, start) * boost) / boost

        return sweep(
            rounded(x), *inputs, recipe, Rounded, negative_weight=negative_weight, **options
        )

    with replaced(op, "sweep", sweep_of_rounded):
        yield
