"""What other projects' code answers on fixed inputs: `tests/data/parity`, made by `record.py`."""

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from sf2_plugin import Recipe
from sf2_plugin.definition import unit

FOLDER = Path(__file__).parents[1] / "data" / "parity"
CHECKPOINT = FOLDER / "arcface_torch_world2"

UNIFACE_CASES = [f"uniface_{k}" for k in range(5)]
HEAD_CASES = [f"opensphere_{k}" for k in range(7)] + [f"wespeaker_{k}" for k in range(5)]


def load_case(file: str, name: str) -> dict[str, np.ndarray]:
    """The arrays of the case `name` in `FOLDER/file`, inputs and answers."""
    with np.load(FOLDER / file) as archive:
        return {k.split("/")[1]: archive[k] for k in archive if k.startswith(name + "/")}


@dataclass
class HeadCase:
    recipe: Recipe
    embeddings: Tensor
    weight: Tensor
    labels: Tensor
    bias: Tensor
    expected: dict[str, Tensor]


def load_head_case(name: str) -> HeadCase:
    values = load_case("heads.npz", name)
    authors = name.startswith("opensphere")
    margin_type = str(values["margin_type"])
    recipe = Recipe.from_preset(
        "opensphere" if authors else "wespeaker",
        # wespeaker calls the two-sided margin "A".
        margin_type=margin_type if authors else {"A": "A2"}.get(margin_type, margin_type),
        lam=float(values["alpha" if authors else "lam"]),
        scale=float(values["r"]),
        margin=float(values["m"]),
        t=float(values["t"]),
        loss_weight=float(values["lw"]) if authors else None,
    )
    tensors = {k: torch.as_tensor(v) for k, v in values.items() if k != "margin_type"}
    weight = tensors["w"]
    return HeadCase(
        recipe=recipe,
        embeddings=tensors["x"].requires_grad_(),
        # The authors' gradient is that by the normalised weights.
        weight=(unit(weight) if authors else weight).requires_grad_(),
        labels=tensors["y"],
        bias=tensors["bias"].reshape(1).requires_grad_(),
        expected=tensors,
    )


def load_uniface_case(name: str) -> tuple[HeadCase, float]:
    """A case, and the weight of its negatives."""
    values = {k: torch.as_tensor(v) for k, v in load_case("uniface.npz", name).items()}
    scale, margin = values["s"].item(), values["m"].item() / 2
    recipe = Recipe.from_preset("uniface", scale=scale, margin=margin, loss_weight=2 * scale)
    case = HeadCase(
        recipe=recipe,
        embeddings=values["x"].requires_grad_(),
        weight=values["w"].requires_grad_(),
        labels=values["y"],
        bias=(-values["bias"] - scale * margin).requires_grad_(),
        expected=values,
    )
    return case, values["l"].item()


def relative_error(actual: Tensor, expected: Tensor, floor: float = 0.0) -> float:
    """Largest difference, relative to the largest value expected or to `floor` above it."""
    actual, expected = actual.detach().double(), expected.detach().double()
    if expected.numel() == 0:
        return 0.0
    scale = expected.abs().max().clamp(min=max(floor, torch.finfo(torch.float64).tiny))
    return ((actual - expected).abs().max() / scale).item()
