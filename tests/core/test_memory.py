"""Memory of a step's tensors is used again, and never while a tensor still holds it."""

from concurrent.futures import ThreadPoolExecutor

import pytest
import torch

from sf2_plugin.engine import memory
from sf2_plugin.engine.memory import nothing_kept, reused_empty

LIKE = torch.zeros(1)


@pytest.fixture(autouse=True)
def _small(monkeypatch):
    monkeypatch.setattr(memory, "SMALLEST_KEPT", 1)
    monkeypatch.setattr(memory, "LARGE", 4000)
    monkeypatch.setattr(memory, "_large", [])
    monkeypatch.setattr(memory, "_others", [])


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.bfloat16])
@pytest.mark.parametrize("shape", [(7, 5), (700, 50)])
def test_memory_is_used_again_once_its_tensor_is_gone(dtype, shape):
    first = reused_empty(LIKE.to(dtype), *shape)
    place = first.data_ptr()
    assert (first.shape, first.dtype) == (shape, dtype)
    assert place % memory.LINE == 0
    other = reused_empty(LIKE, *shape, dtype=dtype)
    assert other.data_ptr() != place
    del first
    assert reused_empty(LIKE, *shape, dtype=dtype).data_ptr() == place


def test_a_view_of_the_tensor_holds_its_memory():
    row = reused_empty(LIKE, 64, 8)[3].fill_(5)
    other = reused_empty(LIKE, 64, 8).fill_(1)
    assert other.data_ptr() != row.data_ptr()
    assert row.tolist() == [5] * 8


def test_a_somewhat_smaller_tensor_takes_it_and_gives_all_of_it_back():
    first = reused_empty(LIKE, 100)
    place = first.data_ptr()
    del first
    for count in (90, 100, 80):
        assert reused_empty(LIKE, count).fill_(1).data_ptr() == place
    assert reused_empty(LIKE, 79).data_ptr() != place
    assert reused_empty(LIKE, 101).data_ptr() != place


def test_one_large_tensors_memory_is_kept_and_a_few_of_the_others():
    tensors = [reused_empty(LIKE, 2000 + n) for n in range(3)]
    tensors += [reused_empty(LIKE, 10 + n) for n in range(12)]
    del tensors
    assert len(memory._large) == memory.MOST_LARGE == 1
    assert len(memory._others) == memory.MOST_OTHERS
    # It is given up for one of another size, not held beside it.
    larger = reused_empty(LIKE, 9000)
    assert memory._large == []
    assert larger.shape == (9000,)


def test_threads_share_no_memory():
    def fill(number):
        for _ in range(200):
            tensor = reused_empty(LIKE, 50).fill_(number)
            if not (tensor == number).all():
                return False
        return True

    with ThreadPoolExecutor(4) as pool:
        assert all(pool.map(fill, range(4)))


def test_nothing_is_kept_on_request():
    with nothing_kept():
        reused_empty(LIKE, 64, 8)
        reused_empty(LIKE, 640, 80)
    assert memory._large == memory._others == []
