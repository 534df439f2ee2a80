"""Everything that is worth knowing of the head's cost on one machine, in one JSON file::

python benchmarks/suite.py --out docs/benchmarks
"""

import argparse
import gc
import json
import math
import re
import time
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from importlib.util import find_spec
from pathlib import Path
from statistics import median
from typing import Any, NamedTuple

import torch
from torch.profiler import ProfilerActivity, profile

from sf2_plugin.atomic import atomic_file
from sf2_plugin.bench.environment import environment
from sf2_plugin.bench.head_timing import device_of, measure_head
from sf2_plugin.bench.measure import MIB, Step, interleaved_medians, peak_memory, wait_for
from sf2_plugin.bench.peers import PACKAGES
from sf2_plugin.compat import OutOfMemoryError
from sf2_plugin.engine import BACKENDS
from sf2_plugin.engine.memory import nothing_kept
from sf2_plugin.engine.sweep import default_chunk_size
from sf2_plugin.head import SphereFace2, sphereface2_loss
from sf2_plugin.options import count
from sf2_plugin.recipe import Recipe

#: That take longest in a step, and are listed.
MOST_KERNELS = 12

#: Batch, classes, dtype, sample rate; embeddings have 512 elements everywhere.
HEADS = {
    "cpu": [
        (256, 100_000, "float32", 1.0),
        (512, 20_000, "float32", 1.0),
        (256, 100_000, "float32", 0.1),
    ],
    "cuda": [
        (1024, 1_000_000, "bfloat16", 1.0),
        (1024, 1_000_000, "float16", 1.0),
        (1024, 1_000_000, "float32", 1.0),
        (1024, 1_000_000, "bfloat16", 0.1),
        (256, 100_000, "bfloat16", 1.0),
        (512, 20_000, "bfloat16", 1.0),
    ],
}
#: Batch, classes, dtype.
BACKEND_SHAPES = {
    "cpu": [(256, 100_000, "float32")],
    "cuda": [
        (1024, 1_000_000, "bfloat16"),
        (256, 100_000, "bfloat16"),
        (512, 20_000, "bfloat16"),
        (1024, 1_000_000, "float32"),
    ],
}
#: Batch, dtype, and classes up to what a machine may hold.
GROWTH = {
    "cpu": (128, "float32", [10_000, 30_000, 100_000, 300_000, 1_000_000]),
    "cuda": (1024, "bfloat16", [10_000, 30_000, 100_000, 300_000, 1_000_000, 3_000_000]),
}
TRAINING = {"cpu": [(256, 100_000)], "cuda": [(1024, 1_000_000), (1024, 10_000_000)]}
#: Peers' checkouts below the folder that holds them.
PEER_FOLDERS = {
    "opensphere": "opensphere",
    "wespeaker": "wespeaker",
    "arcface_torch": "insightface/recognition/arcface_torch",
}


def available_peers(hosts: Path | None, device: torch.device) -> list[str]:
    peers = []
    for name, folder in PEER_FOLDERS.items():
        if hosts and (hosts / folder).is_dir():
            peers.append(f"{name}={hosts / folder}")
            if name == "arcface_torch" and device.type == "cuda":
                peers += [f"arcface_torch_{kind}={hosts / folder}" for kind in ("fp16", "tf32")]
    installed = (n for n, p in PACKAGES.items() if find_spec(p.module.partition(".")[0]))
    return [*peers, *installed]


#: One row of figures after the other, each with its number of classes; see `Suite`.
Rows = Iterator[Callable[[], dict[str, Any]]]


class Suite(NamedTuple):
    """What all sections need.

    A section gives its rows one by one, unmeasured, so that what breaks or takes too long takes
    nothing away from what was measured before.
    """

    device: torch.device
    peers: list[str]
    rounds: int
    most_classes: float

    def head(self, batch: int, classes: int, dtype: str, **kwargs: Any) -> dict[str, Any]:
        return measure_head(
            batch,
            classes,
            512,
            dtype=dtype,
            device=self.device.type,
            rounds=self.rounds,
            **kwargs,
        )


def heads(suite: Suite) -> Rows:
    """One step of the head and its peers."""
    for batch, classes, dtype, sample_rate in HEADS[suite.device.type]:
        if classes <= suite.most_classes:
            # Of the peers, those of arcface_torch alone sample.
            peers = [p for p in suite.peers if sample_rate == 1 or p.startswith("arcface_torch")]
            yield partial(suite.head, batch, classes, dtype, sample_rate=sample_rate, peers=peers)


def backends(suite: Suite) -> Rows:
    """One step of the head with each backend that a GPU has."""
    for batch, classes, dtype in BACKEND_SHAPES[suite.device.type]:
        for backend in _runnable(suite.device) if classes <= suite.most_classes else ():
            yield partial(_head_with_backend, suite, batch, classes, dtype, backend)


def _head_with_backend(
    suite: Suite, batch: int, classes: int, dtype: str, backend: str
) -> dict[str, Any]:
    return {**suite.head(batch, classes, dtype, backend=backend), "backend": backend}


def _runnable(device: torch.device) -> list[str]:
    swept = [name for name, backend in BACKENDS.items() if backend.pointwise]
    return [name for name in swept if BACKENDS[name].obstacle(device, torch.float32) is None]


def chunks(suite: Suite) -> Rows:
    """A step, and how long the host takes to launch it, by classes a chunk; kernels by time."""
    for batch, classes, dtype in BACKEND_SHAPES[suite.device.type][:1]:
        usual = default_chunk_size(batch, classes, 512, suite.device)
        for backend in _runnable(suite.device) if classes <= suite.most_classes else ():
            for chunk in sorted({min(usual * n // 2, classes) for n in (1, 2, 4, 8)}):
                yield partial(_chunk_figures, suite, batch, classes, dtype, backend, chunk)


def _chunk_figures(
    suite: Suite, batch: int, classes: int, dtype: str, backend: str, chunk: int
) -> dict[str, Any]:
    torch.manual_seed(0)
    with torch.device(suite.device):
        head = SphereFace2(classes, 512, backend=backend, chunk_size=chunk)
        x = torch.randn(batch, 512, requires_grad=True)
        labels = torch.randint(classes, (batch,))
    half = None if dtype == "float32" else getattr(torch, dtype)

    def step() -> None:
        with torch.autocast(suite.device.type, half, enabled=half is not None):
            loss = head(x, labels)
        loss.backward()
        x.grad = None
        head.zero_grad()

    time = interleaved_medians({"step": step}, suite.rounds, suite.device)["step"]
    return {
        "batch": batch,
        "classes": classes,
        "dtype": dtype,
        "backend": backend,
        "chunk_size": chunk,
        "ms": time,
        "host_ms": _host_milliseconds(step, suite.rounds, suite.device),
        "kernels_ms": _kernel_milliseconds(step, suite.device),
    }


def _host_milliseconds(step: Step, rounds: int, device: torch.device) -> float:
    """Median milliseconds until `step` returns, with nothing before it on the device to wait for.

    Near the whole step's time, it is the host that the step waits for.
    """
    times = []
    for _ in range(rounds):
        wait_for(device)
        start = time.perf_counter()
        step()
        times.append((time.perf_counter() - start) * 1000)
    wait_for(device)
    return median(times)


def _kernel_milliseconds(step: Step, device: torch.device) -> dict[str, float]:
    """The kernels that take longest on a GPU in one step, by name, with their milliseconds."""
    if device.type != "cuda":
        return {}
    with profile(activities=[ProfilerActivity.CUDA]) as recorded:
        step()
        wait_for(device)
    times = {event.key: event.device_time_total / 1000 for event in recorded.key_averages()}
    return dict(sorted(times.items(), key=lambda item: -item[1])[:MOST_KERNELS])


def growth(suite: Suite) -> Rows:
    """How the cost of a step grows with the classes."""
    batch, dtype, sizes = GROWTH[suite.device.type]
    shown = [p for p in suite.peers if p.startswith(("opensphere", "arcface_torch="))]
    for classes in sizes:
        if classes <= suite.most_classes:
            yield partial(suite.head, batch, classes, dtype, peers=shown)


def training(suite: Suite) -> Rows:
    """Forward, backward and SGD as arcface_torch has it, by the optimizer and fused into the sweep.

    Memory is above class centers and momentum; what does not fit has None for figures.
    """
    for batch, classes in TRAINING[suite.device.type]:
        for fused in (False, True) if classes <= suite.most_classes else ():
            yield partial(_training_row, batch, classes, suite.device, fused, suite.rounds)


def _training_row(
    batch: int, classes: int, device: torch.device, fused: bool, rounds: int
) -> dict[str, Any]:
    try:
        time, memory = _training_figures(batch, classes, device, fused, rounds)
    except OutOfMemoryError:
        time = memory = None
    gc.collect()
    torch.cuda.empty_cache()
    return dict(batch=batch, classes=classes, dim=512, fused=fused, ms=time, extra_mb=memory)


def _training_figures(
    batch: int, classes: int, device: torch.device, fused: bool, rounds: int
) -> tuple[float | None, float | None]:
    step = _training_step(batch, classes, device, fused)
    step()  # The optimizer makes its momentum.
    time = interleaved_medians({"step": step}, rounds, device)["step"]
    with nothing_kept():
        return time, peak_memory(step, device) / MIB


def _training_step(
    batch: int, classes: int, device: torch.device, fused: bool
) -> Callable[[], None]:
    torch.manual_seed(0)
    with torch.device(device):
        head = SphereFace2(classes, 512)
        x = torch.randn(batch, 512, requires_grad=True)
        labels = torch.randint(classes, (batch,))
    optimizer = torch.optim.SGD(head.parameters(), lr=0.1, momentum=0.9, weight_decay=5e-4)
    if fused:
        head.fuse_sgd(optimizer)

    def step() -> None:
        with torch.autocast(device.type, torch.bfloat16, enabled=device.type == "cuda"):
            loss = head(x, labels)
        loss.backward()
        optimizer.step()
        optimizer.zero_grad()
        x.grad = None

    return step


def precision(suite: Suite) -> Rows:
    """Largest error of loss and gradients, relative to their largest value in float64."""
    for backend in _runnable(suite.device):
        for products in ("float32", "tf32", "bfloat16", "float16"):
            if suite.device.type == "cpu" and products != "float32":
                continue  # On a CPU all products are float32.
            for preset in ("opensphere", "wespeaker"):
                yield partial(_precision_row, suite.device, backend, products, preset)


def _precision_row(
    device: torch.device, backend: str, products: str, preset: str
) -> dict[str, Any]:
    errors = _errors(device, backend, products, preset)
    return dict(backend=backend, products=products, preset=preset, **errors)


def _errors(device: torch.device, backend: str, products: str, preset: str) -> dict[str, float]:
    generator = torch.Generator().manual_seed(0)
    weight = torch.nn.functional.normalize(torch.randn(5000, 128, generator=generator))
    labels = torch.randint(5000, (64,), generator=generator)
    x = weight[labels] * 2 + torch.randn(64, 128, generator=generator) / 8

    def answers(backend: str, dtype: torch.dtype) -> list[torch.Tensor]:
        faces, centers = (t.to(device, dtype, copy=True).requires_grad_() for t in (x, weight))
        bias = torch.full((1,), -10.0, device=device.type, dtype=dtype, requires_grad=True)
        recipe = Recipe.from_preset(preset)
        half = getattr(torch, products, None) if products.endswith("float16") else None
        with torch.autocast(device.type, half, enabled=half is not None and backend != "reference"):
            loss = sphereface2_loss(
                faces, centers, labels.to(device), bias, recipe, backend=backend
            )
        return [loss.detach(), *torch.autograd.grad(loss, [faces, centers, bias])]

    torch.backends.cuda.matmul.allow_tf32 = products == "tf32"
    actual, expected = answers(backend, torch.float32), answers("reference", torch.float64)
    torch.backends.cuda.matmul.allow_tf32 = False
    names = ("loss", "embeddings", "class centers", "bias")
    return {
        name: ((a.double() - e).abs().max() / e.abs().max()).item()
        for name, a, e in zip(names, actual, expected, strict=True)
    }


def main(argv: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(
        description="Head and peers over shapes, dtypes and sample rates, growth with the number "
        "of classes, whole training steps, and errors against float64, in one JSON file named by "
        "the machine."
    )
    parser.add_argument("--device", choices=list(HEADS), help="default: a GPU where there is one")
    parser.add_argument(
        "--hosts",
        type=Path,
        metavar="DIR",
        help=f"folder with checkouts of other projects ({', '.join(PEER_FOLDERS.values())}); those "
        "that are absent are left out, and so are packages that are not installed",
    )
    parser.add_argument("--rounds", type=count, default=7, help="default %(default)s")
    parser.add_argument(
        "--max-classes", type=count, metavar="N", help="leave out what has more classes"
    )
    parser.add_argument(
        "--minutes", type=float, help="begin nothing after that many; what is measured is kept"
    )
    parser.add_argument(
        "--commit", help="of this source, where it is handed over without its repository"
    )
    parser.add_argument("--out", type=Path, metavar="DIR", default=Path(), help="default: here")
    if unmeasured := run(parser.parse_args(argv)):
        raise SystemExit("not measured:\n" + "\n".join(unmeasured))


#: What is measured, in this order: what decides comes first.
SECTIONS: dict[str, Callable[[Suite], Rows]] = {
    "heads": heads,
    "backends": backends,
    "chunks": chunks,
    "precision": precision,
    "training": training,
    "growth": growth,
}


def run(arguments: argparse.Namespace) -> list[str]:
    """Measures and writes; returns what could not be measured, one line each."""
    end = time.monotonic() + 60 * (arguments.minutes or math.inf)
    device = device_of(arguments.device)
    suite = Suite(
        device,
        available_peers(arguments.hosts, device),
        arguments.rounds,
        arguments.max_classes or math.inf,
    )
    figures = environment(device, commit=arguments.commit)
    machine = figures["machine"]
    name = machine["gpu"] or f"{machine['processor']} {figures['threads']} threads"
    path = arguments.out / f"{re.sub('[^a-z0-9]+', '-', name.lower()).strip('-')}.json"
    partial_path = path.with_suffix(".partial")
    path.parent.mkdir(parents=True, exist_ok=True)
    figures.update(device=device.type, unmeasured=[], **{section: [] for section in SECTIONS})

    def save(path: Path) -> None:
        with atomic_file(path, "w") as file:
            json.dump(figures, file, indent=2)

    for section, rows in SECTIONS.items():
        for number, measure in enumerate(rows(suite), 1):
            if time.monotonic() > end:
                figures["unmeasured"].append(f"{section} from row {number} on: no time was left")
                break
            try:
                figures[section].append(measure())
            except Exception as error:  # The next may do.
                said = f"{type(error).__name__}: {error}".splitlines()[0]
                figures["unmeasured"].append(f"{section}, row {number}: {said}")
            save(partial_path)
    save(path)
    partial_path.unlink(missing_ok=True)
    print(f"{path} is written")
    return figures["unmeasured"]


if __name__ == "__main__":
    main()
