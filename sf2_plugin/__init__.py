"""SphereFace2 for the frameworks people train face recognition with."""

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from .head import SphereFace2, sphereface2_loss
    from .partial_fc import PartialFCSphereFace2
    from .recipe import PRESETS, Recipe
    from .registry import available_heads, build_head, register_head

    __version__: str

#: Name -> the module it comes from when it is first used: figures and files need no torch.
_MODULES = {
    "PRESETS": "recipe",
    "PartialFCSphereFace2": "partial_fc",
    "Recipe": "recipe",
    "SphereFace2": "head",
    "available_heads": "registry",
    "build_head": "registry",
    "register_head": "registry",
    "sphereface2_loss": "head",
}

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


def __getattr__(name: str) -> Any:
    if name == "__version__":
        value: Any = _version()
    elif name in _MODULES:
        value = getattr(importlib.import_module(f"{__name__}.{_MODULES[name]}"), name)
    else:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    globals()[name] = value
    return value


def _version() -> str:
    from importlib import metadata  # Takes longer than all else here.

    try:
        return metadata.version("sf2-plugin")
    except metadata.PackageNotFoundError:  # Run from a source tree that is not installed.
        return "0+unknown"


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
