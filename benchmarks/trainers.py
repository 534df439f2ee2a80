"""Trainers and parallel modes, each next to one process with the reference backend.

Every mode trains the same small network from the same start on the same batches; on two ranks
(gloo, on a CPU), each takes half of a batch. What it says is the largest difference of any
parameter after the last step from one process that computes the loss by its definition::

    python -m benchmarks.trainers [--out docs/trainers.md]
"""

import argparse
import contextlib
import dataclasses
import importlib.metadata
import platform
import tempfile
import warnings
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import torch
from packaging.version import Version
from torch import Tensor, distributed, multiprocessing, nn
from torch.nn.parallel import DistributedDataParallel

from sf2_plugin import PartialFCSphereFace2, SphereFace2
from sf2_plugin.atomic import atomic_file
from sf2_plugin.compat import TORCH

PRESETS = ("opensphere", "wespeaker")
CLASSES, DIM, FEATURES, BATCH, STEPS = 21, 16, 12, 8, 6
#: Largest difference that rounding explains.
TOLERANCE = 1e-5

Parameters = dict[str, Tensor]


class Net(nn.Module):
    """A backbone and a head, of which only the first meets DDP where the second is sharded."""

    def __init__(self, preset: str, kind: type[SphereFace2] = SphereFace2, **kwargs: Any) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.backbone = nn.Linear(FEATURES, DIM)
        self.head = kind(CLASSES, DIM, preset=preset, **kwargs)
        torch.manual_seed(1)
        centers = torch.randn(CLASSES, DIM)
        held = self.head.classes if isinstance(self.head, PartialFCSphereFace2) else slice(None)
        with torch.no_grad():
            self.head.weight.copy_(centers[held])

    def forward(self, x: Tensor, labels: Tensor) -> Tensor:
        return self.head(self.backbone(x), labels)


def rank_and_size() -> tuple[int, int]:
    if not distributed.is_initialized():
        return 0, 1
    return distributed.get_rank(), distributed.get_world_size()


def batches() -> Iterator[tuple[Tensor, Tensor]]:
    """This rank's share of every batch."""
    rank, size = rank_and_size()
    generator = torch.Generator().manual_seed(2)
    for _ in range(STEPS):
        x = torch.randn(BATCH, FEATURES, generator=generator)
        labels = torch.randint(CLASSES, (BATCH,), generator=generator)
        yield x.chunk(size)[rank], labels.chunk(size)[rank]


def sgd(net: nn.Module, **options: Any) -> torch.optim.SGD:
    return torch.optim.SGD(net.parameters(), lr=0.05, momentum=0.9, weight_decay=1e-3, **options)


def parameters(net: nn.Module) -> Parameters:
    """All of them, whole."""
    found = {}
    for name, value in net.state_dict().items():
        value = value.full_tensor() if hasattr(value, "full_tensor") else value
        found[name.rsplit("module.", 1)[-1]] = value.detach().clone()
    return {name: found[name] for name in ("backbone.weight", "head.weight", "head.bias")}


def steps(model: Callable[..., Tensor], optimizer: torch.optim.Optimizer) -> None:
    for x, labels in batches():
        optimizer.zero_grad()
        model(x, labels).backward()
        optimizer.step()


# What one process does, by the definition, for the modes to be compared with.


def plain(preset: str, backend: str = "reference") -> Parameters:
    net = Net(preset, backend=backend)
    steps(net, sgd(net))
    return parameters(net)


def margin_schedule(preset: str, backend: str = "reference", compiled: bool = False) -> Parameters:
    net = Net(preset, backend=backend)
    model = torch.compile(net, backend="aot_eager", fullgraph=True) if compiled else net
    optimizer = sgd(net)
    for step, (x, labels) in enumerate(batches()):
        net.head.recipe = dataclasses.replace(net.head.recipe, margin=0.05 * step)
        optimizer.zero_grad()
        model(x, labels).backward()
        optimizer.step()
    return parameters(net)


def averaged(preset: str, backend: str = "reference") -> Parameters:
    net = Net(preset, backend=backend)
    average = torch.optim.swa_utils.AveragedModel(net, use_buffers=True)
    optimizer = sgd(net)
    for x, labels in batches():
        optimizer.zero_grad()
        net(x, labels).backward()
        optimizer.step()
        average.update_parameters(net)
    return parameters(average.module)


def accumulated(
    preset: str, backend: str = "reference", wrap: Callable[[nn.Module], nn.Module] = lambda n: n
) -> Parameters:
    net = Net(preset, backend=backend)
    model, optimizer = wrap(net), sgd(net)
    for step, (x, labels) in enumerate(batches()):
        last = step % 2 == 1
        quiet = (
            contextlib.nullcontext()
            if last
            else getattr(model, "no_sync", contextlib.nullcontext)()
        )
        with quiet:
            (model(x, labels) / 2).backward()
        if last:
            optimizer.step()
            optimizer.zero_grad()
    return parameters(net)


def skipped(preset: str, backend: str = "reference", fused: bool = False) -> Parameters:
    """A loss scaler finds the gradient of one step not finite, and skips that step."""
    net = Net(preset, backend=backend)
    optimizer = sgd(net)
    if fused:
        net.head.fuse_sgd(optimizer)
    scaler = torch.amp.GradScaler("cpu", init_scale=2.0**10)
    for step, (x, labels) in enumerate(batches()):
        optimizer.zero_grad()
        scaler.scale(net(x, labels)).backward()
        if step == 1:
            net.backbone.weight.grad.fill_(torch.inf)
        scaler.step(optimizer)
        scaler.update()
    return parameters(net)


# The modes.


def ddp(preset: str, **options: Any) -> Parameters:
    net = Net(preset)
    steps(DistributedDataParallel(net, **options), sgd(net))
    return parameters(net)


def compiled(preset: str) -> Parameters:
    net = Net(preset)
    steps(torch.compile(net, backend="aot_eager", fullgraph=True), sgd(net))
    return parameters(net)


def ddp_compiled(preset: str) -> Parameters:
    net = Net(preset)
    steps(torch.compile(DistributedDataParallel(net), backend="aot_eager"), sgd(net))
    return parameters(net)


def zero(preset: str) -> Parameters:
    from torch.distributed.optim import ZeroRedundancyOptimizer

    net = Net(preset)
    optimizer = ZeroRedundancyOptimizer(
        net.parameters(), torch.optim.SGD, lr=0.05, momentum=0.9, weight_decay=1e-3
    )
    steps(DistributedDataParallel(net), optimizer)
    return parameters(net)


def fsdp1(preset: str, use_orig_params: bool) -> Parameters:
    from torch.distributed.fsdp import FullyShardedDataParallel as FSDP

    net = Net(preset)
    cpu = torch.device("cpu")
    model = FSDP(net, use_orig_params=use_orig_params, device_id=cpu)
    steps(model, sgd(model))
    with FSDP.summon_full_params(model):
        return parameters(model)


def fsdp1_head_kept_out(preset: str) -> Parameters:
    """FSDP around the backbone; DDP around the head."""
    from torch.distributed.fsdp import FullyShardedDataParallel as FSDP

    net = Net(preset)
    net.backbone = FSDP(net.backbone, device_id=torch.device("cpu"))
    head = DistributedDataParallel(net.head)
    steps(lambda x, labels: head(net.backbone(x), labels), sgd(net))
    with FSDP.summon_full_params(net.backbone):
        weight = net.backbone.weight.detach().clone()
    own = net.head.state_dict()
    return {"backbone.weight": weight, "head.weight": own["weight"], "head.bias": own["bias"]}


def fsdp2(preset: str, head_apart: bool = False, fused: bool = False, **options: Any) -> Parameters:
    from torch.distributed.device_mesh import init_device_mesh
    from torch.distributed.fsdp import fully_shard

    net = Net(preset)
    mesh = init_device_mesh("cpu", (rank_and_size()[1],))
    if head_apart:
        fully_shard(net.head, mesh=mesh, **options)
    fully_shard(net, mesh=mesh, **options)
    optimizer = sgd(net)
    if fused:
        net.head.fuse_sgd(optimizer)
    steps(net, optimizer)
    return parameters(net)


def fused(preset: str, wrap: Callable[[nn.Module], nn.Module] = lambda net: net) -> Parameters:
    net = Net(preset)
    optimizer = sgd(net)
    net.head.fuse_sgd(optimizer)
    steps(wrap(net), optimizer)
    return parameters(net)


def partial_fc(preset: str, fused: bool = False) -> Parameters:
    net = Net(preset, PartialFCSphereFace2)
    optimizer = sgd(net)
    if fused:
        net.head.fuse_sgd(optimizer)
    backbone = net.backbone
    if rank_and_size()[1] > 1:
        backbone = DistributedDataParallel(net.backbone)
    steps(lambda x, labels: net.head(backbone(x), labels), optimizer)
    found = parameters(net)
    rows = [None] * rank_and_size()[1]
    if len(rows) > 1:
        distributed.all_gather_object(rows, found["head.weight"])
        found["head.weight"] = torch.cat(rows)
    return found


def scaled(preset: str) -> Parameters:
    net = Net(preset)
    optimizer, scaler = sgd(net), torch.amp.GradScaler("cpu", init_scale=2.0**10)
    for x, labels in batches():
        optimizer.zero_grad()
        scaler.scale(net(x, labels)).backward()
        scaler.step(optimizer)
        scaler.update()
    return parameters(net)


def functional(preset: str) -> Parameters:
    """torch.func: gradients of a function of the parameters, which nothing is stored in."""
    from torch.func import functional_call, grad

    net = Net(preset)
    optimizer = sgd(net)
    for x, labels in batches():
        weights = {name: p.detach() for name, p in net.named_parameters()}
        if net.head.recipe.weight_norm == "in_place":
            with torch.no_grad():
                net.head.weight.copy_(nn.functional.normalize(net.head.weight))
        gradients = grad(lambda w, x, y: functional_call(net, w, (x, y)))(weights, x, labels)
        for name, p in net.named_parameters():
            p.grad = gradients[name]
        optimizer.step()
    return parameters(net)


def accelerate(preset: str) -> Parameters:
    from accelerate import Accelerator

    accelerator = Accelerator(cpu=True)
    net = Net(preset)
    model, optimizer = accelerator.prepare(net, sgd(net))
    for x, labels in batches():
        optimizer.zero_grad()
        accelerator.backward(model(x, labels))
        optimizer.step()
    return parameters(net)


def lightning(preset: str) -> Parameters:
    import lightning

    class Module(lightning.LightningModule):
        def __init__(self) -> None:
            super().__init__()
            self.net = Net(preset)

        def training_step(self, batch: Any, index: int) -> Tensor:
            return self.net(*batch)

        def configure_optimizers(self) -> torch.optim.Optimizer:
            return sgd(self)

    module = Module()
    with tempfile.TemporaryDirectory() as folder:
        trainer = lightning.Trainer(
            accelerator="cpu",
            devices=1,
            max_epochs=1,
            logger=False,
            enable_checkpointing=False,
            enable_progress_bar=False,
            enable_model_summary=False,
            default_root_dir=folder,
        )
        trainer.fit(module, torch.utils.data.DataLoader(list(batches()), batch_size=None))
    return parameters(module.net)


@dataclass(frozen=True)
class Mode:
    """A way to train.

    Attributes:
        train: gives the parameters at the end, from a preset's name.
        ranks: how many take part.
        expected: the same for one process that computes the loss by its definition.
        needs: a package beside torch.
        since: the torch it works from, where older ones lack something or do not have it on a CPU.
        refused: presets which it refuses, by a RuntimeError.
    """

    train: Callable[[str], Parameters]
    ranks: int = 1
    expected: Callable[[str], Parameters] = plain
    needs: str | None = None
    since: str = "2.1"
    refused: tuple[str, ...] = ()


def _ddp(**options: Any) -> Callable[[str], Parameters]:
    return lambda preset: ddp(preset, **options)


MODES: dict[str, Mode] = {
    "one process": Mode(lambda p: plain(p, "auto")),
    "torch.compile": Mode(compiled, since="2.4"),
    "torch.compile, the margin changing": Mode(
        lambda p: margin_schedule(p, "auto", True), expected=margin_schedule, since="2.11"
    ),
    "gradients accumulated over batches": Mode(
        lambda p: accumulated(p, "auto"), expected=accumulated
    ),
    "EMA (`AveragedModel`)": Mode(lambda p: averaged(p, "auto"), expected=averaged),
    "`GradScaler`": Mode(scaled, since="2.3"),
    "`GradScaler` that skips a step": Mode(
        lambda p: skipped(p, "auto"), expected=skipped, since="2.3"
    ),
    "`torch.func.grad`, `functional_call`": Mode(functional),
    "`fuse_sgd`": Mode(fused),
    "`fuse_sgd`, `GradScaler` that skips a step": Mode(
        lambda p: skipped(p, "auto", True), expected=skipped, since="2.3"
    ),
    "`PartialFCSphereFace2`": Mode(partial_fc),
    "Accelerate": Mode(accelerate, needs="accelerate"),
    "Lightning": Mode(lightning, needs="lightning"),
    "DDP": Mode(ddp, 2),
    "DDP, `find_unused_parameters`": Mode(_ddp(find_unused_parameters=True), 2),
    "DDP, `static_graph`": Mode(_ddp(static_graph=True), 2),
    "DDP, `gradient_as_bucket_view`": Mode(_ddp(gradient_as_bucket_view=True), 2),
    "DDP, accumulation with `no_sync`": Mode(
        lambda p: accumulated(p, "auto", DistributedDataParallel), 2, accumulated
    ),
    "DDP, torch.compile": Mode(ddp_compiled, 2, since="2.4"),
    "DDP, `fuse_sgd`": Mode(lambda p: fused(p, DistributedDataParallel), 2, refused=PRESETS),
    "DDP, `find_unused_parameters`, `fuse_sgd`": Mode(
        lambda p: fused(p, lambda n: DistributedDataParallel(n, find_unused_parameters=True)),
        2,
        refused=PRESETS,
    ),
    "ZeRO (`ZeroRedundancyOptimizer`)": Mode(zero, 2),
    "FSDP1": Mode(lambda p: fsdp1(p, False), 2, refused=("opensphere",), since="2.11"),
    "FSDP1, `use_orig_params`": Mode(
        lambda p: fsdp1(p, True), 2, refused=("opensphere",), since="2.11"
    ),
    "FSDP1 around the backbone, DDP around the head": Mode(fsdp1_head_kept_out, 2, since="2.11"),
    "FSDP2 (`fully_shard`)": Mode(fsdp2, 2, since="2.11"),
    "FSDP2, the head a group of its own": Mode(lambda p: fsdp2(p, True), 2, since="2.11"),
    "FSDP2, `reshard_after_forward=False`": Mode(
        lambda p: fsdp2(p, True, reshard_after_forward=False), 2, since="2.11"
    ),
    "FSDP2, `fuse_sgd`": Mode(lambda p: fsdp2(p, fused=True), 2, refused=PRESETS, since="2.11"),
    "`PartialFCSphereFace2`, the backbone in DDP": Mode(partial_fc, 2),
    "`PartialFCSphereFace2`, `fuse_sgd`": Mode(lambda p: partial_fc(p, True), 2),
}


Answer = Parameters | str


def absent(mode: Mode) -> str | None:
    """What a mode needs and is not there."""
    if mode.needs is not None and find_spec(mode.needs) is None:
        return mode.needs
    return f"torch {mode.since}" if Version(mode.since) > TORCH else None


def train(ranks: int) -> dict[str, dict[str, Answer]]:
    """All modes of that many ranks, on this one, by name and preset: parameters, or the refusal."""
    answers: dict[str, dict[str, Answer]] = {}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        for name, mode in MODES.items():
            if mode.ranks != ranks or absent(mode):
                continue
            answers[name] = {}
            for preset in PRESETS:
                try:
                    answers[name][preset] = mode.train(preset)
                except RuntimeError as error:
                    answers[name][preset] = str(error)
    return answers


def difference(mode: Mode, preset: str, answers: list[Answer]) -> float | str:
    """Largest difference of any rank's parameters from one process, or how ranks refuse."""
    refusals = [answer for answer in answers if isinstance(answer, str)]
    if refusals:
        return refusals[0] if len(refusals) == len(answers) else f"on one rank: {refusals[0]}"
    expected = mode.expected(preset)
    return max(
        (answer[name] - value).abs().max().item()
        for answer in answers
        if not isinstance(answer, str)
        for name, value in expected.items()
    )


def _rank(rank: int, ranks: int, folder: str) -> None:
    torch.set_num_threads(1)
    distributed.init_process_group(
        "gloo", init_method=f"file://{folder}/rendezvous", rank=rank, world_size=ranks
    )
    try:
        torch.save(train(ranks), Path(folder) / f"{rank}.pt")
    finally:
        distributed.destroy_process_group()


def on_ranks(ranks: int) -> list[dict[str, dict[str, Answer]]]:
    """What `train` gives on each rank."""
    if ranks == 1:
        return [train(1)]
    with tempfile.TemporaryDirectory() as folder:
        multiprocessing.spawn(_rank, (ranks, folder), nprocs=ranks)
        return [torch.load(Path(folder) / f"{rank}.pt") for rank in range(ranks)]


def page() -> str:
    answers = {ranks: on_ranks(ranks) for ranks in (1, 2)}
    lines, refusals, tried = [], {}, {}
    for name, mode in MODES.items():
        if absent(mode):
            lines.append(f"| {name} | {mode.ranks} | not tried: needs {absent(mode)} | |")
            continue
        if mode.needs:
            tried[mode.needs] = importlib.metadata.version(mode.needs)
        cells = []
        for preset in PRESETS:
            found = difference(mode, preset, [rank[name][preset] for rank in answers[mode.ranks]])
            if isinstance(found, str):
                number = refusals.setdefault(found, len(refusals) + 1)
                cells.append(f"refused [{number}]")
            else:
                cells.append(f"{found:.0e}" if found <= TOLERANCE else f"**{found:.0e}**")
        lines.append(f"| {name} | {mode.ranks} | {' | '.join(cells)} |")
    packages = "".join(f", {name} {version}" for name, version in tried.items())
    return PAGE.format(
        steps=STEPS,
        tolerance=TOLERANCE,
        stack=f"torch {torch.__version__}{packages}, Python {platform.python_version()}",
        presets=" | ".join(f"`{preset}`" for preset in PRESETS),
        rule=" | ".join("---" for _ in PRESETS),
        rows="\n".join(lines),
        refusals="\n".join(f"{number}. {text}" for text, number in refusals.items()),
    )


PAGE = """# Trainers and parallel modes

Each trains a small network for {steps} steps of SGD with momentum and weight decay, from one start
and on the same batches; on two ranks, each takes half of a batch. The figure is the largest
difference of any parameter on any rank from one process that computes the loss by its definition
(`backend="reference"`). Up to {tolerance:.0e} it is rounding; what is larger is bold. A mode that
would train something else is refused on the first forward pass, in the words below the table.

Made by `python -m benchmarks.trainers --out docs/trainers.md` on {stack}; CPU ranks over gloo.

| mode | ranks | {presets} |
| --- | --- | {rule} |
{rows}

Refused, on every rank:

{refusals}
"""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--out", type=Path, metavar="FILE", help="default: the terminal")
    given = parser.parse_args()
    text = page()
    if given.out is None:
        print(text)
        return
    with atomic_file(given.out, "w") as file:
        file.write(text)
    print(f"{given.out} is written")


if __name__ == "__main__":
    main()
