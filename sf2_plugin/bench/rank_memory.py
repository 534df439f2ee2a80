"""`sf2 bench memory`: what a rank of a sharded head needs and receives, on paper and measured.

The bytes follow from the code: what is kept for each class, what a step adds, and what the
optimizer adds to that. `--measure` runs such a step on a CPU and says how much it took at most.
"""

import argparse
import math
from typing import Any, NamedTuple

import torch

from ..agreement import NUMBERS
from ..distributed import classes_of_rank
from ..engine.memory import nothing_kept
from ..engine.sweep import default_chunk_size
from ..options import count
from ..partial_fc import PartialFCSphereFace2
from ..sampling import require_sample_rate
from ..terminal import json_text, say
from .measure import MIB, peak_memory

FLOAT = COUNT = 4
LABEL = 8
GIB = 2**30


class OptimizerMemory(NamedTuple):
    """Tensors of the centers' shape that an optimizer keeps, is given, and needs for a while."""

    kept: int
    gradient: int
    passing: int


OPTIMIZERS = {
    "sgd": OptimizerMemory(1, 1, 1),
    "fused-sgd": OptimizerMemory(1, 0, 0),
    "adamw": OptimizerMemory(2, 1, 2),
}


def rank_memory(
    num_classes: int,
    embedding_size: int = 512,
    *,
    ranks: int = 1,
    batch: int = 1024,
    sample_rate: float = 1.0,
    optimizer: str = "sgd",
    device: str = "cuda",
) -> dict[str, int]:
    """Bytes that the rank with the most classes needs for a head in float32, by purpose.

    Args:
        batch: faces over all ranks.
        optimizer: "sgd" (with momentum and weight decay), "fused-sgd" (the same, see
            `SphereFace2.fuse_sgd`) or "adamw".
        device: "cuda" or "cpu", which differ in the classes that are taken at a time.

    Returns:
        ``centers``, ``optimizer``: kept throughout. ``gradient``: from backward to the optimizer's
        step. ``step``: what the head takes besides, and ``update``: what the optimizer takes, which
        follow each other. ``peak``: the most at any one time.

    Raises:
        ValueError: a sample rate outside 0..1.
    """
    require_sample_rate(sample_rate)
    classes = len(classes_of_rank(num_classes, 0, ranks))
    row = embedding_size * FLOAT
    tensors = OPTIMIZERS[optimizer]
    taking_part = classes
    rows = behind = 0
    if sample_rate < 1:
        # At most: every face is of another class, and all of them are this rank's.
        present = min(batch, classes)
        taking_part = present + math.ceil(sample_rate * (classes - present))
        # Their centers, copied, and the gradient of the copies, or their momentum.
        rows = 2 * taking_part * row
    chunk = default_chunk_size(batch, taking_part, embedding_size, torch.device(device))
    if optimizer == "fused-sgd":
        rows += chunk * row
        if sample_rate < 1:
            behind = classes * COUNT  # When each class was last touched.
    if device == "cuda":
        rows += chunk * row  # A chunk's centers in the dtype of the products.
    # Cosines and two buffers beside them; the faces as gathered and at length one, and both
    # gradients.
    step = rows + 3 * chunk * batch * FLOAT + 4 * batch * row
    sizes = {
        "centers": classes * row,
        "optimizer": tensors.kept * classes * row + behind,
        "gradient": tensors.gradient * classes * row,
        "step": step,
        "update": tensors.passing * classes * row,
    }
    together = sizes["centers"] + sizes["optimizer"] + sizes["gradient"]
    return {**sizes, "peak": together + max(sizes["step"], sizes["update"])}


def rank_traffic(embedding_size: int = 512, *, ranks: int = 1, batch: int = 1024) -> int:
    """Bytes that a rank receives in a step, with float32 embeddings; classes do not count.

    The others' faces and labels, what they make of this rank's faces (reduced and scattered), and
    the numbers that ranks must agree on.
    """
    others = batch - batch // ranks
    row = embedding_size * FLOAT
    return others * (2 * row + LABEL) + (ranks - 1) * NUMBERS * LABEL


def measured_memory(
    num_classes: int,
    embedding_size: int = 512,
    *,
    ranks: int = 1,
    batch: int = 1024,
    sample_rate: float = 1.0,
    optimizer: str = "sgd",
) -> int:
    """The peak of `rank_memory` on this CPU: a step with that rank's classes and all the faces."""
    require_sample_rate(sample_rate)
    classes = len(classes_of_rank(num_classes, 0, ranks))
    head = PartialFCSphereFace2(classes, embedding_size, sample_rate=sample_rate)
    trainer: torch.optim.Optimizer
    if optimizer == "adamw":
        trainer = torch.optim.AdamW(head.parameters())
    else:
        trainer = torch.optim.SGD(head.parameters(), lr=0.1, momentum=0.9, weight_decay=5e-4)
        if optimizer == "fused-sgd":
            head.fuse_sgd(trainer)
    x = torch.randn(batch, embedding_size, requires_grad=True)
    labels = torch.randint(classes, (batch,))

    def step() -> None:
        head(x, labels).backward()
        trainer.step()
        trainer.zero_grad()
        x.grad = None

    step()  # The optimizer makes its tensors.
    kept = [p.nbytes for p in head.parameters()]
    kept += [
        value.nbytes
        for state in trainer.state.values()
        for value in state.values()
        if isinstance(value, torch.Tensor)
    ]
    with nothing_kept():
        return sum(kept) + peak_memory(step, torch.device("cpu"))


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.description = __doc__.split("\n\n", 1)[1]
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
    parser.set_defaults(run=run)


def run(arguments: argparse.Namespace) -> None:
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
