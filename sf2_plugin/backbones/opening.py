"""Which backbone a file holds."""

from pathlib import Path
from typing import Any

from .onnx import OnnxBackbone
from .protocol import Backbone


def open_backbone(
    path: str | Path,
    *,
    network: str | None = None,
    arcface_torch: str | Path | None = None,
    **onnx: Any,
) -> Backbone:
    """The backbone in a file; nothing in the file is executed.

    Args:
        path: `.onnx`; else a file of torch or safetensors: a checkpoint of MMPretrain where it
            holds a config, and a backbone of arcface_torch, from any trainer, where it does not.
        network: for the latter, the network's name in arcface_torch (r50, mbf, ...).
        arcface_torch: for the latter, its folder, whose `backbones.get_model` builds the network.
        onnx: mean, std, channels and output of an ONNX file, as `OnnxBackbone` takes them, where
            its graph leaves them open.

    Raises:
        ValueError: the file is neither, arcface_torch has no such network, or one of the two
            options is missing.
        FileNotFoundError: there is no such file.
        ImportError: onnxruntime or MMPretrain is not installed.
    """
    path = Path(path)
    if not path.is_file():
        raise FileNotFoundError(f"there is no model {path}")
    if path.suffix == ".onnx":
        return OnnxBackbone(path, **onnx)
    if any(value is not None for value in onnx.values()):
        raise ValueError(f"{path} is no ONNX file, and has no {', '.join(onnx)} to be given")
    # Imports torch, which takes seconds, and which no other command on faces needs.
    from .checkpoint import open_checkpoint

    return open_checkpoint(path, network, arcface_torch)
