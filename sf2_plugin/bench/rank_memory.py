"""What a rank of a sharded head needs and receives, on paper and measured.

The bytes follow from the code: what is kept for each class, what a step adds, and what the
optimizer adds to that. `measured_memory` runs such a step on a CPU.
"""

import math
from typing import NamedTuple

import torch

from ..agreement import NUMBERS
from ..distributed import classes_of_rank
from ..engine.memory import nothing_kept
from ..engine.sweep import default_chunk_size
from ..partial_fc import PartialFCSphereFace2
from ..sampling import require_sample_rate
from .measure import peak_memory

FLOAT = COUNT = 4
LABEL = 8


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
