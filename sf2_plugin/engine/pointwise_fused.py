"""Cosines on the matrix units and their slopes as the epilogue, in one kernel, for NVIDIA GPUs.

The cosines of a chunk never leave the registers in which they were added up. Beside the programs
that multiply, every band of classes has one that brings the next chunk's rows to length one: it
waits for memory while they compute. The mathematics is `pointwise_triton`'s.
"""

from collections.abc import Mapping
from types import MappingProxyType
from typing import Any, NamedTuple

import torch
import triton
import triton.language as tl
from packaging.version import Version
from torch import Tensor

from ..compat import allows_tf32
from ..recipe import Recipe
from .pointwise_triton import TritonPointwise, slopes_of_tile, unit_rows_from


class Setting(NamedTuple):
    """How a kernel is cut up.

    Attributes:
        classes, faces: of a program's tile of cosines.
        depth: elements of class centers and faces that are multiplied at a time.
        parts: of the tile, whose slopes are computed one after the other: in fewer registers.
            `EXACT_PARTS` times as many where the exact gradient needs more of them for each.
        warps: of a program.
        stages: how many such multiplications ahead their factors are loaded.
        registers: that a thread may use.
    """

    classes: int
    faces: int
    depth: int
    parts: int
    warps: int
    stages: int
    registers: int


#: With twice as many the compilers of Triton 3.6 and 3.7 spill registers, and that of 3.8 none.
EXACT_PARTS = 2 if Version("3.8") <= Version(triton.__version__) else 4

#: By compute capability and the bytes of a factor; a device takes the last that it reaches. With
#: 256 threads of 128 registers two programs share a multiprocessor: one multiplies while the other
#: computes slopes.
SETTINGS: Mapping[tuple[int, int], Mapping[int, Setting]] = MappingProxyType(
    {
        # Triton's interpreter's: small, so that a small shape has several tiles.
        (0, 0): {4: Setting(64, 64, 64, 1, 4, 1, 255)},
        (9, 0): {2: Setting(128, 128, 64, 4, 8, 3, 128), 4: Setting(128, 64, 32, 2, 8, 3, 128)},
    }
)


def setting_for(capability: tuple[int, int], dtype: torch.dtype) -> Setting:
    """The setting for products of `dtype` on a device of that capability."""
    return SETTINGS[max(known for known in SETTINGS if known <= capability)][dtype.itemsize]


class FusedPointwise(TritonPointwise):
    """`TritonPointwise` whose chunks each take one launch."""

    def __init__(
        self,
        x: Tensor,
        weight: Tensor,
        labels: Tensor,
        bias: Tensor,
        recipe: Recipe,
        **kwargs: Any,
    ) -> None:
        capability = torch.cuda.get_device_capability(x.device) if x.is_cuda else (0, 0)
        self.setting = setting_for(capability, x.dtype)
        self.parts = self.setting.parts * (EXACT_PARTS if recipe.gradient == "exact" else 1)
        super().__init__(x.contiguous(), weight, labels, bias, recipe, **kwargs)
        self.tiles_of_faces = -(-len(x) // self.setting.faces)
        bands = -(-len(self.lengths) // self.setting.classes)
        parts = bands * self.tiles_of_faces * self.parts
        self.losses, self.logit_slopes = x.new_zeros(2, parts, dtype=torch.float64)
        self.next_unit = None if self.unit is None else torch.empty_like(self.unit)
        self.next_lengths = torch.empty_like(self.lengths)
        self.ready: int | None = None  # The chunk whose rows are of length one already.
        chunk = len(self.lengths)
        self.written = x.new_empty(chunk, len(x)) if self.slopes is None else self.slopes

    def _tile(self, faces: int) -> dict[str, int]:
        # Of a part.
        return {"CLASSES": self.setting.classes, "FACES": self.setting.faces // self.parts}

    def chunk(self, start: int) -> tuple[Tensor, Tensor, Tensor]:
        rows, next_rows = (
            self.weight[first : first + self.chunk_size]
            for first in (start, start + self.chunk_size)
        )
        if self.ready == start:
            self.unit, self.next_unit = self.next_unit, self.unit
            self.lengths, self.next_lengths = self.next_lengths, self.lengths
        else:
            self.unit_rows_(rows)
        w, lengths = self._unit_of(rows, self.unit), self.lengths[: len(rows)]
        slopes = self.written[: len(rows)]
        bands = -(-max(len(rows), len(next_rows)) // self.setting.classes)
        _fused[(bands * (self.tiles_of_faces + 1),)](
            w,
            self.x,
            next_rows,
            self._unit_of(next_rows, self.next_unit),
            self.next_lengths,
            len(next_rows),
            slopes,
            self.labels,
            self.bias,
            self.losses,
            self.logit_slopes,
            start,
            *slopes.shape,
            *self.numbers,
            **self.choices,
            **self.row_tile,
            SIZE=self.x.shape[1],
            DEPTH=self.setting.depth,
            PARTS=self.parts,
            IN_PLACE=self.in_place,
            # Three products of TF32 are one of float32, nearly.
            PRECISION="tf32" if allows_tf32() else "tf32x3",
            num_warps=self.setting.warps,
            num_stages=self.setting.stages,
            maxnreg=self.setting.registers,
        )
        self.ready = start + self.chunk_size
        return w, lengths, slopes

    @staticmethod
    def _unit_of(rows: Tensor, unit: Tensor | None) -> Tensor:
        return rows if unit is None else unit[: len(rows)]


# fmt: off
@triton.jit(do_not_specialize=["next_classes", "start", "num_classes"])
def _fused(
    w, x, next_rows, next_unit, next_lengths, next_classes,
    slopes, labels, bias, losses, logit_slopes, start, num_classes, num_faces,
    stretch, t, steepness, shift, own_shift, margin, cos_m, sin_m,
    positive_weight, negative_weight, threshold, largest,
    MARGIN_TYPE: tl.constexpr, WHOLE_T: tl.constexpr, EXACT: tl.constexpr, FILTER: tl.constexpr,
    CLAMP: tl.constexpr, CLASSES: tl.constexpr, FACES: tl.constexpr, HEIGHT: tl.constexpr,
    WIDTH: tl.constexpr, SIZE: tl.constexpr, DEPTH: tl.constexpr, IN_PLACE: tl.constexpr,
    PARTS: tl.constexpr, PRECISION: tl.constexpr,
):
    tiles_of_faces = tl.cdiv(num_faces, PARTS * FACES)
    band = tl.program_id(0) // (tiles_of_faces + 1)
    place = tl.program_id(0) % (tiles_of_faces + 1)
    first_class = band * CLASSES
    if place == 0:
        past = tl.minimum(next_classes, first_class + CLASSES)
        for first in range(0, CLASSES, HEIGHT):
            unit_rows_from(
                first_class + first, next_rows, next_unit, next_lengths, past, SIZE,
                IN_PLACE, HEIGHT, WIDTH,
            )
    elif first_class < num_classes:
        tile = band * tiles_of_faces + place - 1
        first_face = (place - 1) * PARTS * FACES
        z = _cosines(
            w, x, first_class, first_face, num_classes, num_faces,
            CLASSES, PARTS * FACES, SIZE, DEPTH, PRECISION,
        )
        _slopes_by_parts(
            z, tile, first_class, first_face,
            slopes, labels, bias, losses, logit_slopes, start, num_classes,
            num_faces, stretch, t, steepness, shift, own_shift, margin, cos_m, sin_m,
            positive_weight, negative_weight, threshold, largest,
            MARGIN_TYPE, WHOLE_T, EXACT, FILTER, CLAMP, CLASSES, FACES, PARTS,
        )


@triton.jit
def _slopes_by_parts(
    z, tile, first_class, first_face,
    slopes, labels, bias, losses, logit_slopes, start, num_classes,
    num_faces, stretch, t, steepness, shift, own_shift, margin, cos_m, sin_m,
    positive_weight, negative_weight, threshold, largest,
    MARGIN_TYPE: tl.constexpr, WHOLE_T: tl.constexpr, EXACT: tl.constexpr, FILTER: tl.constexpr,
    CLAMP: tl.constexpr, CLASSES: tl.constexpr, FACES: tl.constexpr, PARTS: tl.constexpr,
):
    if PARTS == 1:
        slopes_of_tile(
            z, tile, first_class, first_face,
            slopes, labels, bias, losses, logit_slopes, start, num_classes,
            num_faces, stretch, t, steepness, shift, own_shift, margin, cos_m, sin_m,
            positive_weight, negative_weight, threshold, largest,
            MARGIN_TYPE, WHOLE_T, EXACT, FILTER, CLAMP, CLASSES, FACES,
        )
    else:
        left, right = _halves(z)
        middle = first_face + PARTS // 2 * FACES
        _slopes_by_parts(
            left, 2 * tile, first_class, first_face,
            slopes, labels, bias, losses, logit_slopes, start, num_classes,
            num_faces, stretch, t, steepness, shift, own_shift, margin, cos_m, sin_m,
            positive_weight, negative_weight, threshold, largest,
            MARGIN_TYPE, WHOLE_T, EXACT, FILTER, CLAMP, CLASSES, FACES, PARTS // 2,
        )
        _slopes_by_parts(
            right, 2 * tile + 1, first_class, middle,
            slopes, labels, bias, losses, logit_slopes, start, num_classes,
            num_faces, stretch, t, steepness, shift, own_shift, margin, cos_m, sin_m,
            positive_weight, negative_weight, threshold, largest,
            MARGIN_TYPE, WHOLE_T, EXACT, FILTER, CLAMP, CLASSES, FACES, PARTS // 2,
        )
# fmt: on


@triton.jit
def _halves(z):
    """The left and the right half of a tile's faces."""
    CLASSES: tl.constexpr = z.shape[0]
    HALF: tl.constexpr = z.shape[1] // 2
    return tl.split(tl.permute(tl.reshape(z, (CLASSES, 2, HALF)), (0, 2, 1)))


@triton.jit
def _cosines(
    w,
    x,
    first_class,
    first_face,
    num_classes,
    num_faces,
    CLASSES: tl.constexpr,
    FACES: tl.constexpr,
    SIZE: tl.constexpr,
    DEPTH: tl.constexpr,
    PRECISION: tl.constexpr,
):
    """A tile of w x^T; zeros beyond the last class and the last face."""
    row = first_class + tl.arange(0, CLASSES)
    face = first_face + tl.arange(0, FACES)
    z = tl.zeros((CLASSES, FACES), tl.float32)
    for first in range(0, SIZE, DEPTH):
        column = first + tl.arange(0, DEPTH)
        a = tl.load(
            w + row[:, None].to(tl.int64) * SIZE + column[None, :],
            mask=(row < num_classes)[:, None] & (column < SIZE)[None, :],
            other=0.0,
        )
        b = tl.load(
            x + face[:, None] * SIZE + column[None, :],
            mask=(face < num_faces)[:, None] & (column < SIZE)[None, :],
            other=0.0,
        )
        z = tl.dot(a, tl.trans(b), z, input_precision=PRECISION)
    return z
