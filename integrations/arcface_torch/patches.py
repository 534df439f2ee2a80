"""What is exchanged in the host, and why: one table, applied entry by entry where it is needed."""

import datetime
import functools
import importlib
import inspect
import logging
import multiprocessing
import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy
import torch

from sf2_plugin.patching import Make

from . import (
    cuda_calls,
    freezing,
    fusing,
    head_choice,
    head_log,
    resuming,
    scripts,
    starting,
    verification,
    whole_checkpoints,
    without_mxnet,
)
from .host import remember_backbone, remember_loader, replace


@dataclass(frozen=True)
class Run:
    """How the host is to run.

    Attributes:
        device: "cuda" or "cpu".
        timeout: seconds that a rank waits for the others; None for torch's default.
        script: the host's script that runs.
        resume: go on from the output folder's checkpoints where there are whole ones.
    """

    device: str = "cuda"
    timeout: float | None = None
    script: str = "train_v2.py"
    resume: bool = False

    @property
    def trains(self) -> bool:
        return self.script not in scripts.LIBRARIES


@dataclass(frozen=True)
class Patch:
    """One change of the host.

    Attributes:
        name: in the log.
        where: when a run needs it, in words.
        what: it does, and why.
        needed: whether a run needs it.
        replaces: dotted names, and what each is replaced by, made from what it was.
        prepare: called first, for what is no replacement; `also` names what that touches.
    """

    name: str
    where: str
    what: str
    needed: Callable[[Run], bool]
    replaces: Mapping[str, Make] = field(default_factory=dict)
    prepare: Callable[[Run], None] | None = None
    also: tuple[str, ...] = ()

    @property
    def touches(self) -> tuple[str, ...]:
        """Every name that it changes, the host's and others'."""
        return (*self.also, *self.replaces)

    def apply(self, run: Run) -> None:
        if self.prepare:
            self.prepare(run)
        for target, make in self.replaces.items():
            replace(target, make, key=self.name)


def mxnet_is_missing(run: Run) -> bool:
    """mxnet is retired, and its last release cannot be imported with numpy 2."""
    try:
        importlib.import_module("mxnet")
    except Exception:  # Not only ImportError: it takes names from numpy that are gone.
        for name in [name for name in sys.modules if name.partition(".")[0] == "mxnet"]:
            del sys.modules[name]
        return True
    return False


def schedulers_lost_verbose(run: Run) -> bool:
    base = torch.optim.lr_scheduler.LRScheduler
    return run.trains and "verbose" not in inspect.signature(base.__init__).parameters


def without_verbose(bases: tuple[type, ...]) -> tuple[type, ...]:
    """Put a class that takes `verbose` between the host's scheduler and torch's."""
    (base,) = bases

    class WithoutVerbose(base):  # type: ignore[misc, valid-type]
        def __init__(self, optimizer: Any, last_epoch: int = -1, verbose: bool = False) -> None:
            super().__init__(optimizer, last_epoch)

    return (WithoutVerbose,)


def limit_waiting(run: Run) -> None:
    timeout = datetime.timedelta(seconds=run.timeout or 0)
    replace(
        "torch.distributed.init_process_group",
        lambda original: functools.partial(original, timeout=timeout),
        key="timeout",
    )


def workers_are_not_forked(run: Run) -> bool:
    methods = multiprocessing.get_all_start_methods()  # The first of them is the default.
    return run.trains and "fork" in methods and methods[0] != "fork"


def trains(run: Run) -> bool:
    return run.trains


#: In the order in which they are applied: the host's modules can be imported once mxnet's place is
#: taken, and the others look for names in them.
PATCHES = (
    Patch(
        "numpy",
        "a script that does not train; numpy has no `numpy.int` (since 1.24)",
        "numpy's old names of Python's types, which the host's scripts use",
        lambda run: not run.trains and not hasattr(numpy, "int"),
        prepare=lambda run: scripts.restore_numpy_names(),
        also=tuple(f"numpy.{name}" for name in scripts.NUMPY_NAMES),
    ),
    Patch(
        "mxnet",
        "mxnet cannot be imported",
        "train.rec and .bin files are read by sf2_plugin.data: mxnet cannot be imported",
        lambda run: run.trains and mxnet_is_missing(run),
        {"dataset.MXFaceDataset": lambda original: without_mxnet.RecordDataset},
        prepare=lambda run: without_mxnet.import_without_mxnet(),
    ),
    Patch(
        "scripts",
        "a script that does not train",
        "mxnet's and menpo's few names in it, where they cannot be imported; torch's old exporter",
        lambda run: not run.trains,
        {"torch.onnx.export": scripts.with_old_exporter},
        prepare=lambda run: scripts.stand_in_for_libraries(mxnet_is_missing(run)),
        also=("mxnet.gluon.data.Dataset", "menpo.visualize.viewmatplotlib"),
    ),
    Patch(
        "scheduler",
        "torch's schedulers take no `verbose`",
        "PolynomialLRWarmup keeps its argument `verbose` from torch, which no longer takes it",
        schedulers_lost_verbose,
        {"lr_scheduler.PolynomialLRWarmup.__bases__": without_verbose},
    ),
    Patch(
        "cpu",
        "`--device cpu`",
        "no CUDA call",
        lambda run: run.device == "cpu",
        cuda_calls.CALLS,
    ),
    Patch(
        "gloo",
        "`--device cpu`, in training",
        "gloo in place of nccl, in float32; DDP exchanges gradients in float16",
        lambda run: run.device == "cpu" and run.trains,
        cuda_calls.TRAINING,
    ),
    Patch(
        "workers",
        "Python's default is not to fork (3.14)",
        "the loader's processes are forked, and so have what is patched here",
        workers_are_not_forked,
        prepare=lambda run: multiprocessing.set_start_method("fork", force=True),
        also=("multiprocessing.set_start_method",),
    ),
    Patch(
        "timeout",
        "`--timeout SECONDS`",
        "ranks wait for each other no longer than --timeout",
        lambda run: run.timeout is not None,
        prepare=limit_waiting,
        also=("torch.distributed.init_process_group",),
    ),
    Patch(
        "checkpoints",
        "training",
        "files appear whole or not at all; what ranks resume from must belong together",
        trains,
        {
            "backbones.get_model": remember_backbone,
            "torch.save": whole_checkpoints.save_whole,
            "torch.load": whole_checkpoints.load_checked,
        },
    ),
    Patch(
        "resume",
        "`--resume`, in training",
        "config.resume is on where all ranks find a checkpoint of one save, and off elsewhere",
        lambda run: run.trains and run.resume,
        {"utils.utils_config.get_config": whole_checkpoints.resume_where_saved},
    ),
    Patch(
        "folder",
        "training",
        "a second job in the output folder of one that runs is refused",
        trains,
        {"utils.utils_logging.init_logging": whole_checkpoints.claim_then_log},
    ),
    Patch(
        "schedule",
        "training",
        "a resumed run's learning rate goes along its own num_epoch, not the earlier run's",
        trains,
        {"lr_scheduler.PolynomialLRWarmup.load_state_dict": resuming.keep_own_end},
    ),
    Patch(
        "start",
        "training",
        'config.pretrained: the backbone\'s weights; centers="means": class centers from faces',
        trains,
        {
            "dataset.get_dataloader": remember_loader,
            "backbones.get_model": starting.with_pretrained,
        },
    ),
    Patch(
        "freeze",
        "training",
        "config.freeze: epochs in which the head alone trains",
        trains,
        {"torch.nn.parallel.DistributedDataParallel.forward": freezing.stand_still},
    ),
    Patch(
        "verification",
        "training",
        "pairs are verified by sf2_plugin.evaluation: the host's lines, EER and TAR@FAR",
        trains,
        {"utils.utils_callbacks.CallBackVerification": verification.callback_verification},
    ),
    Patch(
        "watch",
        "training",
        "the log and TensorBoard show the head's cosines and bias, and the backbone's gradient",
        trains,
        {
            "utils.utils_callbacks.CallBackLogging": head_log.callback_logging,
            "torch.nn.utils.clip_grad_norm_": head_log.remember_norm,
        },
    ),
    Patch(
        "loss",
        "training",
        "config.loss chooses the loss; without it the host's own runs",
        trains,
        # The class itself is changed, not what its name stands for: it calls itself by that name.
        {"partial_fc_v2.PartialFC_V2.__new__": lambda original: staticmethod(head_choice.new)},
    ),
    Patch(
        "fuse_sgd",
        "training",
        "a head whose config asks for fuse_sgd is given the host's optimizer",
        trains,
        {"lr_scheduler.PolynomialLRWarmup.__init__": fusing.fuse_when_optimized},
    ),
)

#: The patches that this process has applied.
applied: list[Patch] = []


def apply_patches(run: Run) -> None:
    """Apply what `run` needs of `PATCHES`, and log it; a second call changes nothing."""
    if applied:
        return
    for patch in PATCHES:
        if patch.needed(run):
            patch.apply(run)
            applied.append(patch)
    if logging.getLogger().handlers:  # The host logs already.
        log_patches()
    elif run.trains:
        replace("utils.utils_logging.init_logging", _then_log, key="log")


def log_patches() -> None:
    for patch in applied:
        logging.info("sf2-plugin, %s: %s", patch.name, patch.what)


def _then_log(init_logging: Callable[..., None]) -> Callable[..., None]:
    def init(*args: Any, **kwargs: Any) -> None:
        init_logging(*args, **kwargs)
        log_patches()

    return init


def table() -> str:
    """`PATCHES` as docs/arcface_torch.md shows them."""
    rows = [
        f"| `{patch.name}` | {patch.where} | {patch.what} | "
        + ", ".join(f"`{name}`" for name in patch.touches)
        + " |"
        for patch in PATCHES
    ]
    return "\n".join(["| patch | where | what | touches |", "| --- | --- | --- | --- |", *rows])
