"""Files that `torch.save` wrote, read without running code in them."""

import pickle
import re
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch


def load_torch_file(path: str | Path, load: Callable[..., Any] = torch.load) -> Any:
    """What a file holds, on the CPU; its tensors are left on disk until they are used.

    Args:
        load: torch's own function, for whoever has put another in its place.

    Raises:
        ValueError: the file is cut short, is no checkpoint, or holds more than tensors and plain
            values, which would mean running code from it.
        FileNotFoundError: there is no such file.
    """
    try:
        # Files from before torch 1.6 are no archives, and cannot be left on disk.
        return load(path, map_location="cpu", weights_only=True, mmap=zipfile.is_zipfile(path))
    except FileNotFoundError:
        raise
    except Exception as error:  # The zip reader and the unpickler fail in ways of their own.
        raise ValueError(
            f"{path} is cut short or no checkpoint of tensors: {_reason(error)}"
        ) from None


def _reason(error: Exception) -> str:
    if isinstance(error, pickle.UnpicklingError):  # torch's own words advise to run the code.
        refused = re.search(r"Unsupported global: GLOBAL (\S+)", str(error))
        return f"it holds {refused[1]}, which is refused" if refused else "another pickle"
    return str(error).partition("\n")[0] or type(error).__name__
