"""How a process of the command line ends when it is told to: at once, and with one line."""

from __future__ import annotations

import atexit
import contextlib
import os
import signal
import sys
from typing import Any

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
    for thread in os.listdir("/proc/self/task"):
        with open(f"/proc/self/task/{thread}/children") as children:
            for child in children.read().split():
                os.kill(int(child), signal.SIGTERM)
