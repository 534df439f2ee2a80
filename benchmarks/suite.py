"""Everything that is worth knowing of the head's cost on one machine, in one JSON file::

python benchmarks/suite.py --out docs/benchmarks
"""

import argparse
import gc
import json
import re
from collections.abc import Callable, Sequence
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import torch

from sf2_plugin.atomic import atomic_file
from sf2_plugin.bench.environment import environment
from sf2_plugin.bench.head_timing import device_of, measure_head
from sf2_plugin.bench.measure import MIB, interleaved_medians, peak_memory
from sf2_plugin.bench.peers import PACKAGES
from sf2_plugin.engine.memory import nothing_kept
from sf2_plugin.head import SphereFace2, sphereface2_loss
from sf2_plugin.options import count
from sf2_plugin.recipe import Recipe

#: Batch, classes, embedding size, dtype, sample rate.
HEADS = {
    "cpu": [
        (256, 100_000, 512, "float32", 1.0),
        (512, 20_000, 512, "float32", 1.0),
        (256, 100_000, 512, "float32", 0.1),
    ],
    "cuda": [
        (1024, 1_000_000, 512, "bfloat16", 1.0),
        (1024, 1_000_000, 512, "float16", 1.0),
        (1024, 1_000_000, 512, "float32", 1.0),
        (1024, 1_000_000, 512, "bfloat16", 0.1),
        (256, 100_000, 512, "bfloat16", 1.0),
        (512, 20_000, 512, "bfloat16", 1.0),
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
                peers.append(f"arcface_torch_fp16={hosts / folder}")
    installed = (n for n, p in PACKAGES.items() if find_spec(p.module.partition(".")[0]))
    return [*peers, *installed]


def heads(device: torch.device, peers: list[str], rounds: int) -> list[dict[str, Any]]:
    """One step of the head and its peers."""
    return [
        measure_head(
            batch,
            classes,
            dim,
            dtype=dtype,
            device=device.type,
            rounds=rounds,
            sample_rate=sample_rate,
            # Of the peers, those of arcface_torch alone sample.
            peers=[p for p in peers if sample_rate == 1 or p.startswith("arcface_torch")],
        )
        for batch, classes, dim, dtype, sample_rate in HEADS[device.type]
    ]


def growth(device: torch.device, peers: list[str], rounds: int) -> list[dict[str, Any]]:
    """How the cost of a step grows with the classes."""
    batch, dtype, sizes = GROWTH[device.type]
    shown = [p for p in peers if p.startswith(("opensphere", "arcface_torch="))]
    return [
        measure_head(
            batch, classes, 512, dtype=dtype, device=device.type, rounds=rounds, peers=shown
        )
        for classes in sizes
    ]


def training(device: torch.device, rounds: int) -> list[dict[str, Any]]:
    """Forward, backward and SGD as arcface_torch has it, by the optimizer and fused into the sweep.

    Memory is above class centers and momentum; what does not fit has None for figures.
    """
    rows = []
    for batch, classes in TRAINING[device.type]:
        for fused in (False, True):
            try:
                time, memory = _training_figures(batch, classes, device, fused, rounds)
            except torch.OutOfMemoryError:
                time = memory = None
            rows.append(
                dict(batch=batch, classes=classes, dim=512, fused=fused, ms=time, extra_mb=memory)
            )
            gc.collect()
            torch.cuda.empty_cache()
    return rows


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


def precision(device: torch.device) -> list[dict[str, Any]]:
    """Largest error of loss and gradients, relative to their largest value in float64."""
    rows = []
    for backend in ("chunked", "triton") if device.type == "cuda" else ("chunked",):
        for products in ("float32", "tf32", "bfloat16", "float16"):
            if device.type == "cpu" and products != "float32":
                continue  # On a CPU all products are float32.
            for preset in ("opensphere", "wespeaker"):
                errors = _errors(device, backend, products, preset)
                rows.append(dict(backend=backend, products=products, preset=preset, **errors))
    return rows


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
    parser.add_argument("--out", type=Path, metavar="DIR", default=Path(), help="default: here")
    run(parser.parse_args(argv))


def run(arguments: argparse.Namespace) -> None:
    device = device_of(arguments.device)
    peers = available_peers(arguments.hosts, device)
    figures = environment(device)
    machine = figures["machine"]
    name = machine["gpu"] or f"{machine['processor']} {figures['threads']} threads"
    path = arguments.out / f"{re.sub('[^a-z0-9]+', '-', name.lower()).strip('-')}.json"
    partial = path.with_suffix(".partial")
    path.parent.mkdir(parents=True, exist_ok=True)
    sections: dict[str, Callable[[], Any]] = {
        "heads": lambda: heads(device, peers, arguments.rounds),
        "growth": lambda: growth(device, peers, arguments.rounds),
        "training": lambda: training(device, arguments.rounds),
        "precision": lambda: precision(device),
    }
    figures["device"] = device.type
    for section, measured in sections.items():
        figures[section] = measured()
        # After every section, so that what breaks later takes nothing away.
        with atomic_file(partial, "w") as file:
            json.dump(figures, file, indent=2)
    partial.replace(path)
    print(f"{path} is written")


if __name__ == "__main__":
    main()
