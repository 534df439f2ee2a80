"""The pointwise parts of the sweep as Triton kernels, one launch each, for NVIDIA GPUs.

With TRITON_INTERPRET=1 in the environment they run on a CPU, slowly, for tests. The mathematics is
that of `sf2_plugin.definition`, in float32 whatever the products' dtype. The host never waits for
the device, and sums are taken in a fixed order: the same input gives the same bits.
"""

import math
from typing import Any

import torch
import triton
import triton.language as tl
from torch import Tensor

from .pointwise import Pointwise
from .sgd import SGDStep

#: Elements that one program works on: a handful for each of its 128 threads.
TILE = 2048


class TritonPointwise(Pointwise):
    """`Pointwise` in fused kernels."""

    def __init__(
        self, x: Tensor, weight: Tensor, *args: Any, chunk_size: int, **kwargs: Any
    ) -> None:
        super().__init__(x, weight, *args, chunk_size=chunk_size, **kwargs)
        if not weight.is_contiguous():
            raise ValueError('class centers must be contiguous in memory for backend "triton"')
        self.labels = self.labels.contiguous()
        self.faces = min(triton.next_power_of_2(max(len(x), 1)), 128)
        self.classes = max(TILE // self.faces, 1)
        self.tiles_of_faces = triton.cdiv(len(x), self.faces)
        tiles = self.tiles_of_faces * triton.cdiv(min(chunk_size, len(weight)), self.classes)
        self.sums = x.new_zeros(2, tiles, dtype=torch.float64)
        self.largest = torch.finfo(x.dtype).max

    def unit_rows_(self, rows: Tensor) -> tuple[Tensor, Tensor]:
        in_place = self.recipe.weight_norm == "in_place"
        unit = rows
        if not in_place or rows.dtype != self.x.dtype:
            unit = torch.empty_like(rows, dtype=self.x.dtype)
        lengths = rows.new_empty(len(rows), 1, dtype=torch.float32)
        grid, tile = _row_tiles(rows)
        _unit_rows[grid](rows, unit, lengths, *rows.shape, IN_PLACE=in_place, **tile)
        return unit, lengths

    def project_rows_(self, gradient: Tensor, rows: Tensor, lengths: Tensor) -> None:
        grid, tile = _row_tiles(rows)
        _project_rows[grid](gradient, rows, lengths, *rows.shape, **tile)

    def slopes_(self, z: Tensor, start: int) -> Tensor:
        recipe, margin = self.recipe, self.recipe.margin
        slopes = z if z.dtype == self.x.dtype else torch.empty_like(z, dtype=self.x.dtype)
        whole = recipe.t == int(recipe.t)
        tiles = self.tiles_of_faces * triton.cdiv(len(z), self.classes)
        _slopes[(tiles,)](
            z,
            slopes,
            self.labels,
            self.bias,
            *self.sums,
            start,
            *z.shape,
            float(recipe.scale),
            float(margin),
            math.cos(margin),
            math.sin(margin),
            float(recipe.t),
            float(recipe.lam),
            (1.0 - recipe.lam) * self.negative_weight,
            float(recipe.interclass_filtering_threshold),
            self.boost,
            self.largest,
            MARGIN_TYPE=recipe.margin_type,
            WHOLE_T=int(recipe.t) if whole else 0,
            EXACT=recipe.gradient == "exact",
            FILTER=recipe.interclass_filtering_threshold > 0,
            CLASSES=self.classes,
            FACES=self.faces,
        )
        return slopes

    def step_rows_(
        self, rows: Tensor, gradient: Tensor, momentum_buffer: Tensor | None, step: SGDStep
    ) -> None:
        _step_rows[(triton.cdiv(rows.numel(), TILE),)](
            rows,
            gradient,
            momentum_buffer,
            rows.numel(),
            step.lr,
            float(step.momentum),
            float(step.weight_decay),
            TILE=TILE,
        )

    def totals(self) -> tuple[Tensor, Tensor]:
        loss, logit_slope = self.sums.sum(dim=1)
        return loss, logit_slope


def scale_(tensor: Tensor, factor: Tensor) -> Tensor:
    """tensor *= factor, a scalar on the device; where it is one, `tensor` is left untouched."""
    _scale[(triton.cdiv(tensor.numel(), TILE),)](tensor, factor, tensor.numel(), TILE=TILE)
    return tensor


def _row_tiles(rows: Tensor) -> tuple[tuple[int], dict[str, int]]:
    """The grid and the tile of a kernel whose programs each take a few whole rows."""
    width = triton.next_power_of_2(rows.shape[1])
    height = max(TILE // width, 1)
    return (triton.cdiv(len(rows), height),), {"HEIGHT": height, "WIDTH": width}


@triton.jit(do_not_specialize=["count"])
def _unit_rows(
    rows,
    unit,
    lengths,
    count,
    size,
    IN_PLACE: tl.constexpr,
    HEIGHT: tl.constexpr,
    WIDTH: tl.constexpr,
):
    row = tl.program_id(0) * HEIGHT + tl.arange(0, HEIGHT)
    column = tl.arange(0, WIDTH)
    at = row[:, None].to(tl.int64) * size + column[None, :]
    inside = (row < count)[:, None] & (column < size)[None, :]
    values = tl.load(rows + at, mask=inside, other=0.0).to(tl.float32)
    length = tl.sqrt(tl.sum(values * values, axis=1))
    length = tl.where(length == 0, 1.0, length)
    values = values / length[:, None]
    if IN_PLACE:
        stored = values.to(rows.dtype.element_ty)
        tl.store(rows + at, stored, mask=inside)
        values = stored.to(tl.float32)
    if unit.dtype != rows.dtype or not IN_PLACE:
        tl.store(unit + at, values.to(unit.dtype.element_ty), mask=inside)
    tl.store(lengths + row, length, mask=row < count)


@triton.jit(do_not_specialize=["count"])
def _project_rows(gradient, rows, lengths, count, size, HEIGHT: tl.constexpr, WIDTH: tl.constexpr):
    row = tl.program_id(0) * HEIGHT + tl.arange(0, HEIGHT)
    column = tl.arange(0, WIDTH)
    at = row[:, None].to(tl.int64) * size + column[None, :]
    inside = (row < count)[:, None] & (column < size)[None, :]
    length = tl.load(lengths + row, mask=row < count, other=1.0)[:, None]
    unit = tl.load(rows + at, mask=inside, other=0.0).to(tl.float32) / length
    slope = tl.load(gradient + at, mask=inside, other=0.0).to(tl.float32)
    along = tl.sum(slope * unit, axis=1)[:, None]
    projected = (slope - along * unit) / length
    tl.store(gradient + at, projected.to(gradient.dtype.element_ty), mask=inside)


@triton.jit(do_not_specialize=["count"])
def _step_rows(
    rows, gradient, momentum_buffer, count, lr, momentum, weight_decay, TILE: tl.constexpr
):
    at = tl.program_id(0).to(tl.int64) * TILE + tl.arange(0, TILE)
    inside = at < count
    values = tl.load(rows + at, mask=inside, other=0.0).to(tl.float32)
    change = tl.load(gradient + at, mask=inside, other=0.0).to(tl.float32)
    change = tl.where(tl.abs(change) < float("inf"), change, 0.0) + weight_decay * values
    if momentum_buffer is not None:
        change += momentum * tl.load(momentum_buffer + at, mask=inside, other=0.0).to(tl.float32)
        tl.store(momentum_buffer + at, change.to(momentum_buffer.dtype.element_ty), mask=inside)
    values -= lr * change
    tl.store(rows + at, values.to(rows.dtype.element_ty), mask=inside)


@triton.jit
def _scale(tensor, factor, count, TILE: tl.constexpr):
    by = tl.load(factor)
    if by != 1:
        at = tl.program_id(0).to(tl.int64) * TILE + tl.arange(0, TILE)
        values = tl.load(tensor + at, mask=at < count)
        tl.store(tensor + at, (values * by).to(tensor.dtype.element_ty), mask=at < count)


# A chunk's place and number of classes change within a sweep and must not cost a compilation.
@triton.jit(do_not_specialize=["start", "num_classes"])
def _slopes(
    z_chunk,
    slopes,
    labels,
    bias,
    losses,
    logit_slopes,
    start,
    num_classes,
    num_faces,
    scale,
    margin,
    cos_m,
    sin_m,
    t,
    positive_weight,
    negative_weight,
    threshold,
    boost,
    largest,
    MARGIN_TYPE: tl.constexpr,
    WHOLE_T: tl.constexpr,
    EXACT: tl.constexpr,
    FILTER: tl.constexpr,
    CLASSES: tl.constexpr,
    FACES: tl.constexpr,
):
    tile = tl.program_id(0)
    tiles_of_faces = tl.cdiv(num_faces, FACES)
    row = tile // tiles_of_faces * CLASSES + tl.arange(0, CLASSES)
    face = tile % tiles_of_faces * FACES + tl.arange(0, FACES)
    inside = (row < num_classes)[:, None] & (face < num_faces)[None, :]
    at = row[:, None].to(tl.int64) * num_faces + face[None, :]
    z = tl.load(z_chunk + at, mask=inside, other=0.0)
    own = (row + start)[:, None] == tl.load(labels + face, mask=face < num_faces, other=-1)[None, :]
    b = tl.load(bias).to(tl.float32)

    phi, slope = _negative(z, margin, cos_m, sin_m, t, MARGIN_TYPE, WHOLE_T)
    logit = scale * phi + b
    weight = tl.where(inside, negative_weight, 0.0)
    if FILTER:
        weight = tl.where(z > threshold, 0.0, weight)
    if tl.max(own.to(tl.int32)) > 0:
        phi_own, slope_own = _positive(z, margin, cos_m, sin_m, t, MARGIN_TYPE, WHOLE_T)
        # A positive's term is a negative's with the logit's sign turned.
        logit = tl.where(own, -(scale * phi_own + b), logit)
        slope = tl.where(own, slope_own, slope)
        weight = tl.where(own & inside, -positive_weight, weight)

    loss, push = _softplus(logit)
    push = push * weight
    tl.store(losses + tile, tl.load(losses + tile) + tl.sum(loss * tl.abs(weight)))
    tl.store(logit_slopes + tile, tl.load(logit_slopes + tile) + tl.sum(push))

    push = push * boost
    if EXACT:
        push = push * slope
    push = tl.where(push > largest, largest, tl.where(push < -largest, -largest, push))
    tl.store(slopes + at, push.to(slopes.dtype.element_ty), mask=inside)


@triton.jit
def _softplus(x):
    """log(1 + e^x) and its slope, without overflow and without losing what is small."""
    e = tl.exp(-tl.abs(x))
    # log(1 + e) = 2 artanh(e / (2 + e)), as a series whose argument is at most 1/3.
    s = e / (2 + e)
    q = s * s
    series = 1 / 13 * q + 1 / 11
    series = series * q + 1 / 9
    series = series * q + 1 / 7
    series = series * q + 1 / 5
    series = series * q + 1 / 3
    series = series * q + 1
    return tl.where(x > 0, x, 0.0) + 2 * s * series, tl.where(x > 0, 1.0, e) / (1 + e)


@triton.jit
def _g(u, t, WHOLE_T: tl.constexpr):
    """Similarity adjustment 2((u + 1)/2)^t - 1, and its slope."""
    half = (u + 1) * 0.5
    if WHOLE_T:
        power = tl.full(half.shape, 1.0, tl.float32)
        for _ in tl.static_range(WHOLE_T - 1):
            power = power * half
    else:
        half = tl.where(half < 0, 0.0, half)
        power = tl.exp2((t - 1) * tl.log2(half))
    return 2 * power * half - 1, t * power


@triton.jit
def _sine(z):
    """The sine of the angle whose cosine is `z`, and its inverse, taken as 0 at the poles."""
    square = (1 - z) * (1 + z)
    away = square > 0
    sine = tl.sqrt(tl.where(away, square, 0.0))
    return sine, tl.where(away, 1 / tl.where(away, sine, 1.0), 0.0)


@triton.jit
def _angle(z):
    """arccos(z), to 2e-8 (Abramowitz and Stegun, 4.4.46)."""
    x = tl.abs(z)
    series = -0.0012624911 * x + 0.0066700901
    series = series * x - 0.0170881256
    series = series * x + 0.0308918810
    series = series * x - 0.0501743046
    series = series * x + 0.0889789874
    series = series * x - 0.2145988016
    series = series * x + 1.5707963050
    theta = tl.sqrt(1 - x) * series
    return tl.where(z < 0, 3.14159265358979 - theta, theta)


@triton.jit
def _clamped(z):
    return tl.where(z > 1, 1.0, tl.where(z < -1, -1.0, z))


@triton.jit
def _negative(z, margin, cos_m, sin_m, t, MARGIN_TYPE: tl.constexpr, WHOLE_T: tl.constexpr):
    """phi- and its slope by the cosine `z`."""
    if MARGIN_TYPE == "A2":  # cos(theta - m)
        z = _clamped(z)
        sine, inverse = _sine(z)
        phi, slope = _g(z * cos_m + sine * sin_m, t, WHOLE_T)
        slope = tl.where(inverse > 0, slope * (cos_m - sin_m * z * inverse), 0.0)
    else:
        phi, slope = _g(z, t, WHOLE_T)
        if MARGIN_TYPE == "C":
            phi = phi + margin
    return phi, slope


@triton.jit
def _positive(z, margin, cos_m, sin_m, t, MARGIN_TYPE: tl.constexpr, WHOLE_T: tl.constexpr):
    """phi+ and its slope by the cosine `z`."""
    if MARGIN_TYPE == "C":
        phi, slope = _g(z, t, WHOLE_T)
        phi = phi - margin
    else:
        cosine = _clamped(z)
        sine, inverse = _sine(cosine)
        if MARGIN_TYPE == "M":
            turned = margin * _angle(cosine)
            inner = turned < 3.14159265358979
            u = tl.cos(turned)
            u_slope = margin * tl.sin(turned) * inverse
        else:
            inner = z > -cos_m
            u = cosine * cos_m - sine * sin_m  # cos(theta + m)
            u_slope = (sine * cos_m + cosine * sin_m) * inverse
        if MARGIN_TYPE == "A2":
            u = tl.where(inner, u, z - 1 + cos_m)
            u_slope = tl.where(inner, u_slope, 1.0)
        else:
            u = tl.where(inner, u, -1.0)
            u_slope = tl.where(inner, u_slope, 0.0)
        phi, slope = _g(u, t, WHOLE_T)
        slope = slope * u_slope
    return phi, slope
