"""Files that `torch.save` wrote, read without running code in them."""

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
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise ValueError(f"{path} is cut short or no checkpoint of tensors: {reason}") from None
