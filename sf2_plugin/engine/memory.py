"""Tensors of a step on a CPU, without asking the system for their memory in every step."""

import math
import weakref
from collections.abc import Iterator
from contextlib import contextmanager

import numpy as np
import torch
from torch import Tensor

#: Below this, new memory costs nothing to speak of.
SMALLEST_KEPT = 2**20
#: Memory from here on, as the class centers' gradient takes, is kept for one tensor at a time, what
#: a chunk or a sample of classes needs for several.
LARGE, MOST_LARGE, MOST_OTHERS = 2**25, 1, 8

#: Bytes of a line of the cache; products written to rows that lie across lines take a third longer.
LINE = 64

#: What no tensor uses, the latest last. No lock: garbage may be collected, and memory come back,
#: within any statement; what is popped is one thread's.
_large: list[np.ndarray] = []
_others: list[np.ndarray] = []
_keeping = True


def reused_empty(like: Tensor, *shape: int, dtype: torch.dtype | None = None) -> Tensor:
    """An uninitialised contiguous tensor of a shape, of the dtype and device of `like`.

    The gradient of the class centers is new in every step and gone after it, and so is what a chunk
    of classes needs. On a CPU the system hands out their memory page by page as it is first
    written, which can take as long as a step's matrix products; so that of the last such tensors is
    kept for the next of their size, up to the process' end, as torch's own allocator keeps it on
    CUDA.
    """
    dtype = dtype or like.dtype
    size = math.prod(shape) * dtype.itemsize
    if not _keeping or like.device.type != "cpu" or size < SMALLEST_KEPT:
        return torch.empty(shape, dtype=dtype, device=like.device)
    memory = _take(size)
    if memory is None:
        room = np.empty(size + LINE, dtype=np.uint8)
        memory = room[-room.ctypes.data % LINE :][:size]
    # The tensor holds this view, whose end tells that no tensor uses the memory any more.
    view = memory[:size]
    weakref.finalize(view, _keep, memory).atexit = False
    return torch.from_numpy(view).view(dtype).view(shape)


def _pool(size: int) -> tuple[list[np.ndarray], int]:
    """Where memory of that size waits, and how many do at most."""
    return (_large, MOST_LARGE) if size >= LARGE else (_others, MOST_OTHERS)


def _take(size: int) -> np.ndarray | None:
    """Memory of that size, or of up to a quarter more; the oldest is given up for what is new."""
    kept, most = _pool(size)
    passed: list[np.ndarray] = []
    found = None
    while kept and found is None:
        try:
            memory = kept.pop()
        except IndexError:  # Another thread was faster.
            break
        if size <= memory.nbytes <= size * 5 // 4:
            found = memory
        else:
            passed.append(memory)
    kept[:0] = reversed(passed[: most - 1])
    return found


def _keep(memory: np.ndarray) -> None:
    kept, most = _pool(memory.nbytes)
    kept.append(memory)
    del kept[:-most]


def keeps_memory(tensor: Tensor) -> bool:
    """Whether memory for the likes of `tensor` is worth keeping from one step to the next."""
    return _keeping and tensor.device.type == "cpu"


@contextmanager
def nothing_kept() -> Iterator[None]:
    """Within, memory is asked for anew every time: to measure what a step takes."""
    global _keeping
    _keeping = False
    try:
        yield
    finally:
        _keeping = True
