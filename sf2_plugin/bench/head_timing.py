"""Forward and backward of a head, over the cost of its matrix products alone."""

import gc
import math
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from ..compat import OutOfMemoryError
from ..engine.memory import nothing_kept
from ..engine.sweep import default_chunk_size
from ..head import SphereFace2
from ..partial_fc import PartialFCSphereFace2
from ..progress import progress_bar
from ..sampling import require_sample_rate
from .environment import environment
from .measure import MIB, Step, interleaved_medians, peak_memory
from .peers import Head, Shape, built_peer, parse_peers

DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16, "float16": torch.float16}


def measure_head(
    batch: int,
    classes: int,
    dim: int,
    *,
    dtype: str = "float32",
    device: str | None = None,
    rounds: int = 7,
    sample_rate: float = 1.0,
    peers: Sequence[str] = (),
    **head_arguments: Any,
) -> dict[str, Any]:
    """The figures of `sf2 bench head`: milliseconds, and MiB (2^20 bytes).

    What does not fit into a GPU's memory has None for a figure.

    Args:
        sample_rate: below 1, `PartialFCSphereFace2` takes the place of `SphereFace2`, and the floor
            is that of the sampled classes.
        peers: ``NAME`` or ``NAME=PATH``, see `sf2_plugin.bench.peers`.
        head_arguments: for `SphereFace2`.

    Raises:
        ValueError, FileNotFoundError, ImportError: an unknown or absent peer or device.
    """
    require_sample_rate(sample_rate)
    wanted = parse_peers(peers)
    place = device_of(device)
    if place.type == "cpu" and dtype != "float32":
        raise ValueError(f"dtype must be float32 on a CPU, where all products are, got {dtype!r}")
    torch.manual_seed(0)
    x = torch.randn(batch, dim, device=place, requires_grad=True)
    labels = torch.randint(classes, (batch,), device=place)
    if sample_rate < 1:
        head_arguments["sample_rate"] = sample_rate
    kind = PartialFCSphereFace2 if sample_rate < 1 else SphereFace2
    with place:  # Where its centers are drawn at once.
        own = kind(classes, dim, **head_arguments)
    figures = {
        "batch": batch,
        "classes": classes,
        "dim": dim,
        "dtype": dtype,
        "device": place.type,
        "rounds": rounds,
        "sample_rate": sample_rate,
        "head": own.extra_repr(),
        **environment(place),
    }

    sampled = own.weight[: math.ceil(sample_rate * classes)]
    whole, by_chunks = (_Floor(sampled, x, DTYPES[dtype], by_chunks=b) for b in (False, True))
    company: dict[str, Step] = {"floor": whole}
    step = _HeadStep(Head(own, own), x, labels, DTYPES[dtype])
    times, memory = _measured("head", step, {**company, "floor by chunks": by_chunks}, rounds)
    floor = min(times["floor"], times["floor by chunks"])
    figures.update(
        _row("head", times, memory, floor),
        floor_ms=floor,
        floor_whole_ms=times["floor"],
        floor_by_chunks_ms=times["floor by chunks"],
    )
    if times["floor by chunks"] < times["floor"]:
        company["floor"] = by_chunks
    company["head"] = step
    if place.type == "cuda":
        # Each peer alone, for it may need all the memory there is. A CPU, whose speed drifts and
        # whose memory is large, runs them by turns with this head.
        del own, sampled, step, whole, by_chunks
        company.clear()
    figures["peers"] = {}
    for name, path in wanted.items():
        with built_peer(name, path, Shape(classes, dim, sample_rate), place) as peer:
            step = _HeadStep(peer, x, labels, DTYPES[dtype])
            times, memory = _measured(name, step, company, rounds)
            del peer, step  # Before the next one is built.
        row = _row(name, times, memory, times.get("floor", floor))
        row["speedup"] = _over(row["head_ms"], times.get("head", figures["head_ms"]))
        figures["peers"][name] = row
    return figures


def _measured(
    name: str, step: "_HeadStep", company: Mapping[str, Step], rounds: int
) -> tuple[dict[str, float], float | None]:
    """Milliseconds of `step`, timed by turns with its company, and its extra MiB.

    Without figures of its own where it does not find the memory it needs.
    """
    device = step.x.device
    progress = progress_bar(f"measuring {name}")
    try:
        times = interleaved_medians({**company, name: step}, rounds, device, progress)
        return times, step.peak_extra() / MIB
    except OutOfMemoryError:
        step.forget()
    gc.collect()
    torch.cuda.empty_cache()
    return (interleaved_medians(company, rounds, device) if company else {}), None


def _row(
    name: str, times: Mapping[str, float], memory: float | None, floor: float
) -> dict[str, Any]:
    own = times.get(name)
    return {"head_ms": own, "ratio": _over(own, floor), "peak_extra_mb": memory}


class _Floor:
    """The three matrix products alone, into outputs that are already there.

    Args:
        by_chunks: of classes, as the engine takes them, instead of all at once: the libraries
            that multiply cut some shapes badly, and a slow floor would flatter.
    """

    def __init__(self, weight: Tensor, x: Tensor, dtype: torch.dtype, *, by_chunks: bool) -> None:
        self.w = weight.detach().to(dtype)
        self.x = x.detach().to(dtype)
        self.chunk = len(weight)
        if by_chunks:
            self.chunk = default_chunk_size(len(x), len(weight), x.shape[1], x.device)
        self.z = self.x.new_empty(self.chunk, len(x))
        self.x_gradient = torch.zeros_like(self.x)
        self.w_gradient = torch.empty_like(self.w)

    def __call__(self) -> None:
        chunks = zip(self.w.split(self.chunk), self.w_gradient.split(self.chunk), strict=True)
        for i, (w, w_gradient) in enumerate(chunks):
            z = self.z[: len(w)]
            torch.mm(w, self.x.T, out=z)
            torch.addmm(self.x_gradient, z.T, w, beta=min(i, 1), out=self.x_gradient)
            torch.mm(z, self.x, out=w_gradient)


class _HeadStep:
    """Forward and backward of a head, from embeddings to gradients that were not there before."""

    def __init__(self, head: Head, x: Tensor, labels: Tensor, dtype: torch.dtype) -> None:
        self.head, self.x, self.labels, self.dtype = head, x, labels, dtype

    def __call__(self) -> None:
        half = None if self.dtype == torch.float32 else self.dtype
        with torch.autocast(self.x.device.type, half, enabled=half is not None):
            loss = self.head.loss(self.x, self.labels)
        loss.backward()
        self.forget()

    def forget(self) -> None:
        self.x.grad = None
        self.head.module.zero_grad(set_to_none=True)

    def peak_extra(self) -> int:
        """Peak bytes of a step above the embeddings' and parameters' gradients."""
        gradients = [self.x, *self.head.module.parameters()]
        with nothing_kept():
            return peak_memory(self, self.x.device) - sum(g.nbytes for g in gradients)


def _over(a: float | None, b: float | None) -> float | None:
    return None if a is None or b is None else a / b


def device_of(name: str | None) -> torch.device:
    """The device of that name; without one, a GPU where there is one."""
    device = torch.device(name or ("cuda" if torch.cuda.is_available() else "cpu"))
    if device.type == "cuda" and not torch.cuda.is_available():
        raise ValueError("device cuda is not available here: give --device cpu")
    return device
