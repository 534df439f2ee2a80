"""Which implementation computes the loss."""

import torch

BACKENDS = ("auto", "reference", "chunked")


def check_backend(backend: str) -> None:
    """Raises ValueError where there is no such backend."""
    if backend not in BACKENDS:
        known = ", ".join(map(repr, BACKENDS))
        raise ValueError(f"backend must be one of {known}, got {backend!r}")


def resolve_backend(backend: str, device: torch.device) -> str:
    """The backend that `backend` stands for on `device`; "auto" takes the fastest one there."""
    check_backend(backend)
    return "chunked" if backend == "auto" else backend
