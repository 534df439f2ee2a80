"""Files that `torch.save` wrote, read without running code in them and without believing sizes."""

import os
import pickle
import re
import tarfile
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from .reading import UnreadableFile, reading
from .unpickling import RESTRICTED

_MOST_NESTED = 100
#: How many times over the values of a file may stand in it, by references to the same one.
_MOST_SHARED = 16


def load_torch_file(path: str | Path, load: Callable[..., Any] = torch.load) -> Any:
    """What a file holds, on the CPU; its tensors are left on disk until they are used.

    Args:
        load: torch's own function, for whoever has put another in its place.

    Raises:
        ValueError: the file is cut short, is no checkpoint, or holds more than tensors and plain
            values, which would mean running code from it; or its values, nesting or tensors would
            be much larger in use than the file is.
        FileNotFoundError: there is no such file.
    """
    with reading(path, "a checkpoint of tensors"):
        # Files from before torch 1.6 are no archives, and cannot be left on disk.
        archive = zipfile.is_zipfile(path)
        if archive:
            check_archive(path)
        elif tarfile.is_tarfile(path):
            raise ValueError("it is a tar file, which torch once wrote")
        try:
            content = load(os.fspath(path), map_location="cpu", mmap=archive, **RESTRICTED)
        except pickle.UnpicklingError as error:  # torch's own words advise to run the code.
            refused = re.search(r"Unsupported global: GLOBAL (?:builtins\.)?(\S+)", str(error))
            if refused:  # First what is in the way: a module that was saved whole, mostly.
                raise UnreadableFile(
                    f"{path}: it holds {refused[1]}, which is refused: state_dict() gives tensors "
                    "alone"
                ) from error
            raise ValueError("another pickle") from error
        except RuntimeError as error:  # Of several lines, with a trace of C++.
            raise ValueError(str(error).partition("\n")[0]) from error
        _Weighing().weigh(content, depth=0)
        return content


def check_archive(path: str | Path) -> None:
    """Refuse an archive of TorchScript, or one that unfolds: torch stores its parts as they are."""
    with zipfile.ZipFile(path) as archive:
        if any(name.rpartition("/")[2] == "constants.pkl" for name in archive.namelist()):
            raise ValueError("it is a program of TorchScript")
        unfolded = sum(member.file_size for member in archive.infolist())
    if unfolded > os.path.getsize(path):
        raise ValueError(f"its parts unfold to {unfolded} bytes, more than it has")


class _Weighing:
    """Nested values counted as whoever walks through them meets them: what is shared, each time."""

    def __init__(self) -> None:
        #: Of each list and dict, by id: values below, levels below; None while it is counted.
        self.known: dict[int, tuple[int, int] | None] = {}
        self.distinct = 0

    def weigh(self, part: Any, depth: int) -> tuple[int, int]:
        if isinstance(part, Tensor):
            _check_tensor(part)
        if not isinstance(part, (dict, list, tuple, set)) or not part:
            return 1, 0
        if id(part) in self.known:
            known = self.known[id(part)]
            if known is None:
                raise ValueError("it holds a value that holds itself")
        elif depth == _MOST_NESTED:
            known = 0, 1
        else:
            self.known[id(part)] = None
            self.distinct += len(part)
            below = [
                self.weigh(value, depth + 1)
                for value in (part.values() if isinstance(part, dict) else part)
            ]
            known = sum(values for values, _ in below), 1 + max(levels for _, levels in below)
            self.known[id(part)] = known
        if depth + known[1] > _MOST_NESTED:
            raise ValueError(f"it is nested more than {_MOST_NESTED} deep")
        if known[0] > 1000 + _MOST_SHARED * self.distinct:
            raise ValueError("its values refer to each other over and over")
        return known


def _check_tensor(tensor: Tensor) -> None:
    if tensor.layout != torch.strided or tensor.is_nested or tensor.device.type != "cpu":
        raise ValueError("it holds a tensor that is sparse, nested or on no device")
    held, used = tensor.untyped_storage().nbytes(), tensor.numel() * tensor.element_size()
    if used > held:
        raise ValueError(f"it holds a tensor {tuple(tensor.shape)} that has {held} bytes")
