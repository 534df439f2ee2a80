"""Hyperparameters of SphereFace2: what they are called, where they may lie, and known-good sets."""

import dataclasses
import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any, ClassVar

import torch
from torch import Tensor

from .checks import require_number, require_one_of
from .margins import MARGIN_TYPES, margin_named, phi_negative, phi_positive

GRADIENTS = ("detached", "exact")
WEIGHT_NORMS = ("in_place", "in_graph")


def _preset(**values: Any) -> Mapping[str, Any]:
    return MappingProxyType(values)


#: Known-good sets, each written in full.
PRESETS: Mapping[str, Mapping[str, Any]] = MappingProxyType({
    # The authors' code, https://github.com/ydwen/opensphere; a bare `Recipe()` is this too.
    "opensphere": _preset(
        margin_type="C", lam=0.7, scale=40.0, margin=0.4, t=3.0, loss_weight=50.0,
        gradient="detached", weight_norm="in_place", bias="closed_form",
        interclass_filtering_threshold=0.0,
    ),
    # The paper's own setting for VGGFace2 (margin type "C"; with "A" or "M" the margins of
    # `sf2_plugin.margins`, 0.5 and 1.7): a fifth of the loss weight that the code has by default.
    "paper": _preset(
        margin_type="C", lam=0.7, scale=40.0, margin=0.4, t=3.0, loss_weight=10.0,
        gradient="detached", weight_norm="in_place", bias="closed_form",
        interclass_filtering_threshold=0.0,
    ),
    # The authors' configuration for MS1M with IResNet-100,
    # https://github.com/ydwen/opensphere/blob/main/config/train/ms1m_iresnet100_sphereface2.yml,
    # whose alpha is lam. They train it in batches of 512 and clip the whole gradient at norm 100.
    "opensphere-ms1m": _preset(
        margin_type="C", lam=0.8, scale=64.0, margin=0.5, t=3.0, loss_weight=50.0,
        gradient="detached", weight_norm="in_place", bias="closed_form",
        interclass_filtering_threshold=0.0,
    ),
    # Speaker verification, https://github.com/wenet-e2e/wespeaker.
    "wespeaker": _preset(
        margin_type="C", lam=0.7, scale=32.0, margin=0.2, t=3.0, loss_weight="scale",
        gradient="exact", weight_norm="in_graph", bias=0.0,
        interclass_filtering_threshold=0.0,
    ),
    # Zhou et al., "UniFace: Unified Cross-Entropy Loss for Deep Face Recognition", ICCV 2023,
    # https://github.com/CVI-SZU/UniFace. Their threshold is on the other side of the equation and
    # their margin on the positives alone: it is twice this one, and their bias ours with its sign
    # turned, less scale * margin. Their code also clamps each logit to -scale..scale, which takes
    # the gradient from where it is largest; this does not.
    "uniface": _preset(
        margin_type="C", lam=0.5, scale=64.0, margin=0.2, t=1.0, loss_weight=128.0,
        gradient="exact", weight_norm="in_graph", bias="uniface",
        interclass_filtering_threshold=0.0,
    ),
})  # fmt: skip
_DEFAULT = PRESETS["opensphere"]


@dataclass(frozen=True)
class Recipe:
    """Hyperparameters of the loss; the defaults are the preset ``"opensphere"``.

    Attributes:
        margin_type: "C", "A", "M" (paper Eq. 8 and appendix C) or "A2" (two-sided).
        lam: weight of the positive term, between 0 and 1 (paper: lambda).
        scale: steepness of the logits, r in the paper.
        margin: m; for "C" in similarity, for "A" and "A2" in radians, for "M" a factor >= 1.
        t: exponent of the similarity adjustment g, >= 1.
        loss_weight: factor on the whole loss, before it is divided by the scale; "scale" takes the
            scale, which makes the loss the plain weighted sum of binary cross-entropies.
        gradient: "detached" takes phi's slope as one (the authors' code); "exact" does not.
        weight_norm: "in_place" stores the class centers at length one before every forward pass
            and leaves their gradient unprojected (the authors' code); "in_graph" differentiates
            through the normalisation.
        bias: initial bias: a number, or a rule of `INITIAL_BIASES` that goes by the number of
            classes.
        interclass_filtering_threshold: negatives with a larger cosine are left out; 0 keeps all.

    Raises:
        ValueError: a value lies outside its domain.
    """

    margin_type: str = _DEFAULT["margin_type"]
    lam: float = _DEFAULT["lam"]
    scale: float = _DEFAULT["scale"]
    margin: float = _DEFAULT["margin"]
    t: float = _DEFAULT["t"]
    loss_weight: float = _DEFAULT["loss_weight"]
    gradient: str = _DEFAULT["gradient"]
    weight_norm: str = _DEFAULT["weight_norm"]
    bias: float | str = _DEFAULT["bias"]
    interclass_filtering_threshold: float = _DEFAULT["interclass_filtering_threshold"]

    _packed: ClassVar[Tensor]  # Each instance's own, and no field.

    @classmethod
    def from_preset(cls, preset: str = "opensphere", **overrides: Any) -> "Recipe":
        """A preset with some values replaced; an override of None keeps the preset's value.

        A margin type that is not the preset's brings its own margin.

        Raises:
            TypeError: no such hyperparameter.
            ValueError: no such preset, or a value outside its domain.
        """
        require_one_of("preset", preset, PRESETS)
        values = dict(PRESETS[preset])
        given = {name: value for name, value in overrides.items() if value is not None}
        unknown = [name for name in given if name not in values]
        if unknown:
            raise TypeError(f"hyperparameters must be of {', '.join(values)}, got {unknown[0]}")
        if given.get("margin_type", values["margin_type"]) != values["margin_type"]:
            values["margin"] = margin_named(given["margin_type"]).default
        return cls(**{**values, **given})

    def __post_init__(self) -> None:
        require_one_of("margin_type", self.margin_type, MARGIN_TYPES)
        require_one_of("gradient", self.gradient, GRADIENTS)
        require_one_of("weight_norm", self.weight_norm, WEIGHT_NORMS)
        margin, kind = MARGIN_TYPES[self.margin_type], f"for margin_type {self.margin_type!r}"
        # A number of numpy's is as good as any, and no operator takes it.
        numbers = dict(
            lam=require_number(
                "lam", self.lam, "between 0 and 1, both excluded", lambda share: 0 < share < 1
            ),
            scale=require_number("scale", self.scale, "above 0", lambda r: r > 0),
            margin=require_number("margin", self.margin, f"{margin.wanted} {kind}", margin.allows),
            t=require_number("t", self.t, "at least 1", lambda t: t >= 1),
            interclass_filtering_threshold=require_number(
                "interclass_filtering_threshold",
                self.interclass_filtering_threshold,
                "between 0 (off) and 1",
                lambda cosine: 0 <= cosine <= 1,
            ),
        )
        if margin.whole_t and self.t != int(self.t):
            raise ValueError(f"t must be a whole number {kind}, got {self.t}")
        if self.loss_weight == "scale":
            numbers["loss_weight"] = numbers["scale"]
        else:
            numbers["loss_weight"] = require_number(
                "loss_weight", self.loss_weight, "above 0", lambda weight: weight > 0
            )
        if isinstance(self.bias, str):
            require_one_of("bias", self.bias, INITIAL_BIASES)
        else:
            numbers["bias"] = require_number("bias", self.bias)
        for name, value in numbers.items():
            object.__setattr__(self, name, value)
        packed = torch.tensor(
            [getattr(self, name) for name in _NUMBERS], dtype=torch.float64, device="cpu"
        )
        object.__setattr__(self, "_packed", packed)

    def initial_bias(self, num_classes: int) -> float:
        """The bias a fresh head of `num_classes` classes starts from."""
        if isinstance(self.bias, str):
            return INITIAL_BIASES[self.bias](self, num_classes)
        return self.bias

    def pack(self) -> tuple[Tensor, str]:
        """What the loss needs of it, as an operator takes it: numbers (N,) float64, and words.

        The numbers are data of a tensor on the CPU, so that `torch.compile` compiles nothing anew
        where one of them changes, as under a margin schedule.
        """
        return self._packed, " ".join([self.margin_type, self.gradient, self.weight_norm])

    @classmethod
    def unpack(cls, numbers: Tensor, words: str) -> "Recipe":
        """The recipe that `pack` packed, but for its initial bias."""
        values: dict[str, Any] = dict(zip(_NUMBERS, numbers.tolist(), strict=True))
        values.update(zip(_WORDS, words.split(), strict=True))
        return cls(**values)


_WORDS = ("margin_type", "gradient", "weight_norm")
_NUMBERS = tuple(
    field.name for field in dataclasses.fields(Recipe) if field.name not in (*_WORDS, "bias")
)


def closed_form_bias(recipe: Recipe, num_classes: int) -> float:
    """The bias that minimises the loss when every angle is a right angle (paper, appendix B).

    One class has no negatives and no finite optimum; it gets the bias of two classes.
    """
    right_angle = torch.zeros((), dtype=torch.float64, device="cpu")
    curve = (right_angle, recipe.margin_type, recipe.margin, recipe.t)
    a_y = recipe.scale * phi_positive(*curve).item()
    a_i = recipe.scale * phi_negative(*curve).item()
    zeta = recipe.lam / ((1 - recipe.lam) * max(num_classes - 1, 1))
    root = math.sqrt((1 - zeta) ** 2 + 4 * zeta * math.exp(a_y - a_i))
    if zeta > 1:  # The same value, without subtracting two nearly equal numbers.
        return math.log((root + zeta - 1) / 2) - a_y
    return math.log(2 * zeta) - a_i - math.log(1 - zeta + root)


def uniface_bias(recipe: Recipe, num_classes: int) -> float:
    """UniFace's: at right angles the negatives' losses add up to 0.1."""
    return -math.log(10 * num_classes) - recipe.scale * recipe.margin


#: Rules for the bias of a fresh head, by (recipe, number of classes).
INITIAL_BIASES: Mapping[str, Callable[[Recipe, int], float]] = MappingProxyType(
    {"closed_form": closed_form_bias, "uniface": uniface_bias}
)
