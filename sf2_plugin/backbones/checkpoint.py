"""The backbone in a checkpoint of torch or safetensors."""

import pickletools
import pkgutil
import zipfile
from collections.abc import Callable
from pathlib import Path

from ..reading import reading
from ..torch_files import check_archive
from ..weights import load_checkpoint, named_tensors
from .protocol import Backbone

#: Hosts' own backbones, which lie beside their adapters and are imported when they are wanted.
HOSTS = {
    "mmpretrain": "sf2_plugin.integrations.mmpretrain.checkpoint_backbone:MMPretrainBackbone",
    "arcface_torch": "sf2_plugin.integrations.arcface_torch.trained_backbone:ArcfaceTorchBackbone",
}


def open_checkpoint(path: Path, network: str | None, arcface_torch: str | Path | None) -> Backbone:
    """As `open_backbone` does, of a file that is no ONNX file."""
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
