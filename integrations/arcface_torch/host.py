"""The host as this adapter sees it: what it imports, its config, and what it has built so far."""

import importlib
import sys
from typing import Any

from torch import nn

from sf2_plugin import patching
from sf2_plugin.patching import Make

#: What the host's training imports, besides torch, numpy and what is patched.
LIBRARIES = ("torchvision", "easydict", "sklearn", "scipy", "tensorboard")

#: The network that the host has built, once it has.
backbone: nn.Module | None = None

#: Its loader of faces: a DataLoader, or DALI's.
loader: Any = None


def replace(target: str, make: Make, key: str) -> None:
    """Exchange a dotted name, also where the host's script has taken its own reference to it."""
    old, new = patching.replace(target, make, key)
    script = sys.modules["__main__"]
    name = target.rpartition(".")[2]
    if getattr(script, name, None) is old:
        setattr(script, name, new)


def host_config() -> Any:
    """The config of this run: the host updates that of `configs.base` with the one it is given."""
    return importlib.import_module("configs.base").config


def remember_backbone(get_model: Any) -> Any:
    def build(*args: Any, **kwargs: Any) -> Any:
        global backbone
        backbone = get_model(*args, **kwargs)
        return backbone

    return build


def remember_loader(get_dataloader: Any) -> Any:
    def build(*args: Any, **kwargs: Any) -> Any:
        global loader
        loader = get_dataloader(*args, **kwargs)
        return loader

    return build
