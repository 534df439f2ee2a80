"""What of a host's model goes into an ONNX file."""

import pkgutil
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from torch import nn

from ..backbones import Backbone


@dataclass(frozen=True)
class Exportable:
    """A network by InsightFace's convention, with what is known of it.

    Attributes:
        network: (N, 3, size, size), RGB, (x - 127.5) / 127.5 of an aligned crop -> (N, D). What its
            host does to a face besides (another size, mean, std or order) is inside it.
        size: of the aligned crops, in pixels.
        facts: what the network is and how it was trained, for people; name -> value.
    """

    network: nn.Module
    size: int
    facts: Mapping[str, str] = field(default_factory=dict)


def exportable(backbone: Backbone, path: Path, size: int | None = None) -> Exportable:
    """What a host says of its backbone.

    Args:
        backbone: as `open_backbone` gives it; one that can be exported names, as "module:function",
            its `exporter`, which is called with these arguments.
        path: the checkpoint's.
        size: of the aligned crops to be given; None for what suits the network.

    Raises:
        ValueError: the backbone is no host's, or does something to faces, or wants a size, that
            cannot be put into a graph.
    """
    exporter = getattr(backbone, "exporter", None)
    if exporter is None:
        raise ValueError(
            f"{path} must be a checkpoint of MMPretrain or arcface_torch, got a "
            f"{type(backbone).__name__}"
        )
    return pkgutil.resolve_name(exporter)(backbone, path, size)
