"""The weights of a network in a checkpoint, wherever trainers put them, by whatever names.

Trainers put a network's weights under `state_dict`, `model`, `ema_state_dict` and many other names,
and wrappers put `module.`, `_orig_mod.`, `backbone.`, `model.` before each: one thing or the other,
it is a beginning of dotted names. The one is taken after which all names of the network follow.
"""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from .reading import UnreadableFile, reading
from .requirements import require
from .torch_files import load_torch_file

#: What wrappers put into names anywhere.
_WRAPPERS = ("_orig_mod", "_fsdp_wrapped_module", "_checkpoint_wrapped_module")
#: Copies of a network that are kept beside the one that is trained.
_COPIES = ("ema", "swa", "teacher", "momentum", "average")
#: Buffers that a network may go without.
_SPARE = "num_batches_tracked"


def load_checkpoint(path: str | Path) -> Any:
    """What a file of `torch.save` or of safetensors holds, on the CPU.

    Raises:
        ValueError: the file is neither, is damaged, or holds more than tensors and plain values.
        FileNotFoundError: there is no such file.
        ImportError: it is of safetensors, which is not installed.
    """
    if not _is_safetensors(path):
        return load_torch_file(path)
    told = f"{path} is of safetensors"
    load_file = require("safetensors.torch", "safetensors", purpose=told).load_file
    with reading(path, "safetensors"):
        return load_file(path)


def _is_safetensors(path: str | Path) -> bool:
    """Whether a file begins as safetensors do: a length, and as many bytes of JSON."""
    with open(path, "rb") as file:
        length = int.from_bytes(file.read(8), "little")
        return 2 <= length <= os.fstat(file.fileno()).st_size - 8 and file.read(1) == b"{"


def find_weights(
    content: Any, network: torch.nn.Module | Mapping[str, Tensor], name: str, path: str | Path
) -> dict[str, Tensor]:
    """The weights of a network, by its own names.

    Where a checkpoint also holds an average of them (EMA, SWA, a teacher), the trained ones are
    taken; MMEngine's EMAHook puts the average in their place before it saves.

    Args:
        content: what `load_checkpoint` gives.
        network: a module, or its state dict.
        name: what messages call it. path: the file, for messages.

    Raises:
        ValueError: the file holds no weights, those of another network, or those of two.
    """
    wanted = network.state_dict() if isinstance(network, torch.nn.Module) else network
    needed = [key for key in wanted if not key.endswith(_SPARE)]
    tensors = named_tensors(content)
    if not tensors:
        raise UnreadableFile(f"{path}: no weights in it, but {_described(content)}")
    beginnings = _beginnings(tensors, needed)
    if not beginnings:
        raise UnreadableFile(
            f"{path}: not {name}: nothing in it is called {needed[0]}, but {next(iter(tensors))}"
        )
    found = {start: _Found(tensors, start, wanted, needed) for start in beginnings}
    whole = [start for start, each in found.items() if not each.fault]
    trained = [start for start in whole if not _is_copy(start)] or whole
    if not trained:
        nearest = min(found.values(), key=lambda each: each.faults)
        raise UnreadableFile(f"{path}: not {name}: {nearest.fault}")
    first, *others = (found[start].weights for start in trained)
    if any(not torch.equal(first[key], other[key]) for other in others for key in needed):
        raise UnreadableFile(
            f"{path}: {name} is in it {len(trained)} times, under "
            f"{', '.join(start or 'no name' for start in trained)}"
        )
    return first


def named_tensors(content: Any) -> dict[str, Tensor]:
    """All tensors of nested dicts by dotted names, without what wrappers put into them."""
    tensors: dict[str, Tensor] = {}

    def walk(part: Any, start: str) -> None:
        if isinstance(part, Tensor):
            tensors.setdefault(start, part)
        elif isinstance(part, Mapping):
            for key, value in part.items():
                if isinstance(key, str):
                    names = [name for name in key.split(".") if name not in _WRAPPERS]
                    walk(value, ".".join([start, *names] if start else names))

    walk(content, "")
    return tensors


def unwrapped(content: Any, needed: list[str]) -> dict[str, Tensor]:
    """All tensors by the network's own names, where a wrapper put one beginning before each.

    Args:
        content: weights by name.
        needed: names of the network.
    """
    tensors = named_tensors(content)
    beginnings = _beginnings(tensors, needed)
    if len(beginnings) != 1:
        return tensors
    return _under(tensors, beginnings[0])


def _under(tensors: Mapping[str, Tensor], start: str) -> dict[str, Tensor]:
    return {key[len(start) :]: each for key, each in tensors.items() if key.startswith(start)}


class _Found:
    """What lies under one beginning, and what is wrong with it as the network's weights."""

    def __init__(
        self,
        tensors: Mapping[str, Tensor],
        start: str,
        wanted: Mapping[str, Tensor],
        needed: list[str],
    ) -> None:
        under = _under(tensors, start)
        self.weights = {key: under[key] for key in wanted if key in under}
        missing = [key for key in needed if key not in under]
        reshaped = [k for k, tensor in self.weights.items() if tensor.shape != wanted[k].shape]
        # What is beside the network, such as a head, is no matter; layers more than it has are.
        parts = {key.split(".")[0] for key in wanted}
        more = [key for key in under if key not in wanted and key.split(".")[0] in parts]
        self.faults = len(missing) + len(reshaped) + len(more)
        self.fault = ""
        if missing:
            self.fault = f"{len(missing)} of {len(needed)} tensors are missing, as {missing[0]}"
        elif reshaped:
            key = reshaped[0]
            shapes = f"{tuple(self.weights[key].shape)}, not {tuple(wanted[key].shape)}"
            self.fault = f"{key} is {shapes}"
        elif more:
            self.fault = f"{len(more)} tensors too many, as {more[0]}"


def _beginnings(tensors: Mapping[str, Tensor], needed: list[str]) -> list[str]:
    """What stands before the network's names, wherever one of a few of them is found."""
    starts: dict[str, None] = {}
    for name in dict.fromkeys([*needed[:3], *needed[-3:]]):
        for key in tensors:
            if key == name or key.endswith(f".{name}"):
                starts[key[: len(key) - len(name)]] = None
    return list(starts)


def _is_copy(start: str) -> bool:
    return any(word in _COPIES for part in start.split(".") for word in part.split("_"))


def _described(content: Any) -> str:
    if not isinstance(content, Mapping):
        return f"a {type(content).__name__}"
    return json.dumps([str(key)[:40] for key in list(content)[:6]], ensure_ascii=False)
