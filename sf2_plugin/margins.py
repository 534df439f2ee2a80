r"""Margins: how the similarity of a face and a class center is bent, in plain PyTorch.

With z a cosine, theta its angle and g(z) = 2((z + 1)/2)^t - 1 (paper, Eq. 7):

=========== ================================================= ==================================
margin type phi+, of a face and its own class center          phi-, and another's
=========== ================================================= ==================================
C           g(z) - m                                          g(z) + m
A           g(cos(min(theta + m, pi)))                        g(z)
M           g(cos(min(m theta, pi)))                          g(z)
A2          g(cos(theta + m)), a straight line past pi - m    g(cos(theta - m))
=========== ================================================= ==================================

Sources: Wen et al., "SphereFace2", ICLR 2022 (arXiv 2108.01513), Eq. 8 and appendix C; "A2" is the
two-sided margin of Han et al., "Exploring Binary Classification Loss for Speaker Verification",
ICASSP 2023.
"""

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from types import MappingProxyType

import torch
from torch import Tensor

from .checks import require_one_of


def g(z: Tensor, t: float) -> Tensor:
    """Similarity adjustment, paper Eq. 7: 2((z + 1)/2)^t - 1, which spreads the cosines out.

    Rounding may leave a cosine just below -1, where a fractional power is not a real number.
    """
    half = (z + 1) / 2
    if t != int(t):
        half = half.clamp(min=0)
    return 2 * half**t - 1


def angle(z: Tensor) -> Tensor:
    """The angle (radians) whose cosine is `z`, with slope 0 at the poles instead of infinity.

    At a pole the gradient points along the embedding, and normalisation projects it away.
    """
    inside = z.abs() < 1
    pole = torch.where(z > 0, 0.0, math.pi).to(z.dtype)
    return torch.where(inside, torch.acos(torch.where(inside, z, 0.0)), pole)


def _two_sided_positive(z: Tensor, m: float, t: float) -> Tensor:
    # Beyond theta = pi - m the curve goes on as a straight line, so that it keeps falling.
    turn = math.cos(math.pi - m)
    return g(torch.where(z > turn, torch.cos(angle(z) + m), z - 1 - turn), t)


#: (cosines, margin, t) -> similarities of the same shape.
Curve = Callable[[Tensor, float, float], Tensor]


def _unbent(z: Tensor, m: float, t: float) -> Tensor:
    return g(z, t)


@dataclass(frozen=True)
class MarginType:
    """A margin.

    Attributes:
        positive: phi+.
        negative: phi-.
        default: the margin m taken where only the type is given.
        wanted: which margins there are, as it goes on after "must be a number".
        allows: whether `m` is one of them.
        whole_t: its curve reaches below -1, where a fractional power is not a real number, so that
            t must be whole.
    """

    positive: Curve
    negative: Curve
    default: float
    wanted: str
    allows: Callable[[float], bool]
    whole_t: bool = False


_RADIANS = ("from 0 up to, not including, pi", lambda m: 0 <= m < math.pi)

#: Every margin type there is. The engine's backends (`sf2_plugin.engine.pointwise_torch`,
#: `pointwise_triton`) each serve all of them.
MARGIN_TYPES: Mapping[str, MarginType] = MappingProxyType(
    {
        "C": MarginType(
            lambda z, m, t: g(z, t) - m,
            lambda z, m, t: g(z, t) + m,
            0.4,
            "at least 0",
            lambda m: m >= 0,
        ),
        "A": MarginType(
            lambda z, m, t: g(torch.cos((angle(z) + m).clamp(max=math.pi)), t),
            _unbent,
            0.5,
            *_RADIANS,
        ),
        "M": MarginType(
            lambda z, m, t: g(torch.cos((m * angle(z)).clamp(max=math.pi)), t),
            _unbent,
            1.7,
            "at least 1",
            lambda m: m >= 1,
        ),
        "A2": MarginType(
            _two_sided_positive,
            lambda z, m, t: g(torch.cos(angle(z) - m), t),
            0.15,
            *_RADIANS,
            whole_t=True,
        ),
    }
)


def margin_named(margin_type: str) -> MarginType:
    """The margin type of that name.

    Raises:
        ValueError: there is none.
    """
    require_one_of("margin_type", margin_type, MARGIN_TYPES)
    return MARGIN_TYPES[margin_type]


def phi_positive(z: Tensor, margin_type: str, margin: float, t: float) -> Tensor:
    """Similarity of a face to its own class center with the margin taken off; same shape as `z`."""
    return margin_named(margin_type).positive(z, margin, t)


def phi_negative(z: Tensor, margin_type: str, margin: float, t: float) -> Tensor:
    """Similarity of a face to another's class center with the margin put on; same shape as `z`."""
    return margin_named(margin_type).negative(z, margin, t)
