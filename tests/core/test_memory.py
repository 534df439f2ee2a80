"""Memory of large tensors is used again, and never while a tensor still holds it."""

import pytest
import torch

from sf2_plugin.engine import memory
from sf2_plugin.engine.memory import large_empty_like, nothing_kept


@pytest.fixture(autouse=True)
def _small(monkeypatch):
    monkeypatch.setattr(memory, "SMALLEST_KEPT", 1)
    monkeypatch.setattr(memory, "_kept", [])


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.bfloat16])
def test_memory_is_used_again_once_its_tensor_is_gone(dtype):
    like = torch.zeros(7, 5, dtype=dtype)
    first = large_empty_like(like)
    place = first.data_ptr()
    assert (first.shape, first.dtype) == (like.shape, dtype)
    assert place % memory.LINE == 0
    assert large_empty_like(like).data_ptr() != place
    del first
    assert large_empty_like(like).data_ptr() == place


def test_a_view_of_the_tensor_holds_its_memory():
    like = torch.zeros(64, 8)
    row = large_empty_like(like)[3].fill_(5)
    other = large_empty_like(like).fill_(1)
    assert other.data_ptr() != row.data_ptr()
    assert row.tolist() == [5] * 8


def test_another_size_gets_other_memory():
    large_empty_like(torch.zeros(64, 8))
    larger = large_empty_like(torch.zeros(128, 8)).fill_(2)
    assert larger.shape == (128, 8)
    assert memory._kept == []  # The smaller memory is given up, not written beyond its end.


def test_nothing_is_kept_on_request():
    like = torch.zeros(64, 8)
    with nothing_kept():
        large_empty_like(like)
    assert memory._kept == []
