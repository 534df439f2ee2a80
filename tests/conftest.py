"""Fixtures shared by every test: where the real faces and the parity numbers lie."""

import os
from pathlib import Path

import pytest
import torch

# Where there is no GPU, Triton's kernels are interpreted; it wants to know before its import.
if not torch.cuda.is_available():
    os.environ.setdefault("TRITON_INTERPRET", "1")

SHARED = Path(os.environ.get("SF2_SHARED", Path(__file__).resolve().parents[2] / "shared"))


@pytest.fixture(scope="session")
def shared_dir() -> Path:
    """The folder beside the project with `data/` and `parity/`; without it the test skips."""
    if not SHARED.is_dir():
        pytest.skip(f"{SHARED} is absent: parity numbers and real faces are not shipped")
    return SHARED
