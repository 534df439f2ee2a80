"""Where a backend is tested: Triton's kernels on a GPU, or interpreted where there is none."""

import pytest
import torch

from sf2_plugin.engine.backends import unfit_triton

CPU, CUDA = torch.device("cpu"), torch.device("cuda")
#: Backends that are Triton's kernels.
TRITON = ("triton", "fused")


def runnable(backend):
    """`backend`; the test skips where it cannot run."""
    if backend in TRITON and (unfit := unfit_triton()):
        pytest.skip(unfit)
    return backend


def device_of(backend):
    return CUDA if backend in TRITON and torch.cuda.is_available() else CPU


def needs(there, version):
    """Skips a test of what torch has from that version on."""
    return pytest.mark.skipif(not there, reason=f"needs torch {version}")
