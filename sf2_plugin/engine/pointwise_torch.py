"""The pointwise parts of the sweep in torch operators, on any device.

Everything here works on one chunk of classes, in place where it can: the chunk is meant to stay in
the processor's cache between one operator and the next.
"""

import math
from collections.abc import Callable, Mapping
from types import MappingProxyType
from typing import Any, NamedTuple

import torch
from torch import Tensor

from ..margins import g
from ..recipe import Recipe
from .memory import reused_empty
from .pointwise import Pointwise
from .sgd import SGDStep

#: The negatives' logits are in bits, l / log(2): torch raises 2 to a power in half the time that it
#: takes to raise e.
BIT = math.log(2)
#: Bits from which on softplus(l) is l, and its slope 1; 2 to that power is still finite in float32.
STEEP = 120.0


def _g_slope(u: Tensor, t: float) -> Tensor:
    """The slope of `margins.g` by `u`."""
    half = (u + 1) / 2
    return t * (half if t == int(t) else half.clamp_(min=0)) ** (t - 1)


def _inverse_sine(z: Tensor) -> Tensor:
    """1/sin(theta), and 0 at the poles, where no slope is taken."""
    square = 1 - z * z
    return torch.where(square > 0, square.clamp(min=0).rsqrt(), 0.0)


def _turned(z: Tensor, speed: float, offset: float) -> tuple[Tensor, Tensor, Tensor]:
    """The angle speed * theta + offset, its cosine, and the slope of that by `z`."""
    turned = speed * torch.acos(z.clamp(-1, 1)) + offset
    return turned, torch.cos(turned), speed * torch.sin(turned) * _inverse_sine(z)


def _clamped_turn(z: Tensor, speed: float, offset: float) -> tuple[Tensor, Tensor]:
    turned, cosine, slope = _turned(z, speed, offset)
    inside = turned < math.pi
    return torch.where(inside, cosine, -1.0), torch.where(inside, slope, 0.0)


def _two_sided_positive(z: Tensor, m: float) -> tuple[Tensor, Tensor]:
    _, cosine, slope = _turned(z, 1.0, m)
    turn = math.cos(math.pi - m)
    return torch.where(z > turn, cosine, z - 1 - turn), torch.where(z > turn, slope, 1.0)


def _two_sided_negative(z: Tensor, m: float) -> Tensor:
    """cos(theta - m) by the addition formula."""
    sine = (1 - z * z).clamp_(min=0).sqrt_()
    return sine.mul_(math.sin(m)).add_(z.clamp(-1, 1), alpha=math.cos(m))


def _two_sided_negative_slope(z: Tensor, m: float) -> Tensor:
    slope = math.cos(m) - math.sin(m) * z * _inverse_sine(z)
    return torch.where(z.abs() < 1, slope, 0.0)


def _unbent(z: Tensor, m: float) -> tuple[Tensor, Tensor]:
    return z, torch.ones_like(z)


class _Margin(NamedTuple):
    """phi+ = g(u+) - lift * m and phi- = g(u-) + lift * m, where a margin bends z to u.

    Attributes:
        positive: from (z, m) to u+ and its slope by z.
        negative: from (z, m) to u-; None where that is z.
        negative_slope: the slope of u- by z.
        lift: 1 where the margin is added to g, 0 where it bends the cosine.
    """

    positive: Callable[[Tensor, float], tuple[Tensor, Tensor]]
    negative: Callable[[Tensor, float], Tensor] | None = None
    negative_slope: Callable[[Tensor, float], Tensor] | None = None
    lift: float = 0.0


_MARGINS: Mapping[str, _Margin] = MappingProxyType(
    {
        "C": _Margin(_unbent, lift=1.0),
        "A": _Margin(lambda z, m: _clamped_turn(z, 1.0, m)),
        "M": _Margin(lambda z, m: _clamped_turn(z, m, 0.0)),
        "A2": _Margin(_two_sided_positive, _two_sided_negative, _two_sided_negative_slope),
    }
)


class TorchPointwise(Pointwise):
    """`Pointwise` in torch operators; waits for the device once, to sort the labels by chunk."""

    margin_types = tuple(_MARGINS)

    def __init__(
        self, x: Tensor, weight: Tensor, *args: Any, chunk_size: int, **kwargs: Any
    ) -> None:
        super().__init__(x, weight, *args, chunk_size=chunk_size, **kwargs)
        wide = torch.promote_types(x.dtype, torch.float32)
        self.own = _OwnClasses(self.labels, chunk_size, len(weight))
        self.scratch: tuple[Tensor, Tensor] | None = None
        self.zero = x.new_zeros((), dtype=wide)
        # The negatives' sums, chunk by chunk: their losses, before they are weighted, and slopes.
        self.losses, self.pushes = [self.zero], [self.zero]
        self.weight_of_negatives = (1 - self.recipe.lam) * self.negative_weight
        margin = self.recipe.margin * _MARGINS[self.recipe.margin_type].lift
        largest = self.recipe.scale * (1 + margin) + float(self.bias)
        self.steep = largest > BIT * (STEEP - 1)
        centers = _unit(weight[self.own.classes])[0].to(x.dtype).to(wide)
        z = (x[self.own.faces].to(wide) * centers).sum(dim=1)
        self._add_positives(z)

    def unit_rows_(self, rows: Tensor) -> tuple[Tensor, Tensor]:
        unit, lengths = _unit(rows, out=rows if self.recipe.weight_norm == "in_place" else None)
        return unit.to(self.x.dtype), lengths

    def project_rows_(self, gradient: Tensor, rows: Tensor, lengths: Tensor) -> None:
        along = (gradient * rows).sum(dim=1, keepdim=True, dtype=lengths.dtype) / lengths**2
        gradient.addcmul_(rows, along.to(gradient.dtype), value=-1).div_(lengths)

    def step_rows_(
        self, rows: Tensor, gradient: Tensor, momentum_buffer: Tensor | None, step: SGDStep
    ) -> None:
        # On a CPU, to read them all costs less than to write them all.
        if gradient.device.type != "cpu" or not gradient.sum().isfinite():
            gradient.nan_to_num_(0.0, 0.0, 0.0)
        if momentum_buffer is not None:
            gradient = torch.add(
                gradient, momentum_buffer, alpha=step.momentum, out=momentum_buffer
            )
        gradient.add_(rows, alpha=step.weight_decay)
        rows.add_(gradient, alpha=-step.lr)

    def totals(self) -> tuple[Tensor, Tensor]:
        losses, pushes = (
            torch.stack(sums).sum(dtype=torch.float64) for sums in (self.losses, self.pushes)
        )
        return self.loss + self.weight_of_negatives * losses, self.logit_slope + pushes

    def _add_positives(self, z: Tensor) -> None:
        """Start the sums from the cosines `z` (P,) between faces and their own class centers."""
        recipe = self.recipe
        margin = _MARGINS[recipe.margin_type]
        u, u_slope = margin.positive(z, recipe.margin)
        logits = recipe.scale * (g(u, recipe.t) - margin.lift * recipe.margin) + self.bias
        pull = torch.sigmoid(-logits).mul_(-recipe.lam)
        self.loss = -recipe.lam * torch.nn.functional.logsigmoid(logits).sum(dtype=torch.float64)
        self.logit_slope = pull.sum(dtype=torch.float64)
        if recipe.gradient == "exact":
            pull = pull * _g_slope(u, recipe.t) * u_slope
        self.positive_slopes = pull.to(z.dtype)

    def slopes_(self, z: Tensor, start: int) -> Tensor:
        recipe = self.recipe
        mine, own = self.own.in_chunk(start)
        if self.scratch is None:
            self.scratch = (reused_empty(z, *z.shape), reused_empty(z, *z.shape))
        more, spare = (buffer[: len(z)] for buffer in self.scratch)
        phi_slope = _phi_negative_slope(z, recipe) if recipe.gradient == "exact" else None
        threshold = recipe.interclass_filtering_threshold
        filtered = z > threshold if threshold > 0 else None

        bits = _negative_logits_(z, self.bias, recipe)
        if filtered is not None:
            bits.masked_fill_(filtered, -math.inf)
        bits[own] = -math.inf
        if self.steep:
            above = torch.sub(bits, STEEP, out=spare).clamp_(min=0).sum()
            self.losses.append(BIT * above)
            bits.clamp_(max=STEEP)

        # softplus(l) = log(1 + exp(l)) and its slope sigmoid(l) = exp(l) / (1 + exp(l)) share what
        # is slow about them; both keep every digit where exp(l) is small.
        powers = bits.exp2_()
        torch.add(powers, 1, out=more)
        self.losses.append(_sum_of_logs(powers, more, spare))
        push = torch.addcdiv(self.zero, powers, more, value=self.weight_of_negatives, out=powers)
        self.pushes.append(push.sum())

        if phi_slope is not None:
            push.mul_(phi_slope)
        push[own] = self.positive_slopes[mine]
        if self.x.dtype != torch.float16:
            return push.to(self.x.dtype)
        largest = torch.finfo(self.x.dtype).max
        return push.mul_(self.boost).clamp_(-largest, largest).to(self.x.dtype)


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
        self.rows = self.classes % chunk_size

    def in_chunk(self, start: int) -> tuple[slice, tuple[Tensor, Tensor]]:
        """Which of the ordered faces have their class in this chunk, and their (row, column)."""
        chunk = start // self.chunk_size
        mine = slice(self.bounds[chunk], self.bounds[chunk + 1])
        return mine, (self.rows[mine], self.faces[mine])


def _unit(rows: Tensor, out: Tensor | None = None) -> tuple[Tensor, Tensor]:
    """Rows (c, D) at length one, and their lengths (c, 1)."""
    # Half-precision lengths would overflow, so they are taken in at least float32.
    wide = torch.promote_types(rows.dtype, torch.float32)
    lengths = torch.linalg.vector_norm(rows, dim=1, keepdim=True, dtype=wide)
    lengths.masked_fill_(lengths == 0, 1.0)
    return torch.div(rows, lengths, out=out), lengths


def _negative_logits_(z: Tensor, bias: Tensor, recipe: Recipe) -> Tensor:
    """scale * phi-(z) + bias in bits, with phi- = 2((u + 1)/2)^t - 1 + lift * m; uses `z` up."""
    t, scale, margin = recipe.t, recipe.scale / BIT, _MARGINS[recipe.margin_type]
    u = z if margin.negative is None else margin.negative(z, recipe.margin)
    u.add_(1)
    if t != int(t):  # Rounding may leave a cosine just below -1.
        u.clamp_(min=0)
    if t != 1:
        u.pow_(t)
    constant = bias.to(u.dtype) / BIT + scale * (margin.lift * recipe.margin - 1)
    return torch.add(constant, u, alpha=scale * 2 ** (1 - t), out=u)


def _sum_of_logs(powers: Tensor, more: Tensor, spare: Tensor) -> Tensor:
    """The sum of log(1 + p) over `powers` (c, B), with `more` = 1 + powers.

    A CPU takes as long for a logarithm as for several products. There it takes them of four powers
    at a time, by (1 + p)(1 + q) = 1 + (p + q + pq) twice, which keeps every digit where both are
    small; unless such a product has outgrown its type.
    """
    quarter = len(powers) // 4
    if powers.device.type == "cpu" and quarter:
        half, whole = 2 * quarter, 4 * quarter
        twos = torch.addcmul(powers[:half], powers[half:whole], more[:half], out=spare[:half])
        p, q = twos.chunk(2)
        one_more = torch.add(p, 1, out=spare[half : half + quarter])
        folded = spare[: quarter + len(powers) - whole]
        torch.addcmul(p, q, one_more, out=folded[:quarter])
        folded[quarter:] = powers[whole:]
        total = folded.log1p_().sum()
        if total.isfinite():
            return total
    return torch.log1p(powers, out=spare).sum()


def _phi_negative_slope(z: Tensor, recipe: Recipe) -> Tensor:
    margin = _MARGINS[recipe.margin_type]
    if margin.negative is None or margin.negative_slope is None:
        return _g_slope(z, recipe.t)
    u = margin.negative(z, recipe.margin)
    return _g_slope(u, recipe.t) * margin.negative_slope(z, recipe.margin)
