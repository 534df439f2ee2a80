"""Which implementation computes the loss."""

import logging
import os
from functools import cache
from importlib.util import find_spec

import torch

from .pointwise import Pointwise

BACKENDS = ("auto", "reference", "chunked", "triton")

#: What the kernels were written for: Ampere and later.
SMALLEST_CAPABILITY = (8, 0)

logger = logging.getLogger("sf2_plugin")


def check_backend(backend: str) -> None:
    """Raises ValueError where there is no such backend."""
    if backend not in BACKENDS:
        known = ", ".join(map(repr, BACKENDS))
        raise ValueError(f"backend must be one of {known}, got {backend!r}")


def resolve_backend(backend: str, device: torch.device, dtype: torch.dtype = torch.float32) -> str:
    """The backend that `backend` stands for with embeddings of `dtype` on `device`.

    "auto" takes the fastest one there is, and logs once which one that is and why.

    Raises:
        ValueError: no such backend, or "triton" where it cannot run.
    """
    check_backend(backend)
    if backend not in ("auto", "triton"):
        return backend
    obstacle = _obstacle_to_triton(device, dtype)
    if backend == "auto":
        choice = "chunked" if obstacle else "triton"
        # What falls short of a GPU's best is worth a warning; a CPU has nothing better.
        level = logging.WARNING if obstacle and device.type == "cuda" else logging.INFO
        return _report(choice, obstacle or "nothing stands against it", level)
    interpreted = os.environ.get("TRITON_INTERPRET") == "1" and dtype != torch.float64
    if obstacle and not interpreted:
        raise ValueError(f"backend 'triton' cannot run: {obstacle}; take 'chunked' or 'auto'")
    return backend


def _obstacle_to_triton(device: torch.device, dtype: torch.dtype) -> str | None:
    """Why the Triton kernels cannot run on `device`, or None where they can."""
    if dtype == torch.float64:
        return "Triton's kernels compute in float32, and the embeddings are float64"
    if device.type != "cuda":
        return f"Triton's kernels need a CUDA device, and the embeddings are on {device.type}"
    if find_spec("triton") is None:
        return "Triton is not installed"
    capability = torch.cuda.get_device_capability(device)
    if capability < SMALLEST_CAPABILITY:
        needed, there = (".".join(map(str, c)) for c in (SMALLEST_CAPABILITY, capability))
        return f"Triton's kernels need compute capability {needed}, and {device} has {there}"
    return None


@cache
def _report(choice: str, why: str, level: int) -> str:
    logger.log(level, "SphereFace2's backend is %r: %s", choice, why)
    return choice


def pointwise_of(backend: str) -> type[Pointwise]:
    """The pointwise parts of a backend of the sweep."""
    if backend == "triton":
        from .pointwise_triton import TritonPointwise

        return TritonPointwise
    from .pointwise_torch import TorchPointwise

    return TorchPointwise
