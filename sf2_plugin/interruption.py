"""How a process of the command line ends when it is told to: at once, and with one line."""

from __future__ import annotations

import atexit
import contextlib
import os
import signal
import sys
import time
from typing import Any

#: Seconds that child processes have to end by themselves.
PATIENCE = 2.0
_NAMES = ("SIGINT", "SIGTERM", "SIGHUP")  # Windows has not all of them.


def end_when_told() -> None:
    """From now on SIGINT, SIGTERM and SIGHUP end the process with status 128 + their number.

    Not by an exception: KeyboardInterrupt may come up in a library's import, a destructor or a
    callback, where it is shown as a traceback, taken for another error, or lost. What is half
    written is removed, and child processes end as well.
    """
    process = os.getpid()

    def end(number: int, frame: Any) -> None:
        if os.getpid() == process:  # Not a child, which has inherited this.
            with contextlib.suppress(Exception):
                _end_children()
            with contextlib.suppress(Exception):
                atomic = sys.modules.get("sf2_plugin.atomic")
                if atomic is not None:
                    atomic.remove_partial()
            with contextlib.suppress(OSError):
                os.write(2, b"\nsf2: interrupted\n" if os.isatty(2) else b"sf2: interrupted\n")
        os._exit(128 + number)

    signals = [getattr(signal, name) for name in _NAMES if hasattr(signal, name)]
    told = [each for each in signals if signal.getsignal(each) is not signal.SIG_IGN]
    for each in told:
        signal.signal(each, end)
    # The last to run at exit, when all is said: what Python takes down after it is not disturbed.
    atexit.register(lambda: [signal.signal(each, signal.SIG_IGN) for each in told])


def _end_children() -> None:
    """End child processes where Linux lists them; elsewhere they notice, or the terminal tells."""
    children: set[str] = set()
    for thread in os.listdir("/proc/self/task"):
        with open(f"/proc/self/task/{thread}/children") as listed:
            children.update(listed.read().split())
    # What ignores SIGTERM tidies up after this process, as multiprocessing's tracker does.
    children = {child for child in children if not _ignores_sigterm(child)}
    until = time.monotonic() + PATIENCE
    while children and time.monotonic() < until:
        for child in children:  # Again: between its fork and its first line a child forgets.
            with contextlib.suppress(ProcessLookupError):
                os.kill(int(child), signal.SIGTERM)
        time.sleep(0.01)
        children = {child for child in children if not _has_ended(child)}
    for child in children:
        with contextlib.suppress(ProcessLookupError):
            os.kill(int(child), signal.SIGKILL)


def _ignores_sigterm(process: str) -> bool:
    with contextlib.suppress(OSError), open(f"/proc/{process}/status") as status:
        for line in status:
            if line.startswith("SigIgn:"):
                return bool(int(line.split()[1], 16) >> (signal.SIGTERM - 1) & 1)
    return False


def _has_ended(process: str) -> bool:
    try:
        with open(f"/proc/{process}/stat") as stat:
            return stat.read().rpartition(")")[2].split()[0] == "Z"
    except OSError:
        return True
