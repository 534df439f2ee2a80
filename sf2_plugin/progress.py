"""A bar on the terminal while something long runs."""

import sys
from collections.abc import Callable


def progress_bar(what: str) -> Callable[[int, int], None]:
    """A function of (done, total) that draws how far `what` is, on standard error.

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
