"""arcface_torch's network as it goes into an ONNX file."""

from pathlib import Path

from sf2_plugin.export import Exportable

from .trained_backbone import ArcfaceTorchBackbone

_SIZE = 112


def exportable(backbone: ArcfaceTorchBackbone, path: Path, size: int | None) -> Exportable:
    """The network as it is: its host gives it 112x112 RGB faces, (x - 127.5) / 127.5.

    Raises:
        ValueError: another size is wanted.
    """
    if size not in (None, _SIZE):
        raise ValueError(f"size must be {_SIZE}, which arcface_torch's networks take, got {size}")
    facts = {
        "framework": "arcface_torch",
        "network": backbone.settings.removeprefix("arcface_torch "),
        "preprocessing": "RGB, (x - 127.5) / 127.5",
    }
    return Exportable(backbone.network, _SIZE, facts)
