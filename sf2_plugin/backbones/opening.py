"""Which backbone a file holds."""

import pickletools
import pkgutil
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

from ..reading import reading
from ..torch_files import check_archive
from ..weights import load_checkpoint, named_tensors
from .onnx import OnnxBackbone
from .protocol import Backbone

#: Hosts' own backbones, which lie beside their adapters and are imported when they are wanted.
HOSTS = {
    "mmpretrain": "sf2_plugin.integrations.mmpretrain.checkpoint_backbone:MMPretrainBackbone",
    "arcface_torch": "sf2_plugin.integrations.arcface_torch.trained_backbone:ArcfaceTorchBackbone",
}


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
    if holds_mmengines_own(path):
        _host("mmpretrain")  # Lets them be read.
    content = load_checkpoint(path)
    meta = content.get("meta") if isinstance(content, dict) else None
    if isinstance(meta, dict) and "cfg" in meta:
        backbone = _host("mmpretrain")
        with reading(path, "a checkpoint of MMPretrain"):
            return backbone(path, content)
    if not named_tensors(content):
        raise ValueError(f"{path}: no weights in it, but a {type(content).__name__}")
    if network is None:
        raise ValueError(
            f"{path}: which network? It has no config, as MMPretrain's checkpoints have; for a "
            "backbone of arcface_torch, give --network and --arcface-torch"
        )
    if arcface_torch is None:
        raise ValueError(f"network {network} needs the folder of arcface_torch to build it")
    return _host("arcface_torch")(path, content, network, arcface_torch)


def holds_mmengines_own(path: Path) -> bool:
    """Whether a torch file holds what MMEngine puts beside weights: its log history, arrays."""
    try:
        check_archive(path)
        with zipfile.ZipFile(path) as archive:
            content = next(name for name in archive.namelist() if name.endswith("data.pkl"))
            names = [
                str(argument)
                for operation, argument, _ in pickletools.genops(archive.read(content))
                if operation.name == "GLOBAL"
            ]
    except Exception:  # Whoever reads the file says what is wrong with it.
        return False
    return any(name.startswith(("mmengine.", "numpy.")) for name in names)


def _host(name: str) -> Callable[..., Backbone]:
    return pkgutil.resolve_name(HOSTS[name])
