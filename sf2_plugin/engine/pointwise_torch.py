"""The pointwise parts of the sweep in torch operators, on any device.

Everything here works on one chunk of classes, in place where it can: the chunk is meant to stay in
the processor's cache between one operator and the next.
"""

import math
from typing import NamedTuple

import torch
from torch import Tensor

from ..recipe import Recipe


def unit_rows_(rows: Tensor, *, in_place: bool, dtype: torch.dtype) -> tuple[Tensor, Tensor]:
    """Class centers (c, D) at length one in `dtype`, and their lengths (c, 1) before.

    `in_place` stores them back into `rows`; a row of zeros stays zero.
    """
    # Half-precision lengths would overflow, so they are taken in at least float32.
    wide = torch.promote_types(rows.dtype, torch.float32)
    lengths = torch.linalg.vector_norm(rows, dim=1, keepdim=True, dtype=wide)
    lengths.masked_fill_(lengths == 0, 1.0)
    if in_place:
        return rows.div_(lengths).to(dtype), lengths
    return (rows / lengths).to(dtype), lengths


def project_rows_(gradient: Tensor, unit_rows: Tensor, lengths: Tensor) -> None:
    """Turn the gradient (c, D) of unit rows into that of the rows they were normalised from."""
    unit_rows = unit_rows.to(gradient.dtype)
    along = (gradient * unit_rows).sum(dim=1, keepdim=True)
    gradient.addcmul_(unit_rows, along, value=-1).div_(lengths)


class Terms(NamedTuple):
    """What a set of logits adds: loss and its slope by the logits (summed), and by cosine."""

    loss: Tensor
    logit_gradient: Tensor
    cosine_gradient: Tensor


def positives(z: Tensor, bias: Tensor, recipe: Recipe) -> Terms:
    """Terms of the cosines `z` (P,) between faces and their own class centers."""
    value, slope = _phi_positive(z, recipe)
    logits = recipe.scale * value + bias
    pull = torch.sigmoid(-logits).mul_(-recipe.lam)
    loss = -recipe.lam * torch.nn.functional.logsigmoid(logits).sum()
    return Terms(loss, pull.sum(), pull if slope is None else pull * slope)


def negatives_(
    z: Tensor,
    own: tuple[Tensor, Tensor],
    bias: Tensor,
    recipe: Recipe,
    negative_weight: float,
    scratch: tuple[Tensor, Tensor],
) -> Terms:
    """Terms of a chunk of cosines `z` (B, c), which is overwritten with its gradient.

    `own` are the rows and columns of the faces' own classes, which count nothing here. `scratch`
    holds two buffers of z's size.
    """
    a, b = (buffer[: z.numel()].view_as(z) for buffer in scratch)
    exact = recipe.gradient == "exact"
    slope = _phi_negative_slope(z, recipe) if exact else None
    logits = _negative_logits(z, bias, recipe, out=a)
    if recipe.interclass_filtering_threshold > 0:
        logits.masked_fill_(z > recipe.interclass_filtering_threshold, -math.inf)
    logits[own] = -math.inf

    # softplus(l) = -log(sigmoid(-l)), plus what rounding sigmoid(-l) to near one has lost, which
    # sigmoid(l) still holds. Twice as fast as softplus, whose log1p is not vectorised on CPUs.
    push = torch.sigmoid(logits, out=z)
    complement = torch.sigmoid(logits.neg_(), out=logits)
    lost = torch.sub(1.0, complement, out=b).sub_(push).sum(dtype=torch.float64)
    loss = complement.log_().sum().neg() - lost

    weight = (1 - recipe.lam) * negative_weight
    push.mul_(weight)
    total = push.sum()
    if slope is not None:
        push.mul_(slope)
    return Terms(loss * weight, total, push)


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
