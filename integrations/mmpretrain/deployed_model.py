"""MMPretrain's network as it goes into an ONNX file."""

import copy
import dataclasses
from collections.abc import Callable
from pathlib import Path
from typing import Any

from torch import Tensor, nn

from sf2_plugin import SphereFace2
from sf2_plugin.export import Exportable
from sf2_plugin.torch_files import load_torch_file

from ..mmengine.dataset_embedding import embed_inputs
from .checkpoint_backbone import MMPretrainBackbone

Step = Callable[[Tensor], Tensor]


class AlignedFaces(nn.Module):
    """From InsightFace's input, RGB and (x - 127.5) / 127.5, to the host's own, and on."""

    def __init__(self, model: Any, steps: list[Step]) -> None:
        super().__init__()
        self.model = model
        self.steps = steps

    def forward(self, faces: Tensor) -> Tensor:
        pixels = faces * 127.5 + 127.5
        for step in self.steps:
            pixels = step(pixels)
        # The host takes BGR, as MMCV reads images.
        inputs = self.model.data_preprocessor({"inputs": pixels.flip(1)}, False)["inputs"]
        return embed_inputs(self.model, inputs)


def exportable(backbone: MMPretrainBackbone, path: Path, size: int | None) -> Exportable:
    """The test pipeline after loading, data preprocessor, backbone, neck and head's `pre_logits`.

    Args:
        size: of the aligned crops; None for the network's own where InsightFace's package cuts
            such, else 112, of which the pipeline makes the network's.

    Raises:
        ValueError: a transform in the pipeline that cannot be put into a graph.
    """
    transforms = backbone.pipeline.transforms
    if size is None:
        first = next((scale[0] for each in transforms if (scale := _scale(each))), 112)
        size = 112 if first % 112 else first
    steps: list[Step] = []
    height = width = size
    for transform in transforms:
        step, height, width = _geometry(transform, height, width)
        steps += [step] if step else []
    model = copy.deepcopy(backbone.model).cpu()
    facts = {"framework": "MMPretrain", **_facts(model, path)}
    facts["preprocessing"] = _preprocessing(model.data_preprocessor, size, (height, width))
    return Exportable(AlignedFaces(model, steps), size, facts)


def _scale(transform: Any) -> tuple[int, int] | None:
    """(width, height) that a transform resizes a square image to; None where it does not."""
    name = type(transform).__name__
    if name == "Resize" and transform.scale is not None:
        width, height = transform.scale
        return (min(width, height),) * 2 if transform.keep_ratio else (width, height)
    return (transform.scale, transform.scale) if name == "ResizeEdge" else None


def _geometry(transform: Any, height: int, width: int) -> tuple[Step | None, int, int]:
    """A transform as a step on (N, 3, height, width), if it does anything; the new size."""
    name = type(transform).__name__
    if name == "PackInputs":
        return None, height, width
    if name == "CenterCrop" and not transform.auto_pad:
        wide, high = transform.crop_size
        top, left = (max(0, round((of - to) / 2)) for of, to in ((height, high), (width, wide)))
        high, wide = min(high, height), min(wide, width)
        return (lambda x: x[:, :, top : top + high, left : left + wide]), high, wide
    scale = _scale(transform)
    if scale is None or height != width:
        raise ValueError(
            f"the test pipeline has {name}, which cannot be put into a graph; Resize, ResizeEdge, "
            "CenterCrop and PackInputs can"
        )
    wide, high = scale
    if (high, wide) == (height, width):
        return None, height, width
    if transform.backend != "cv2" or transform.interpolation != "bilinear":
        raise ValueError(
            f"the test pipeline has {name} by {transform.backend}, {transform.interpolation}, "
            f"which cannot be put into a graph: give crops of {wide}x{high}, by --size"
        )
    return (lambda x: _resize(x, high, wide)), high, wide


def _resize(pixels: Tensor, height: int, width: int) -> Tensor:
    """As OpenCV does: bilinear without smoothing. Its rounding to whole numbers is left out."""
    return nn.functional.interpolate(
        pixels, size=(height, width), mode="bilinear", align_corners=False
    )


def _preprocessing(preprocessor: Any, size: int, network: tuple[int, int]) -> str:
    """For people."""
    parts = [f"to {network[1]}x{network[0]}"] if network != (size, size) else []
    parts.append("RGB" if getattr(preprocessor, "to_rgb", False) else "BGR")
    mean, std = (getattr(preprocessor, name, None) for name in ("mean", "std"))
    if isinstance(mean, Tensor) and isinstance(std, Tensor):
        numbers = [", ".join(f"{value:g}" for value in each.flatten()) for each in (mean, std)]
        parts.append(f"(x - ({numbers[0]})) / ({numbers[1]})")
    return ", ".join(parts) + ", inside the file"


def _facts(model: Any, path: Path) -> dict[str, str]:
    """The network and how it was trained, as far as the checkpoint says."""
    named = [getattr(model, name, None) for name in ("backbone", "neck")]
    parts = [type(each).__name__ for each in named if each is not None]
    facts = {"network": " and ".join(parts) or type(model).__name__}
    head = getattr(model, "head", None)
    if head is not None:
        facts["head"] = type(head).__name__
        for module in head.modules():
            if isinstance(module, SphereFace2):
                recipe = dataclasses.asdict(module.recipe)
                facts["recipe"] = ", ".join(f"{name} {value}" for name, value in recipe.items())
    meta = load_torch_file(path)["meta"]
    facts |= {
        label: str(meta[name])
        for name, label in (("epoch", "epochs"), ("iter", "iterations"), ("time", "saved"))
        if isinstance(meta.get(name), (int, str))
    }
    return facts
