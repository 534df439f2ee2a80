"""`sf2 bench head`: forward and backward of a head, over the cost of its matrix products alone."""

import argparse
import json
import math
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from ..cli import count
from ..engine.memory import nothing_kept
from ..head import SphereFace2
from ..partial_fc import PartialFCSphereFace2
from ..progress import progress_bar
from ..recipe import PRESETS
from .environment import environment
from .measure import MIB, interleaved_medians, peak_memory
from .peers import CHECKOUTS, PACKAGES, Head, built_peers, parse_peers

DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16, "float16": torch.float16}


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.description = (
        "Median time of forward and backward, as a multiple of the three matrix products it needs "
        "(the floor), and peak memory above inputs, class centers and their gradient. Other "
        "projects' heads are timed in the same rounds."
    )
    parser.add_argument("--batch", type=count, default=256, help="faces (default %(default)s)")
    parser.add_argument("--classes", type=count, default=100_000, help="default %(default)s")
    parser.add_argument("--dim", type=count, default=512, help="embedding size, default 512")
    parser.add_argument(
        "--dtype",
        choices=DTYPES,
        default="float32",
        help="of the products; class centers stay float32 (default %(default)s)",
    )
    parser.add_argument("--device", help='"cpu" or "cuda"; default: a GPU where there is one')
    parser.add_argument("--threads", type=count, help="default: torch's own choice")
    parser.add_argument("--rounds", type=count, default=7, help="default %(default)s")
    parser.add_argument(
        "--sample-rate",
        type=float,
        default=1.0,
        help="fraction of the classes to sample; arcface_torch samples too, other peers do not "
        "(default %(default)s)",
    )
    parser.add_argument("--preset", choices=PRESETS, default="opensphere")
    parser.add_argument("--backend", default="auto", help="default %(default)s")
    parser.add_argument("--chunk-size", type=count, help="classes at a time")
    parser.add_argument(
        "--peer",
        action="append",
        default=[],
        metavar="NAME[=PATH]",
        help=f"also measure: a checkout ({', '.join(CHECKOUTS)}) by its folder, or an installed "
        f"package ({', '.join(PACKAGES)}); may be repeated",
    )
    parser.add_argument("--json", action="store_true", help="print the figures as JSON")
    parser.set_defaults(run=run)


def run(arguments: argparse.Namespace) -> None:
    if arguments.threads:
        torch.set_num_threads(arguments.threads)
    figures = measure_head(
        arguments.batch,
        arguments.classes,
        arguments.dim,
        dtype=arguments.dtype,
        device=arguments.device,
        rounds=arguments.rounds,
        sample_rate=arguments.sample_rate,
        peers=arguments.peer,
        preset=arguments.preset,
        backend=arguments.backend,
        chunk_size=arguments.chunk_size,
    )
    print(json.dumps(figures, indent=2) if arguments.json else table(figures))


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
    wanted = parse_peers(peers)
    place = _device(device)
    torch.manual_seed(0)
    x = torch.randn(batch, dim, device=place, requires_grad=True)
    labels = torch.randint(classes, (batch,), device=place)
    if sample_rate < 1:
        head_arguments["sample_rate"] = sample_rate
    own = (PartialFCSphereFace2 if sample_rate < 1 else SphereFace2)(classes, dim, **head_arguments)
    own.to(place)
    with built_peers(wanted, classes, dim, place, sample_rate) as others:
        heads = {
            name: _HeadStep(head, x, labels, DTYPES[dtype])
            for name, head in {"head": Head(own, own), **others}.items()
        }
        heads = {name: step for name, step in heads.items() if _fits(step)}
        sampled = own.weight[: math.ceil(sample_rate * classes)]
        floor = _Floor(sampled, x, DTYPES[dtype])
        progress = progress_bar("measuring")
        times = interleaved_medians({"floor": floor, **heads}, rounds, place, progress)
        memory = {name: step.peak_extra() / MIB for name, step in heads.items()}
    return {
        "batch": batch,
        "classes": classes,
        "dim": dim,
        "dtype": dtype,
        "device": place.type,
        "rounds": rounds,
        "sample_rate": sample_rate,
        "head": own.extra_repr(),
        "floor_ms": times["floor"],
        "head_ms": times.get("head"),
        "ratio": _over(times.get("head"), times["floor"]),
        "peak_extra_mb": memory.get("head"),
        "peers": {
            name: {
                "head_ms": times.get(name),
                "ratio": _over(times.get(name), times["floor"]),
                "peak_extra_mb": memory.get(name),
                "speedup": _over(times.get(name), times.get("head")),
            }
            for name in others
        },
        **environment(place),
    }


class _Floor:
    """The three matrix products alone, into outputs that are already there."""

    def __init__(self, weight: Tensor, x: Tensor, dtype: torch.dtype) -> None:
        self.w = weight.detach().to(dtype)
        self.x = x.detach().to(dtype)
        self.z = self.x.new_empty(len(x), len(weight))
        self.x_gradient = torch.empty_like(self.x)
        self.w_gradient = torch.empty_like(self.w)

    def __call__(self) -> None:
        torch.mm(self.x, self.w.T, out=self.z)
        torch.mm(self.z, self.w, out=self.x_gradient)
        torch.mm(self.z.T, self.x, out=self.w_gradient)


class _HeadStep:
    """Forward and backward of a head, from embeddings to gradients that were not there before."""

    def __init__(self, head: Head, x: Tensor, labels: Tensor, dtype: torch.dtype) -> None:
        self.head, self.x, self.labels, self.dtype = head, x, labels, dtype

    def __call__(self) -> None:
        mixed = self.dtype != torch.float32
        with torch.autocast(self.x.device.type, self.dtype, enabled=mixed):
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


def _fits(step: _HeadStep) -> bool:
    """Whether a step finds the memory it needs."""
    try:
        step()
    except torch.OutOfMemoryError:
        step.forget()
        torch.cuda.empty_cache()
        return False
    return True


def _over(a: float | None, b: float | None) -> float | None:
    return None if a is None or b is None else a / b


def _device(name: str | None) -> torch.device:
    device = torch.device(name or ("cuda" if torch.cuda.is_available() else "cpu"))
    if device.type == "cuda" and not torch.cuda.is_available():
        raise ValueError("device cuda is not available here: give --device cpu")
    return device


def table(figures: dict[str, Any]) -> str:
    """The figures of `measure_head` as lines to read."""
    shape = f"batch {figures['batch']}, {figures['classes']} classes, dim {figures['dim']}"
    lines = [
        f"{shape}, {figures['dtype']}, {figures['device']}, {figures['threads']} threads",
        f"{'':26}{'ms':>10}{'x floor':>10}{'extra MiB':>11}{'x this head':>13}",
        f"{'floor: 3 matrix products':26}{figures['floor_ms']:10.1f}{1:10.2f}",
    ]
    for name, row in {"this head": {**figures, "speedup": 1.0}, **figures["peers"]}.items():
        if row["head_ms"] is None:
            lines.append(f"{name:26}{'out of memory':>44}")
            continue
        lines.append(
            f"{name:26}{row['head_ms']:10.1f}{row['ratio']:10.2f}"
            f"{row['peak_extra_mb']:11.1f}{row['speedup'] or math.nan:13.2f}"
        )
    return "\n".join(lines)
