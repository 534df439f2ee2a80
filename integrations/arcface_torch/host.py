"""The host as this adapter sees it: what it imports, names in its modules, and its config."""

import importlib
import sys
from collections.abc import Callable
from typing import Any

#: What the host imports, besides torch, numpy and what is mended.
LIBRARIES = ("torchvision", "easydict", "sklearn", "scipy", "tensorboard")


def replace(module: str, name: str, make: Callable[[Any], Any]) -> None:
    """Exchange a name of a module for what `make` makes of it.

    The host's script has taken its own references to such names if it runs already.
    """
    owner = importlib.import_module(module)
    old = getattr(owner, name)
    new = make(old)
    setattr(owner, name, new)
    script = sys.modules["__main__"]
    if getattr(script, name, None) is old:
        setattr(script, name, new)


def host_config() -> Any:
    """The config of this run: the host updates that of `configs.base` with the one it is given."""
    return importlib.import_module("configs.base").config
