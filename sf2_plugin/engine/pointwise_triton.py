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

#: And of the slopes' kernel, whose programs have more to do before and after.
SLOPES_TILE = 4096

#: Programs that share the scaling of a tensor: enough for any GPU, and few to start where the
#: factor turns out to be one and there is nothing to do.
SCALE_PROGRAMS = 4096

LOG2_E = tl.constexpr(math.log2(math.e))


class TritonPointwise(Pointwise):
    """`Pointwise` in fused kernels."""

    margin_types = ("C", "A", "M", "A2")

    def __init__(
        self, x: Tensor, weight: Tensor, *args: Any, chunk_size: int, **kwargs: Any
    ) -> None:
        super().__init__(x, weight, *args, chunk_size=chunk_size, **kwargs)
        if not weight.is_contiguous():
            raise ValueError(
                'weight must be contiguous in memory for backend "triton", got strides '
                f"{weight.stride()}"
            )
        recipe, margin = self.recipe, self.recipe.margin
        faces, size = x.shape
        chunk = min(chunk_size, len(weight))
        self.labels = self.labels.contiguous()
        # Launching costs the host time, so what every chunk needs is made here, once.
        self.in_place = recipe.weight_norm == "in_place"
        self.unit = None
        if not self.in_place or weight.dtype != x.dtype:
            self.unit = x.new_empty(chunk, size)
        self.lengths = x.new_empty(chunk, 1, dtype=torch.float32)
        self.slopes = None if x.dtype == torch.float32 else x.new_empty(chunk, faces)
        width = _power_of_2(size)
        self.row_tile = {"HEIGHT": max(TILE // width, 1), "WIDTH": width}
        self.tile = self._tile(faces)
        self.tiles_of_faces = -(-faces // self.tile["FACES"])
        tiles = self.tiles_of_faces * -(-chunk // self.tile["CLASSES"])
        self.losses, self.logit_slopes = x.new_zeros(2, tiles, dtype=torch.float64)
        scale = recipe.scale * LOG2_E.value
        stretch = (2 * scale) ** (1 / recipe.t) / 2
        lift = margin if recipe.margin_type == "C" else 0.0
        self.numbers = (
            stretch,
            recipe.t,
            recipe.t / (2 * stretch) ** (recipe.t - 1),
            scale * (lift - 1),
            scale * (-lift - 1),
            margin,
            math.cos(margin),
            math.sin(margin),
            recipe.lam * self.boost,
            (1.0 - recipe.lam) * self.negative_weight * self.boost,
            recipe.interclass_filtering_threshold,
            torch.finfo(x.dtype).max,
        )
        self.choices = {
            "MARGIN_TYPE": recipe.margin_type,
            "WHOLE_T": int(recipe.t) if recipe.t == int(recipe.t) else 0,
            "EXACT": recipe.gradient == "exact",
            "FILTER": recipe.interclass_filtering_threshold > 0,
            "CLAMP": x.dtype == torch.float16,
            **self.tile,
        }

    def _tile(self, faces: int) -> dict[str, int]:
        """Classes and faces of a program of the slopes' kernel."""
        width = min(_power_of_2(faces), 128)
        return {"CLASSES": SLOPES_TILE // width, "FACES": width}

    def unit_rows_(self, rows: Tensor) -> tuple[Tensor, Tensor]:
        unit = rows if self.unit is None else self.unit[: len(rows)]
        lengths = self.lengths[: len(rows)]
        _unit_rows[self._row_grid(rows)](
            rows, unit, lengths, *rows.shape, IN_PLACE=self.in_place, **self.row_tile
        )
        return unit, lengths

    def project_rows_(self, gradient: Tensor, rows: Tensor, lengths: Tensor) -> None:
        _project_rows[self._row_grid(rows)](gradient, rows, lengths, *rows.shape, **self.row_tile)

    def slopes_(self, z: Tensor, start: int) -> Tensor:
        slopes = z if self.slopes is None else self.slopes[: len(z)]
        _slopes[(self.tiles_of_faces * -(-len(z) // self.tile["CLASSES"]),)](
            z,
            slopes,
            self.labels,
            self.bias,
            self.losses,
            self.logit_slopes,
            start,
            *z.shape,
            *self.numbers,
            **self.choices,
        )
        return slopes

    def step_rows_(
        self, rows: Tensor, gradient: Tensor, momentum_buffer: Tensor | None, step: SGDStep
    ) -> None:
        _step_rows[(-(-rows.numel() // TILE),)](
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
        loss, logit_slope = self.losses.sum(), self.logit_slopes.sum()
        return loss / (self.boost * LOG2_E.value), logit_slope / self.boost

    @staticmethod
    def scale_(tensor: Tensor, factor: Tensor) -> Tensor:
        # The factor is looked at on the device; where it is one, `tensor` is left untouched.
        programs = min(-(-tensor.numel() // TILE), SCALE_PROGRAMS)
        _scale[(programs,)](tensor, factor, tensor.numel(), TILE=TILE)
        return tensor

    def _row_grid(self, rows: Tensor) -> tuple[int]:
        """The grid of a kernel whose programs each take a few whole rows."""
        return (-(-len(rows) // self.row_tile["HEIGHT"]),)


def _power_of_2(size: int) -> int:
    """The smallest power of two that is at least `size`."""
    return 1 << max(size - 1, 0).bit_length()


# Long lists of parameters are set like prose.
# fmt: off


@triton.jit(do_not_specialize=["count"])
def _unit_rows(
    rows, unit, lengths, count, size,
    IN_PLACE: tl.constexpr, HEIGHT: tl.constexpr, WIDTH: tl.constexpr,
):
    first = tl.program_id(0) * HEIGHT
    unit_rows_from(first, rows, unit, lengths, count, size, IN_PLACE, HEIGHT, WIDTH)


@triton.jit
def unit_rows_from(
    first, rows, unit, lengths, count, size,
    IN_PLACE: tl.constexpr, HEIGHT: tl.constexpr, WIDTH: tl.constexpr,
):
    """A few rows from `first` on at length one, and their lengths."""
    row = first + tl.arange(0, HEIGHT)
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


# fmt: on


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


@triton.jit
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
        first = tl.program_id(0).to(tl.int64) * TILE
        for start in range(first, count, tl.num_programs(0) * TILE):
            at = start + tl.arange(0, TILE)
            values = tl.load(tensor + at, mask=at < count)
            tl.store(tensor + at, (values * by).to(tensor.dtype.element_ty), mask=at < count)


# fmt: off


# A chunk's place and number of classes change within a sweep and must not cost a compilation.
@triton.jit(do_not_specialize=["start", "num_classes"])
def _slopes(
    z_chunk, slopes, labels, bias, losses, logit_slopes, start, num_classes, num_faces,
    stretch, t, steepness, shift, own_shift, margin, cos_m, sin_m,
    positive_weight, negative_weight, threshold, largest,
    MARGIN_TYPE: tl.constexpr, WHOLE_T: tl.constexpr, EXACT: tl.constexpr, FILTER: tl.constexpr,
    CLAMP: tl.constexpr, CLASSES: tl.constexpr, FACES: tl.constexpr,
):
    tile = tl.program_id(0)
    tiles_of_faces = tl.cdiv(num_faces, FACES)
    first_class = tile // tiles_of_faces * CLASSES
    first_face = tile % tiles_of_faces * FACES
    row = first_class + tl.arange(0, CLASSES)
    face = first_face + tl.arange(0, FACES)
    inside = (row < num_classes)[:, None] & (face < num_faces)[None, :]
    z = tl.load(
        z_chunk + row[:, None].to(tl.int64) * num_faces + face[None, :], mask=inside, other=0.0
    )
    slopes_of_tile(
        z, tile, first_class, first_face,
        slopes, labels, bias, losses, logit_slopes, start, num_classes, num_faces,
        stretch, t, steepness, shift, own_shift, margin, cos_m, sin_m,
        positive_weight, negative_weight, threshold, largest,
        MARGIN_TYPE, WHOLE_T, EXACT, FILTER, CLAMP, CLASSES, FACES,
    )


@triton.jit
def slopes_of_tile(
    z, tile, first_class, first_face,
    slopes, labels, bias, losses, logit_slopes, start, num_classes, num_faces,
    stretch, t, steepness, shift, own_shift, margin, cos_m, sin_m,
    positive_weight, negative_weight, threshold, largest,
    MARGIN_TYPE: tl.constexpr, WHOLE_T: tl.constexpr, EXACT: tl.constexpr, FILTER: tl.constexpr,
    CLAMP: tl.constexpr, CLASSES: tl.constexpr, FACES: tl.constexpr,
):
    """Slopes of a tile of cosines `z`, stored; its terms and their slopes by the bias, added up.

    Nearly all tiles lie wholly inside the chunk and hold no face's own class. For those the kernel
    has a way of its own, which pays for neither.
    """
    face = first_face + tl.arange(0, FACES)
    own_row = (tl.load(labels + face, mask=face < num_faces, other=-1) - start).to(tl.int32)
    own_row -= first_class
    plain = (first_class + CLASSES <= num_classes) & (first_face + FACES <= num_faces)
    plain &= tl.max(((own_row >= 0) & (own_row < CLASSES)).to(tl.int32), axis=0) == 0
    if plain:
        _terms_of_tile(
            z, tile, first_class, first_face,
            slopes, own_row, bias, losses, logit_slopes, start, num_classes, num_faces,
            stretch, t, steepness, shift, own_shift, margin, cos_m, sin_m,
            positive_weight, negative_weight, threshold, largest,
            MARGIN_TYPE, WHOLE_T, EXACT, FILTER, CLAMP, CLASSES, FACES, True,
        )
    else:
        _terms_of_tile(
            z, tile, first_class, first_face,
            slopes, own_row, bias, losses, logit_slopes, start, num_classes, num_faces,
            stretch, t, steepness, shift, own_shift, margin, cos_m, sin_m,
            positive_weight, negative_weight, threshold, largest,
            MARGIN_TYPE, WHOLE_T, EXACT, FILTER, CLAMP, CLASSES, FACES, False,
        )


@triton.jit
def _terms_of_tile(
    z, tile, first_class, first_face,
    slopes, own_row, bias, losses, logit_slopes, start, num_classes, num_faces,
    stretch, t, steepness, shift, own_shift, margin, cos_m, sin_m,
    positive_weight, negative_weight, threshold, largest,
    MARGIN_TYPE: tl.constexpr, WHOLE_T: tl.constexpr, EXACT: tl.constexpr, FILTER: tl.constexpr,
    CLAMP: tl.constexpr, CLASSES: tl.constexpr, FACES: tl.constexpr, PLAIN: tl.constexpr,
):
    row = tl.arange(0, CLASSES)
    face = first_face + tl.arange(0, FACES)
    inside = (row < num_classes - first_class)[:, None] & (face < num_faces)[None, :]
    own = inside & (row[:, None] == own_row[None, :])
    offset = tl.load(bias).to(tl.float32) * LOG2_E

    # Logits and losses to the base of two, which is what the hardware's exponential takes.
    power, slope = _negative(z, stretch, t, steepness, cos_m, sin_m, MARGIN_TYPE, WHOLE_T)
    u = power + (offset + shift)
    if FILTER:
        u = tl.where(z > threshold, -float("inf"), u)
    if not PLAIN:
        u = tl.where(inside & (row[:, None] != own_row[None, :]), u, -float("inf"))
    loss, push = _negatives(u, negative_weight)
    logit_slope = tl.sum(push)
    if EXACT:
        push = push * slope

    if not PLAIN:  # A face has one class of its own: its positives are as few as the faces.
        z_own = tl.sum(tl.where(own, z, 0.0), axis=0)
        mine = tl.max(own.to(tl.int32), axis=0) > 0
        power_own, slope_own = _positive(
            z_own, stretch, t, steepness, margin, cos_m, sin_m, MARGIN_TYPE, WHOLE_T
        )
        # A positive's term is a negative's with the logit's sign turned.
        v = -(power_own + (offset + own_shift))
        e = tl.exp2(-tl.abs(v))
        pull = -positive_weight * tl.where(v > 0, 1.0, e) / (1.0 + e)
        loss_own = tl.where(v > 0, v, 0.0) + _log2_1p(e)
        loss += positive_weight * tl.sum(tl.where(mine, loss_own, 0.0))
        logit_slope += tl.sum(tl.where(mine, pull, 0.0))
        if EXACT:
            pull = pull * slope_own
        push = tl.where(own, pull[None, :], push)

    tl.store(losses + tile, tl.load(losses + tile) + loss)
    tl.store(logit_slopes + tile, tl.load(logit_slopes + tile) + logit_slope)
    if CLAMP:
        push = tl.where(push > largest, largest, tl.where(push < -largest, -largest, push))
    at = (first_class + row)[:, None].to(tl.int64) * num_faces + face[None, :]
    if PLAIN:
        tl.store(slopes + at, push.to(slopes.dtype.element_ty))
    else:
        tl.store(slopes + at, push.to(slopes.dtype.element_ty), mask=inside)


# fmt: on


@triton.jit
def _negatives(u, weight):
    """Sum of weight * log2(1 + 2^u), and the terms' slopes, without losing what is small.

    log2(1 + 2^u) = max(u, 0) + log2(1 + e) with e = 2^-|u|; a logarithm serves four elements, of
    the product of their 1 + e.
    """
    e = tl.exp2(-tl.abs(u))
    # weight / (1 + e), by what the hardware has for it: a division takes several times as long.
    d = e * (1.0 / weight) + 1.0 / weight
    r = tl.rsqrt(d * d)
    push = tl.where(u > 0, r, e * r)
    loss = tl.sum(tl.where(u > 0, u, 0.0)) + tl.sum(_log2_1p_of_fours(e))
    return loss * weight, push


@triton.jit
def _log2_1p_of_fours(e):
    """log2((1 + a)(1 + b)(1 + c)(1 + d)) of every four neighbours, each from 0 to 1."""
    CLASSES: tl.constexpr = e.shape[0]
    FACES: tl.constexpr = e.shape[1]
    if FACES % 4 == 0:
        a, b = tl.split(tl.reshape(e, (CLASSES, FACES // 2, 2)))
        p = a + (b + a * b)
        a, b = tl.split(tl.reshape(p, (CLASSES, FACES // 4, 2)))
        p = a + (b + a * b)
        # 1 + p = 2^k (1 + f). Below two, f is p itself, of which 1 + p might have lost most.
        bits = (1.0 + p).to(tl.int32, bitcast=True)
        k = ((bits >> 23) - 127).to(tl.float32)
        f = ((bits & 0x7FFFFF) | 0x3F800000).to(tl.float32, bitcast=True) - 1.0
        log = k + _log2_1p(tl.where(p >= 1, f, p))
    else:
        log = _log2_1p(e)
    return log


@triton.jit
def _log2_1p(e):
    """log2(1 + e) of e from 0 to 1."""
    # log2(1 + e) / e on [0, 1], to 3e-8: the minimax polynomial in relative error. A logarithm of
    # 1 + e would lose most of a small e, as those of nearly all classes are.
    log = 0.007549179816284866 * e - 0.04256705265111128
    log = log * e + 0.11285617816439028
    log = log * e - 0.19711895705012455
    log = log * e + 0.2756414061881526
    log = log * e - 0.3584084709057741
    log = log * e + 0.4806929571224596
    log = log * e - 0.7213402079981908
    return (log * e + 1.442694997434284) * e


@triton.jit
def _power(u, stretch, t, steepness, WHOLE_T: tl.constexpr):
    """scale * (g(u) + 1) to the base of two, and the slope of g by u.

    With g(u) + 1 = 2((u + 1)/2)^t this is h^t of h = stretch * (u + 1), and the slope is
    steepness * h^(t - 1).
    """
    h = u * stretch + stretch
    if WHOLE_T:
        power = tl.full(h.shape, 1.0, tl.float32)
        for _ in tl.static_range(WHOLE_T - 1):
            power = power * h
    else:
        h = tl.where(h < 0, 0.0, h)
        power = tl.exp2((t - 1) * tl.log2(h))
    return power * h, steepness * power


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
def _negative(
    z, stretch, t, steepness, cos_m, sin_m, MARGIN_TYPE: tl.constexpr, WHOLE_T: tl.constexpr
):
    """scale * (g + 1) of phi- to the base of two, and the slope of phi- by the cosine `z`."""
    if MARGIN_TYPE == "C" or MARGIN_TYPE == "A" or MARGIN_TYPE == "M":
        power, slope = _power(z, stretch, t, steepness, WHOLE_T)
    elif MARGIN_TYPE == "A2":  # cos(theta - m)
        z = _clamped(z)
        sine, inverse = _sine(z)
        power, slope = _power(z * cos_m + sine * sin_m, stretch, t, steepness, WHOLE_T)
        slope = tl.where(inverse > 0, slope * (cos_m - sin_m * z * inverse), 0.0)
    else:
        tl.static_assert(False, "no phi- for this margin type")
    return power, slope


@triton.jit
def _positive(
    z, stretch, t, steepness, margin, cos_m, sin_m, MARGIN_TYPE: tl.constexpr, WHOLE_T: tl.constexpr
):
    """scale * (g + 1) of phi+ to the base of two, and the slope of phi+ by the cosine `z`."""
    if MARGIN_TYPE == "C":
        power, slope = _power(z, stretch, t, steepness, WHOLE_T)
    elif MARGIN_TYPE == "M":
        cosine = _clamped(z)
        _, inverse = _sine(cosine)
        turned = margin * _angle(cosine)
        inner = turned < 3.14159265358979
        u = tl.where(inner, tl.cos(turned), -1.0)
        power, slope = _power(u, stretch, t, steepness, WHOLE_T)
        slope = slope * tl.where(inner, margin * tl.sin(turned) * inverse, 0.0)
    elif MARGIN_TYPE == "A":
        u, u_slope = _added_angle(z, cos_m, sin_m)
        inner = z > -cos_m
        power, slope = _power(tl.where(inner, u, -1.0), stretch, t, steepness, WHOLE_T)
        slope = slope * tl.where(inner, u_slope, 0.0)
    elif MARGIN_TYPE == "A2":
        u, u_slope = _added_angle(z, cos_m, sin_m)
        inner = z > -cos_m
        u = tl.where(inner, u, z - 1 + cos_m)
        power, slope = _power(u, stretch, t, steepness, WHOLE_T)
        slope = slope * tl.where(inner, u_slope, 1.0)
    else:
        tl.static_assert(False, "no phi+ for this margin type")
    return power, slope


@triton.jit
def _added_angle(z, cos_m, sin_m):
    """cos(theta + m) and its slope by the cosine `z`."""
    cosine = _clamped(z)
    sine, inverse = _sine(cosine)
    return cosine * cos_m - sine * sin_m, (sine * cos_m + cosine * sin_m) * inverse
