"""Large tensors on a CPU, without asking the system for their memory in every step."""

import weakref
from collections.abc import Iterator
from contextlib import contextmanager

import numpy as np
import torch
from torch import Tensor

#: Below this, the C allocator keeps memory for itself anyway.
SMALLEST_KEPT = 32 * 1024 * 1024

#: Bytes of a line of the cache; products written to rows that lie across lines take a third longer.
LINE = 64

#: At most one. No lock: garbage may be collected, and memory come back, within any statement.
_kept: list[np.ndarray] = []
_keeping = True


def large_empty_like(tensor: Tensor) -> Tensor:
    """An uninitialised contiguous tensor of `tensor`'s shape, dtype and device.

    The gradient of the class centers is new in every step and gone after it. On a CPU the system
    hands out its memory page by page as it is first written, which can take as long as a step's
    matrix products; so the memory of the last such tensor is kept for the next one of its size, up
    to the process' end, as torch's own allocator keeps it on CUDA.
    """
    if not _keeping or tensor.device.type != "cpu" or tensor.nbytes < SMALLEST_KEPT:
        return torch.empty(tensor.shape, dtype=tensor.dtype, device=tensor.device)
    try:
        memory = _kept.pop()
    except IndexError:
        memory = None
    if memory is None or memory.nbytes != tensor.nbytes:
        room = np.empty(tensor.nbytes + LINE, dtype=np.uint8)
        memory = room[-room.ctypes.data % LINE :][: tensor.nbytes]
    # The tensor holds this view, whose end tells that no tensor uses the memory any more.
    view = memory[:]
    weakref.finalize(view, _keep, memory).atexit = False
    return torch.from_numpy(view).view(tensor.dtype).view(tensor.shape)


def _keep(memory: np.ndarray) -> None:
    _kept[:] = [memory]


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
