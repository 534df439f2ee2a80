"""Where a backend is tested: Triton's kernels on a GPU, or interpreted where there is none."""

import itertools

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


def grid(backend, *axes):
    """Every combination of the axes' values; of interpreted kernels, which are slow, fewer.

    Of those each value still meets each of every other axis.
    """
    cases = list(itertools.product(*axes))
    if device_of(backend) == CUDA or backend not in TRITON:
        return cases
    pairs = {case: set(itertools.combinations(enumerate(case), 2)) for case in cases}
    missing, chosen = set().union(*pairs.values()), []
    while missing:
        chosen.append(max(cases, key=lambda case: len(pairs[case] & missing)))
        missing -= pairs[chosen[-1]]
    return chosen


def device_of(backend):
    return CUDA if backend in TRITON and torch.cuda.is_available() else CPU


def needs(there, version):
    """Skips a test of what torch has from that version on."""
    return pytest.mark.skipif(not there, reason=f"needs torch {version}")
