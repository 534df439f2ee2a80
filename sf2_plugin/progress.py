"""A bar on the terminal while something long runs."""

import sys
from collections.abc import Callable

#: Called, again and again, with how many are done and how many there are in all.
Progress = Callable[[int, int], None]


def progress_bar(what: str) -> Progress:
    """What draws how far `what` is, on standard error.

    It draws nothing where standard error is not a terminal, or tqdm is not installed.
    """
    try:
        from tqdm import tqdm
    except ImportError:
        return lambda done, total: None
    bar = tqdm(desc=what, disable=not sys.stderr.isatty())

    def draw(done: int, total: int) -> None:
        bar.total = total
        bar.update(done - bar.n)
        if done >= total:
            bar.close()

    return draw
