"""Hyperparameters of SphereFace2: what they are called, where they may lie, and known-good sets."""

import math
import numbers
from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any

from .definition import MARGIN_TYPES, initial_bias

GRADIENTS = ("detached", "exact")
WEIGHT_NORMS = ("in_place", "in_graph")

#: The margin a margin type takes where only the type is given; "C" keeps its preset's.
DEFAULT_MARGINS: Mapping[str, float] = MappingProxyType({"A": 0.5, "M": 1.7, "A2": 0.15})

#: Known-good sets. A preset that names no loss weight takes the scale, which makes the loss the
#: plain weighted sum of binary cross-entropies.
PRESETS: Mapping[str, Mapping[str, Any]] = MappingProxyType(
    {
        # The authors' code, https://github.com/ydwen/opensphere.
        "opensphere": MappingProxyType(
            dict(lam=0.7, scale=40.0, margin=0.4, t=3.0, loss_weight=50.0)
        ),
        # Speaker verification, https://github.com/wenet-e2e/wespeaker.
        "wespeaker": MappingProxyType(
            dict(
                lam=0.7,
                scale=32.0,
                margin=0.2,
                t=3.0,
                gradient="exact",
                weight_norm="in_graph",
                bias=0.0,
            )
        ),
    }
)

NUMBERS = ("lam", "scale", "margin", "t", "loss_weight", "bias", "interclass_filtering_threshold")


@dataclass(frozen=True)
class Recipe:
    """Hyperparameters of the loss; the defaults are the preset ``"opensphere"``.

    Attributes:
        margin_type: "C", "A", "M" (paper Eq. 8 and appendix C) or "A2" (two-sided).
        lam: weight of the positive term, between 0 and 1 (paper: lambda).
        scale: steepness of the logits, r in the paper.
        margin: m; for "C" in similarity, for "A" and "A2" in radians, for "M" a factor >= 1.
        t: exponent of the similarity adjustment g, >= 1.
        loss_weight: factor on the whole loss, before it is divided by the scale.
        gradient: "detached" takes phi's slope as one (the authors' code); "exact" does not.
        weight_norm: "in_place" stores the class centers at length one before every forward pass
            and leaves their gradient unprojected (the authors' code); "in_graph" differentiates
            through the normalisation.
        bias: initial bias, or None for the closed form of the paper's appendix B.
        interclass_filtering_threshold: negatives with a larger cosine are left out; 0 keeps all.

    Raises:
        ValueError: a value lies outside its domain.
    """

    margin_type: str = "C"
    lam: float = 0.7
    scale: float = 40.0
    margin: float = 0.4
    t: float = 3.0
    loss_weight: float = 50.0
    gradient: str = "detached"
    weight_norm: str = "in_place"
    bias: float | None = None
    interclass_filtering_threshold: float = 0.0

    @classmethod
    def from_preset(cls, preset: str = "opensphere", **overrides: Any) -> "Recipe":
        """A preset with some values replaced; an override of None keeps the preset's value.

        Raises:
            ValueError: no such preset, or a value outside its domain.
        """
        require_one_of("preset", preset, tuple(PRESETS))
        given = {name: value for name, value in overrides.items() if value is not None}
        values = {**PRESETS[preset], **given}
        if "margin" not in given:
            values["margin"] = DEFAULT_MARGINS.get(values.get("margin_type", "C"), values["margin"])
        values.setdefault("loss_weight", values["scale"])
        return cls(**values)

    def __post_init__(self) -> None:
        require_one_of("margin_type", self.margin_type, MARGIN_TYPES)
        require_one_of("gradient", self.gradient, GRADIENTS)
        require_one_of("weight_norm", self.weight_norm, WEIGHT_NORMS)
        require_number("lam", self.lam, "between 0 and 1, both excluded", lambda v: 0 < v < 1)
        require_number("scale", self.scale, "positive", lambda v: v > 0)
        require_number("t", self.t, "at least 1", lambda v: v >= 1)
        require_number("loss_weight", self.loss_weight, "positive", lambda v: v > 0)
        require_number(
            "interclass_filtering_threshold",
            self.interclass_filtering_threshold,
            "between 0 (off) and 1",
            lambda v: 0 <= v <= 1,
        )
        if self.bias is not None:
            require_number("bias", self.bias, "finite", lambda v: True)
        if self.margin_type == "C":
            require_number("margin", self.margin, "at least 0", lambda v: v >= 0)
        elif self.margin_type == "M":
            require_number(
                "margin", self.margin, "at least 1 for margin_type 'M'", lambda v: v >= 1
            )
        else:
            wanted = f"from 0 up to, not including, pi for margin_type {self.margin_type!r}"
            require_number("margin", self.margin, wanted, lambda v: 0 <= v < math.pi)
        if self.margin_type == "A2" and self.t != int(self.t):
            # Its straight tail reaches below -1, where a fractional power is not a real number.
            raise ValueError(f"t must be a whole number for margin_type 'A2', got {self.t}")

        for name in NUMBERS:
            value = getattr(self, name)
            if value is not None:  # A number of numpy's is as good, and no operator takes it.
                object.__setattr__(self, name, float(value))

    def initial_bias(self, num_classes: int) -> float:
        """The bias a fresh head of `num_classes` classes starts from."""
        if self.bias is not None:
            return self.bias
        return initial_bias(
            num_classes,
            margin_type=self.margin_type,
            lam=self.lam,
            scale=self.scale,
            margin=self.margin,
            t=self.t,
        )


def require_one_of(name: str, value: object, known: tuple[str, ...]) -> None:
    if value not in known:
        raise ValueError(f"{name} must be one of {', '.join(map(repr, known))}, got {value!r}")


def require_number(name: str, value: Any, wanted: str, holds: Any) -> None:
    number = isinstance(value, numbers.Real) and not isinstance(value, bool)
    if not (number and math.isfinite(value) and holds(value)):
        raise ValueError(f"{name} must be a number {wanted}, got {value!r}")
