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
        from .requirements import version  # Takes longer than all else here.

        value: Any = version("sf2-plugin") or "0+unknown"  # Of a source tree not installed.
    elif name in _MODULES:
        value = getattr(importlib.import_module(f"{__name__}.{_MODULES[name]}"), name)
    else:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
