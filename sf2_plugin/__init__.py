"""SphereFace2 for the frameworks people train face recognition with."""

from importlib.metadata import PackageNotFoundError, version

from .head import SphereFace2, sphereface2_loss
from .partial_fc import PartialFCSphereFace2
from .recipe import PRESETS, Recipe
from .registry import available_heads, build_head, register_head

try:
    __version__ = version("sf2-plugin")
except PackageNotFoundError:  # Run from a source tree that is not installed.
    __version__ = "0+unknown"

__all__ = [
    "PRESETS",
    "PartialFCSphereFace2",
    "Recipe",
    "SphereFace2",
    "available_heads",
    "build_head",
    "register_head",
    "sphereface2_loss",
]
