"""What takes over where a kernel does not compile, launch or agree."""

import logging

import pytest
import torch

from sf2_plugin import Recipe, SphereFace2
from sf2_plugin.engine import backends, trial
from sf2_plugin.engine.backends import pointwise_of

from ..devices import device_of, runnable


@pytest.fixture(params=["triton", "fused"])
def backend(request, monkeypatch):
    """A backend of kernels that has not been tried yet, and a case small enough to interpret."""
    trial._proven.cache_clear()
    monkeypatch.setattr(trial, "FACES", 20)
    monkeypatch.setattr(trial, "CLASSES", 40)
    monkeypatch.setattr(trial, "CHUNK", 30)
    yield runnable(request.param)
    trial._proven.cache_clear()


def proven(backend, recipe=None):
    return trial.proven(backend, device_of(backend), torch.float32, recipe or Recipe(), 16)


@pytest.mark.parametrize("preset", ["opensphere", "wespeaker"])
def test_what_agrees_is_taken(backend, preset, caplog):
    assert proven(backend, Recipe.from_preset(preset)) == backend
    assert not caplog.messages


def test_the_plain_engine_needs_no_trial(monkeypatch):
    monkeypatch.setattr(trial, "_proven", None)
    assert proven("chunked") == "chunked"


def wrong(totals):
    return lambda parts: (totals(parts)[0] * 1.001, totals(parts)[1])


def broken(totals):
    def fail(parts):
        raise RuntimeError("out of resource: shared memory\nand more")

    return fail


def absent(totals):
    return lambda parts: tuple(total * float("nan") for total in totals(parts))


@pytest.mark.parametrize(
    ("fault", "said"),
    [
        (wrong, "loss differs by 1.0e-03 from 'chunked', in torch.float32"),
        (broken, "RuntimeError: out of resource: shared memory)"),
        (absent, "loss differs by nan"),
    ],
)
def test_the_plain_engine_takes_over_with_one_line(backend, monkeypatch, caplog, fault, said):
    kernels = pointwise_of(backend)
    monkeypatch.setattr(kernels, "totals", fault(kernels.totals))
    caplog.set_level(logging.WARNING, "sf2_plugin")
    assert [proven(backend) for _ in range(2)] == ["chunked", "chunked"]
    (line,) = caplog.messages
    assert said in line
    assert "report" in line


def test_only_the_automatic_choice_is_tried(backend, monkeypatch):
    """A backend asked for by name runs, or says why not."""
    kernels = pointwise_of(backend)
    monkeypatch.setattr(kernels, "totals", broken(kernels.totals))
    monkeypatch.setattr(backends, "AUTO", (backend, "chunked"))
    obstacles = {
        **backends.BACKENDS,
        backend: backends.Backend(backends.BACKENDS[backend].pointwise),
    }
    monkeypatch.setattr(backends, "BACKENDS", obstacles)
    device = device_of(backend)
    x, labels = torch.randn(5, 16, device=device), torch.arange(5, device=device)
    assert torch.isfinite(SphereFace2(9, 16).to(device)(x, labels))
    with pytest.raises(RuntimeError, match="out of resource"):
        SphereFace2(9, 16, backend=backend).to(device)(x, labels)
