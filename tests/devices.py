"""Where a backend is tested: Triton's kernels on a GPU, or interpreted where there is none."""

import pytest
import torch

CPU, CUDA = torch.device("cpu"), torch.device("cuda")


def runnable(backend):
    """`backend`; the test skips where it cannot run."""
    if backend == "triton":
        pytest.importorskip("triton")
    return backend


def device_of(backend):
    return CUDA if backend == "triton" and torch.cuda.is_available() else CPU
