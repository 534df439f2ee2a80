"""What is exchanged in the host, and why: one table, applied entry by entry where it is needed."""

import datetime
import functools
import importlib
import inspect
import logging
import multiprocessing
import sys
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch

from . import checkpoints, cpu, loss, records, verification
from .host import replace


@dataclass(frozen=True)
class Run:
    """How the host is to run.

    Attributes:
        device: "cuda" or "cpu".
        timeout: seconds that a rank waits for the others; None for torch's default.
    """

    device: str = "cuda"
    timeout: float | None = None


@dataclass(frozen=True)
class Mend:
    """One change of the host: its name, what it does and why, and whether a run needs it."""

    name: str
    what: str
    needed: Callable[[Run], bool]
    apply: Callable[[Run], None]


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
    return "verbose" not in inspect.signature(base.__init__).parameters


def drop_verbose(run: Run) -> None:
    """Put a class that takes `verbose` between the host's scheduler and torch's."""
    scheduler = importlib.import_module("lr_scheduler").PolynomialLRWarmup
    (base,) = scheduler.__bases__

    class WithoutVerbose(base):  # type: ignore[misc, valid-type]
        def __init__(self, optimizer: Any, last_epoch: int = -1, verbose: bool = False) -> None:
            super().__init__(optimizer, last_epoch)

    scheduler.__bases__ = (WithoutVerbose,)


def limit_waiting(run: Run) -> None:
    timeout = datetime.timedelta(seconds=run.timeout or 0)
    replace(
        "torch.distributed",
        "init_process_group",
        lambda original: functools.partial(original, timeout=timeout),
    )


def workers_are_not_forked(run: Run) -> bool:
    methods = multiprocessing.get_all_start_methods()  # The first of them is the default.
    return "fork" in methods and methods[0] != "fork"


def always(run: Run) -> bool:
    return True


#: In the order in which they are applied: the host's modules can be imported once mxnet's place is
#: taken, and the others look for names in them.
MENDS = (
    Mend(
        "mxnet",
        "train.rec and .bin files are read by sf2_plugin.data: mxnet cannot be imported",
        mxnet_is_missing,
        lambda run: records.read_without_mxnet(),
    ),
    Mend(
        "scheduler",
        "PolynomialLRWarmup keeps its argument `verbose` from torch, which no longer takes it",
        schedulers_lost_verbose,
        drop_verbose,
    ),
    Mend(
        "cpu",
        "gloo in place of nccl and no CUDA call, in float32; DDP exchanges gradients in float16",
        lambda run: run.device == "cpu",
        lambda run: cpu.run_on_cpu(),
    ),
    Mend(
        "workers",
        "the loader's processes are forked, and so have what is mended here",
        workers_are_not_forked,
        lambda run: multiprocessing.set_start_method("fork", force=True),
    ),
    Mend(
        "timeout",
        "ranks wait for each other no longer than --timeout",
        lambda run: run.timeout is not None,
        limit_waiting,
    ),
    Mend(
        "checkpoints",
        "files appear whole or not at all; what ranks resume from must belong together",
        always,
        lambda run: checkpoints.write_whole_and_check(),
    ),
    Mend(
        "folder",
        "a second job in the output folder of one that runs is refused",
        always,
        lambda run: checkpoints.keep_others_out(),
    ),
    Mend(
        "verification",
        "pairs are verified by sf2_plugin.evaluation: the host's lines, EER and TAR@FAR",
        always,
        lambda run: replace(
            "utils.utils_callbacks", "CallBackVerification", verification.callback_verification
        ),
    ),
    Mend(
        "loss",
        "config.loss chooses the loss; without it the host's own runs",
        always,
        lambda run: loss.choose_by_config(),
    ),
)

#: The mends that this process has applied.
applied: list[Mend] = []


def apply_mends(run: Run) -> None:
    """Apply what `run` needs of `MENDS`, and log it; a second call changes nothing."""
    if applied:
        return
    for mend in MENDS:
        if mend.needed(run):
            mend.apply(run)
            applied.append(mend)
    if logging.getLogger().handlers:  # The host logs already.
        log_mends()
    else:
        replace("utils.utils_logging", "init_logging", _then_log)


def log_mends() -> None:
    for mend in applied:
        logging.info("sf2-plugin, %s: %s", mend.name, mend.what)


def _then_log(init_logging: Callable[..., None]) -> Callable[..., None]:
    def init(*args: Any, **kwargs: Any) -> None:
        init_logging(*args, **kwargs)
        log_mends()

    return init
