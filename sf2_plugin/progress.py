"""A bar on the terminal while something long runs."""

import sys
from collections.abc import Callable

WIDTH = 30


def progress_bar(what: str) -> Callable[[int, int], None]:
    """A function of (done, total) that draws how far `what` is, on standard error.

    It draws nothing where standard error is not a terminal.
    """
    if not sys.stderr.isatty():
        return lambda done, total: None

    def draw(done: int, total: int) -> None:
        bar = ("#" * (WIDTH * done // max(total, 1))).ljust(WIDTH, ".")
        end = "\n" if done >= total else ""
        print(f"\r{what} [{bar}] {done}/{total}", end=end, file=sys.stderr, flush=True)

    return draw
