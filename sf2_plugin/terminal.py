"""What a command says: on a terminal without what a name could do harm with there, or as JSON."""

from __future__ import annotations

import contextlib
import io
import json
import math
import sys
from collections.abc import Iterator, Mapping
from typing import Any, TextIO

_answers: TextIO | None = None


def printable(text: str) -> str:
    r"""`text` in one line, to be shown as it is read.

    Control characters, marks that turn the direction of writing, and what stands for bytes that are
    no text are escaped.

    >>> printable("caf\u00e9 \x1b[31m\u202e\udcff")
    'café \\x1b[31m\\u202e\\udcff'
    """
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in text)


def say(text: str) -> None:
    """Print an answer of a command to standard output."""
    lines = "\n".join(map(printable, text.split("\n")))
    out = _answers or sys.stdout
    encoding = getattr(out, "encoding", None) or "utf-8"
    print(lines.encode(encoding, "backslashreplace").decode(encoding), file=out, flush=True)


def complain(text: str) -> None:
    """Print a line to standard error, if anybody listens."""
    with contextlib.suppress(OSError):
        line = printable(" ".join(text.split()))
        print(line.encode(errors="replace").decode(), file=sys.stderr, flush=True)


def json_text(figures: Mapping[str, Any]) -> str:
    """JSON by its standard: what is not finite is null."""
    return json.dumps(_plain(figures), indent=2, allow_nan=False)


def _plain(value: Any) -> Any:
    if isinstance(value, float) and not math.isfinite(value):
        return None
    if isinstance(value, str):
        return value.encode("utf-8", "backslashreplace").decode()
    if isinstance(value, Mapping):
        return {_plain(name): _plain(inner) for name, inner in value.items()}
    return [_plain(inner) for inner in value] if isinstance(value, (list, tuple)) else value


@contextlib.contextmanager
def answers_alone() -> Iterator[None]:
    """Meanwhile standard output is for `say`; what libraries print goes to standard error."""
    global _answers
    before, _answers = _answers, sys.stdout or io.StringIO()  # None where it is closed.
    try:
        with contextlib.redirect_stdout(sys.stderr):
            yield
    finally:
        _answers = before
