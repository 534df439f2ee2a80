"""The one boundary at which reading a file can fail: whatever is wrong with it is one line."""

from __future__ import annotations

import os
import stat
from collections.abc import Iterator
from contextlib import contextmanager


class UnreadableFile(ValueError):
    """`FILE: what is wrong with it`."""


@contextmanager
def reading(path: str | os.PathLike[str], kind: str = "") -> Iterator[None]:
    """Turn whatever the block raises over a file's content into an `UnreadableFile`.

    Parsers fail on damaged bytes in ways of their own (`zlib.error`, `struct.error`, `MemoryError`,
    `RecursionError`, ...), and none of them names the file. Readers raise a plain ValueError that
    says what is wrong, and leave the name to this.

    Args:
        path: the file's name, for the message.
        kind: what the file was taken for, said where it is not plain from its name.

    Raises:
        UnreadableFile: the content is not what it should be; or it is a device, without an end.
        OSError: the system's own of this file: it does not exist, may not be read ...
    """
    try:
        if os.path.exists(path):
            mode = os.stat(path).st_mode
            if stat.S_ISCHR(mode) or stat.S_ISBLK(mode):
                raise ValueError("it is a device, not a file")
        yield
    except UnreadableFile:  # Of a file that this one names.
        raise
    except (Exception, SystemExit) as error:
        name = os.fspath(path)
        if isinstance(error, OSError) and error.filename in (path, name):
            raise
        if isinstance(error, ValueError) and str(error).startswith(name):  # Named already.
            raise
        taken_for = f"not readable as {kind}: " if kind else ""
        raise UnreadableFile(f"{name}: {taken_for}{_reason(error)}") from error


def _reason(error: BaseException) -> str:
    match error:
        case MemoryError():
            return "it asks for more memory than there is"
        case RecursionError():
            return "it is nested too deep"
        case OSError(filename=str(other)):
            return f"{other[:200]}: {error.strerror}"
        case UnicodeDecodeError():
            return f"byte {error.start} is not {error.encoding.upper()} text"
    words = " ".join(str(error).split())[:400]
    if isinstance(error, ValueError) and words:
        return words
    return f"{type(error).__name__}: {words}" if words else type(error).__name__
