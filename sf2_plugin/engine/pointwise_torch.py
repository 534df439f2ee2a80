"""The pointwise parts of the sweep in torch operators, on any device.

Everything here works on one chunk of classes, in place where it can: the chunk is meant to stay in
the processor's cache between one operator and the next.
"""

import math
from typing import Any

import torch
from torch import Tensor

from ..recipe import Recipe
from .pointwise import Pointwise
from .sgd import SGDStep


class TorchPointwise(Pointwise):
    """`Pointwise` in torch operators; waits for the device once, to sort the labels by chunk."""

    def __init__(
        self, x: Tensor, weight: Tensor, *args: Any, chunk_size: int, **kwargs: Any
    ) -> None:
        super().__init__(x, weight, *args, chunk_size=chunk_size, **kwargs)
        self.own = _OwnClasses(self.labels, chunk_size, len(weight))
        self.scratch: tuple[Tensor, Tensor] | None = None
        wide = torch.promote_types(x.dtype, torch.float32)
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
        gradient.nan_to_num_(0.0, 0.0, 0.0).add_(rows, alpha=step.weight_decay)
        if momentum_buffer is not None:
            gradient = momentum_buffer.mul_(step.momentum).add_(gradient)
        rows.add_(gradient, alpha=-step.lr)

    def totals(self) -> tuple[Tensor, Tensor]:
        return self.loss, self.logit_slope

    def _add_positives(self, z: Tensor) -> None:
        """Start the sums from the cosines `z` (P,) between faces and their own class centers."""
        value, slope = _phi_positive(z, self.recipe)
        logits = self.recipe.scale * value + self.bias
        pull = torch.sigmoid(-logits).mul_(-self.recipe.lam)
        self.loss = -self.recipe.lam * torch.nn.functional.logsigmoid(logits).sum(
            dtype=torch.float64
        )
        self.logit_slope = pull.sum(dtype=torch.float64)
        self.positive_slopes = pull if slope is None else pull * slope

    def slopes_(self, z: Tensor, start: int) -> Tensor:
        recipe = self.recipe
        mine, own = self.own.in_chunk(start)
        if self.scratch is None:
            self.scratch = (torch.empty_like(z), torch.empty_like(z))
        logits, spare = (buffer[: len(z)] for buffer in self.scratch)
        slope = _phi_negative_slope(z, recipe) if recipe.gradient == "exact" else None
        _negative_logits(z, self.bias, recipe, out=logits)
        if recipe.interclass_filtering_threshold > 0:
            logits.masked_fill_(z > recipe.interclass_filtering_threshold, -math.inf)
        logits[own] = -math.inf

        # softplus(l) = -log(sigmoid(-l)), plus what rounding sigmoid(-l) to near one has lost,
        # which sigmoid(l) still holds: much faster than softplus, whose log1p is not vectorised.
        push = torch.sigmoid(logits, out=z)
        total = push.sum()
        complement = torch.sigmoid(logits.neg_(), out=logits)
        lost = torch.sub(1.0, complement, out=spare).sum() - total
        weight = (1 - recipe.lam) * self.negative_weight
        self.loss -= weight * (complement.log_().sum() + lost)
        self.logit_slope += weight * total

        push.mul_(weight)
        if slope is not None:
            push.mul_(slope)
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

    def in_chunk(self, start: int) -> tuple[slice, tuple[Tensor, Tensor]]:
        """Which of the ordered faces have their class in this chunk, and their (row, column)."""
        chunk = start // self.chunk_size
        mine = slice(self.bounds[chunk], self.bounds[chunk + 1])
        return mine, (self.classes[mine] - start, self.faces[mine])


def _unit(rows: Tensor, out: Tensor | None = None) -> tuple[Tensor, Tensor]:
    """Rows (c, D) at length one, and their lengths (c, 1)."""
    # Half-precision lengths would overflow, so they are taken in at least float32.
    wide = torch.promote_types(rows.dtype, torch.float32)
    lengths = torch.linalg.vector_norm(rows, dim=1, keepdim=True, dtype=wide)
    lengths.masked_fill_(lengths == 0, 1.0)
    return torch.div(rows, lengths, out=out), lengths


def _negative_logits(z: Tensor, bias: Tensor, recipe: Recipe, out: Tensor) -> Tensor:
    """scale * phi-(z) + bias, with phi- = 2((u + 1)/2)^t - 1, plus the margin for "C"."""
    t, scale = recipe.t, recipe.scale
    if recipe.margin_type == "A2":
        z = _two_sided_cosine(z, recipe.margin)
    torch.add(z, 1, out=out)
    if t != int(t):  # Rounding may leave a cosine just below -1.
        out.clamp_(min=0)
    if t != 1:
        out.pow_(t)
    lift = recipe.margin if recipe.margin_type == "C" else 0.0
    constant = bias.to(out.dtype) + scale * (lift - 1)
    return torch.add(constant, out, alpha=scale * 2 ** (1 - t), out=out)


def _two_sided_cosine(z: Tensor, margin: float) -> Tensor:
    """cos(theta - margin) by the addition formula."""
    sine = (1 - z * z).clamp_(min=0).sqrt_()
    return sine.mul_(math.sin(margin)).add_(z.clamp(-1, 1), alpha=math.cos(margin))


def _half(u: Tensor, t: float) -> Tensor:
    """(u + 1)/2, kept from going below zero where `t` is fractional."""
    half = (u + 1) / 2
    return half if t == int(t) else half.clamp_(min=0)


def _g_slope(u: Tensor, t: float) -> Tensor:
    return t * _half(u, t) ** (t - 1)


def _inverse_sine(z: Tensor) -> Tensor:
    """1/sin(theta), and 0 at the poles, where no slope is taken."""
    square = 1 - z * z
    return torch.where(square > 0, square.clamp(min=0).rsqrt(), 0.0)


def _phi_negative_slope(z: Tensor, recipe: Recipe) -> Tensor:
    if recipe.margin_type != "A2":
        return _g_slope(z, recipe.t)
    m = recipe.margin
    turned = math.cos(m) - math.sin(m) * z * _inverse_sine(z)
    return torch.where(z.abs() < 1, _g_slope(_two_sided_cosine(z, m), recipe.t) * turned, 0.0)


def _phi_positive(z: Tensor, recipe: Recipe) -> tuple[Tensor, Tensor | None]:
    """phi+ at `z` and, for the exact gradient, its slope (None stands for one)."""
    m, t = recipe.margin, recipe.t
    u, u_slope = _positive_cosine(z, recipe.margin_type, m)
    value = 2 * _half(u, t) ** t - 1
    if recipe.margin_type == "C":
        value = value - m
    if recipe.gradient == "detached":
        return value, None
    return value, _g_slope(u, t) * u_slope


def _positive_cosine(z: Tensor, margin_type: str, m: float) -> tuple[Tensor, Tensor]:
    """The cosine that g is applied to for a positive, and its slope by `z`."""
    one = torch.ones_like(z)
    if margin_type == "C":
        return z, one
    theta = torch.acos(z.clamp(-1, 1))
    turned = m * theta if margin_type == "M" else theta + m
    speed = m if margin_type == "M" else 1.0
    u_slope = speed * torch.sin(turned) * _inverse_sine(z)
    if margin_type == "A2":
        turn = math.cos(math.pi - m)
        curved = z > turn
        u = torch.where(curved, torch.cos(turned), z - 1 - turn)
        return u, torch.where(curved, u_slope, one)
    u = torch.cos(turned.clamp(max=math.pi))
    return u, torch.where(turned < math.pi, u_slope, 0.0)
