"""The end of a process whose collectives have threads of their own.

gloo's threads hold the tensors of a collective for a moment after it is done, and need Python's
lock to let them go. A thread that comes too late to it, because the machine is busy, is ended by
Python (before 3.14) in the midst of a destructor: "terminate called without an active exception",
and a run that was good ends as a failed job. `destroy_process_group` does not join them while a
DistributedDataParallel was ever built (seen with torch 2.14); where it joins them, it may hold the
lock that such a thread waits for, and never returns (seen with torch 2.4 and 2.6).
"""

import atexit
import functools
import os
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from .patching import replace

_TASKS = Path("/proc/self/task")
#: Looks in a row that must find no thread at work, seconds between them, and seconds in all.
CALM, PAUSE, PATIENCE = 3, 0.005, 2.0


@functools.cache
def rest_at_the_end() -> None:
    """Let collectives' threads come to rest before their group, or this process, ends."""
    atexit.register(rest)
    replace("torch.distributed.destroy_process_group", _after_rest, key="ending")


def _after_rest(destroy: Callable[..., None]) -> Callable[..., None]:
    @functools.wraps(destroy)
    def rest_and_destroy(*args: Any, **kwargs: Any) -> None:
        rest()
        destroy(*args, **kwargs)

    return rest_and_destroy


def rest() -> None:
    """Wait until collectives' threads have come to rest, or for `PATIENCE` seconds."""
    until = time.monotonic() + PATIENCE
    calm = 0
    while calm < CALM and time.monotonic() < until:
        time.sleep(PAUSE)  # Python's lock is free meanwhile.
        calm = 0 if _at_work() else calm + 1


def _at_work() -> bool:
    """Whether another thread runs or waits for a core; False where that cannot be told."""
    try:
        tasks = [task for task in _TASKS.iterdir() if task.name != str(os.getpid())]
    except OSError:
        return False
    return any(_state(task) == "R" for task in tasks)


def _state(task: Path) -> str:
    try:
        return (task / "stat").read_text().rpartition(")")[2].split()[0]
    except (OSError, IndexError):  # It has ended.
        return ""
