"""A step of the sharded head next to PartialFC_V2 with the CosFace margin, on CPU ranks.

Forward, backward and the exchanges between ranks, and apart from them the optimizer's step (SGD
with momentum and weight decay, as arcface_torch has it), timed in the same rounds by turns::

    python benchmarks/partial_fc.py --arcface-torch DIR --out docs/partial_fc.json
"""

import argparse
import json
import os
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from statistics import median
from typing import Any

import torch
from torch import distributed, multiprocessing, nn

from sf2_plugin import PartialFCSphereFace2
from sf2_plugin.atomic import atomic_file
from sf2_plugin.bench.environment import environment
from sf2_plugin.bench.peers import Head, Shape, built_peer, parse_peers

#: The batch is the global one: every rank brings its share.
BATCH, CLASSES, DIM = 256, 100_000, 512
#: Whose step makes the optimizer's too.
FUSED = "this head, fused SGD"


def measure(rank: int, world_size: int, threads: int, given: Any, folder: str) -> None:
    torch.set_num_threads(threads)
    distributed.init_process_group(
        "gloo", init_method=f"file://{folder}/rendezvous", rank=rank, world_size=world_size
    )
    torch.manual_seed(rank)
    x = torch.randn(BATCH // world_size, DIM, requires_grad=True)
    labels = torch.randint(given.classes, (len(x),))
    figures = {}
    ((name, path),) = parse_peers([f"arcface_torch={given.arcface_torch}"]).items()
    with built_peer(name, path, Shape(given.classes, DIM), x.device) as peer:
        for rate in given.sample_rates:
            peer.module.sample_rate = rate
            peer.module.num_sample = int(rate * peer.module.num_local)
            own = PartialFCSphereFace2(given.classes, DIM, sample_rate=rate)
            sparse = PartialFCSphereFace2(
                given.classes, DIM, sample_rate=rate, sparse_gradient=True
            )
            fused = PartialFCSphereFace2(given.classes, DIM, sample_rate=rate)
            heads = {"PartialFC_V2": peer, "this head": Head(own, own), FUSED: Head(fused, fused)}
            if rate < 1:
                heads["this head, sparse gradient"] = Head(sparse, sparse)
            figures[str(rate)] = rounds(heads, x, labels, given.rounds)
    if rank == 0:
        Path(folder, "figures").write_text(json.dumps(figures))
    distributed.destroy_process_group()


def rounds(heads: dict[str, Head], x: torch.Tensor, labels: torch.Tensor, count: int) -> Any:
    """Median milliseconds of each head's step, and of its optimizer's."""
    optimizers = {name: optimizer_of(head.module) for name, head in heads.items()}
    heads[FUSED].module.fuse_sgd(optimizers[FUSED])
    times: dict[str, dict[str, list[float]]] = {
        name: {"step_ms": [], "optimizer_ms": [], "together_ms": []} for name in heads
    }
    for _ in range(count + 2):  # In the first, the fused step waits for what backward begins with.
        for name, head in heads.items():
            head.module.zero_grad(set_to_none=True)
            x.grad = None
            step = timed(lambda head=head: head.loss(x, labels.clone()).backward())
            optimizer = timed(optimizers[name].step)
            times[name]["step_ms"].append(step)
            times[name]["optimizer_ms"].append(optimizer)
            times[name]["together_ms"].append(step + optimizer)
    return {
        name: {what: round(median(measured[2:]), 1) for what, measured in each.items()}
        for name, each in times.items()
    }


def optimizer_of(module: nn.Module) -> torch.optim.SGD:
    if getattr(module, "sparse_gradient", False):
        return torch.optim.SGD(module.parameters(), lr=0.01)
    return torch.optim.SGD(module.parameters(), lr=0.01, momentum=0.9, weight_decay=5e-4)


def timed(step: Callable[[], None]) -> float:
    distributed.barrier()
    start = time.perf_counter()
    step()
    distributed.barrier()
    return 1000 * (time.perf_counter() - start)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--arcface-torch", required=True, metavar="DIR")
    parser.add_argument("--classes", type=int, default=CLASSES)
    parser.add_argument("--sample-rates", type=float, nargs="+", default=[1.0, 0.1])
    parser.add_argument("--ranks", type=int, nargs="+", default=[1, 2])
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--out", metavar="FILE")
    given = parser.parse_args()
    answer: dict[str, Any] = {"batch": BATCH, "classes": given.classes, "dim": DIM, "ranks": {}}
    for world_size in given.ranks:
        threads = max((os.cpu_count() or 1) // world_size, 1)
        with tempfile.TemporaryDirectory() as folder:
            arguments = (world_size, threads, given, folder)
            multiprocessing.spawn(measure, arguments, nprocs=world_size)
            figures = json.loads(Path(folder, "figures").read_text())
        for each in figures.values():
            peer = dict(each["PartialFC_V2"])
            for row in each.values():
                row["speedup"] = round(peer["step_ms"] / row["step_ms"], 2)
                row["speedup_together"] = round(peer["together_ms"] / row["together_ms"], 2)
        answer["ranks"][world_size] = {"threads": threads, "sample_rate": figures}
    answer.update(environment(torch.device("cpu")))
    text = json.dumps(answer, indent=2)
    print(text)
    if given.out:
        with atomic_file(given.out, "w") as file:
            file.write(text + "\n")


if __name__ == "__main__":
    main()
