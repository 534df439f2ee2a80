"""`sf2 bench`: a head's time and memory."""

import argparse
import math
from typing import Any

import torch

from ..bench.head_timing import DTYPES, measure_head
from ..bench.measure import MIB
from ..bench.peers import CHECKOUTS, PACKAGES
from ..bench.rank_memory import OPTIMIZERS, measured_memory, rank_memory, rank_traffic
from ..options import count
from ..recipe import PRESETS
from ..terminal import json_text, say

GIB = 2**30


def add_head_arguments(parser: argparse.ArgumentParser) -> None:
    parser.description = (
        "Median time of forward and backward, as a multiple of the three matrix products it needs "
        "(the floor: the least of all classes at once and chunk by chunk), and peak memory above "
        "inputs, class centers and their gradient. Other projects' heads are timed by turns with "
        "both on a CPU, and alone on a GPU."
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
    parser.add_argument(
        "--device", choices=("cpu", "cuda"), help="default: a GPU where there is one"
    )
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
    parser.set_defaults(run=_head)


def _head(arguments: argparse.Namespace) -> None:
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
    say(json_text(figures) if arguments.json else table(figures))


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


def add_memory_arguments(parser: argparse.ArgumentParser) -> None:
    parser.description = (
        "The bytes follow from the code: what is kept for each class, what a step adds, and what "
        "the optimizer adds to that. --measure runs such a step on a CPU and says how much it took "
        "at most."
    )
    parser.add_argument("--classes", type=count, required=True, help="over all ranks")
    parser.add_argument("--dim", type=count, default=512, help="embedding size, default 512")
    parser.add_argument("--ranks", type=count, default=1, help="default %(default)s")
    parser.add_argument(
        "--batch", type=count, default=1024, help="faces over all ranks, default %(default)s"
    )
    parser.add_argument("--sample-rate", type=float, default=1.0, help="default %(default)s")
    parser.add_argument("--optimizer", choices=OPTIMIZERS, default="sgd")
    parser.add_argument(
        "--device", choices=("cuda", "cpu"), help="default: cuda, or cpu to measure"
    )
    parser.add_argument(
        "--measure",
        action="store_true",
        help="also run the step of a rank with that many, on a CPU",
    )
    parser.add_argument("--json", action="store_true", help="print the figures as JSON")
    parser.set_defaults(run=_memory)


def _memory(arguments: argparse.Namespace) -> None:
    shape: dict[str, Any] = dict(
        batch=arguments.batch,
        sample_rate=arguments.sample_rate,
        optimizer=arguments.optimizer,
    )
    device = arguments.device or ("cpu" if arguments.measure else "cuda")
    if arguments.measure and device != "cpu":
        raise ValueError(f"a step is measured on a CPU alone, got --device {device}")
    # By powers of two, to see what more ranks would bring.
    numbers = [2**i for i in range(arguments.ranks.bit_length()) if 2**i < arguments.ranks]
    rows = {
        ranks: rank_memory(arguments.classes, arguments.dim, ranks=ranks, device=device, **shape)
        for ranks in (*numbers, arguments.ranks)
    }
    received = {
        ranks: rank_traffic(arguments.dim, ranks=ranks, batch=arguments.batch) for ranks in rows
    }
    if arguments.measure:
        rows[arguments.ranks]["measured_peak"] = measured_memory(
            arguments.classes, arguments.dim, ranks=arguments.ranks, **shape
        )
    if arguments.json:
        figures = {"bytes_by_ranks": rows, "bytes_received_by_ranks": received}
        say(json_text({"device": device, **shape, **figures}))
        return
    say(
        f"{arguments.classes:,} classes of size {arguments.dim}, batch {arguments.batch}, "
        f"sample rate {arguments.sample_rate}, {arguments.optimizer}, {device}. "
        "MiB received a step, and GiB a rank:"
    )
    head = (name.replace("_", " ") for name in rows[arguments.ranks])
    say(" ".join([f"{'ranks':>5}", f"{'received':>13}", *(f"{name:>13}" for name in head)]))
    for ranks, sizes in rows.items():
        held = (f"{size / GIB:13.3f}" for size in sizes.values())
        say(" ".join([f"{ranks:5}", f"{received[ranks] / MIB:13.2f}", *held]))
