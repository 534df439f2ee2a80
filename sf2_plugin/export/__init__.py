"""From a checkpoint to a folder that InsightFace's package and `sf2_plugin.deploy` open."""

from .exportable import Exportable, exportable
from .package import Options, export_package

__all__ = ["Exportable", "Options", "export_package", "exportable"]
