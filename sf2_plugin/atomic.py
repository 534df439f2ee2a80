"""Files and folders that appear whole or not at all."""

from __future__ import annotations

import errno
import os
import shutil
import stat
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import IO

_partial: set[Path] = set()


def remove_partial() -> None:
    """Remove what is half written, for whoever ends the process at once."""
    for path in list(_partial):
        if path.is_dir():
            shutil.rmtree(path, ignore_errors=True)
        else:
            path.unlink(missing_ok=True)


def writable(path: str | Path) -> Path:
    """The file that writing to `path` makes or replaces: of a link, what it leads to.

    Raises:
        ValueError: a folder, a device or a pipe, none of which is replaced.
        OSError: there is no folder for it, or it may not be written.
    """
    target = Path(os.path.realpath(path))
    if target.is_symlink():
        raise ValueError(f"{path} is a link that leads to itself")
    if target.is_dir():
        raise ValueError(f"{path} is a folder; the name of a file is wanted")
    if target.exists() and not target.is_file():
        raise ValueError(f"{path} is a device or a pipe; the name of a file is wanted")
    if not target.parent.is_dir():
        raise FileNotFoundError(errno.ENOENT, "there is no such folder", str(target.parent))
    for place in (target, target.parent):
        if place.exists() and not os.access(place, os.W_OK):
            raise PermissionError(errno.EACCES, "it may not be written", str(place))
    return target


@contextmanager
def atomic_file(path: str | Path, mode: str = "wb") -> Iterator[IO]:
    """A file open for writing that takes the name `path` when the block ends without an error.

    Where there is such a file, it keeps its mode; a link stays, and what it leads to is replaced.

    Raises:
        ValueError, OSError: as `writable`; or the disk is full.
    """
    target = writable(path)
    partial = target.with_name(f".{target.name[:200]}.{os.getpid()}.partial")
    _partial.add(partial)
    try:
        partial.unlink(missing_ok=True)  # Of an older process with this number, that was killed.
        encoding = None if "b" in mode else "utf-8"
        with open(partial, mode.replace("w", "x"), encoding=encoding) as file:
            if target.exists():
                partial.chmod(stat.S_IMODE(target.stat().st_mode))
            yield file
            file.flush()
            os.fsync(file.fileno())
        os.replace(partial, target)
    except OSError as error:
        if error.errno is not None and error.filename in (None, str(partial)):
            raise OSError(error.errno, error.strerror, str(path)) from error
        raise
    finally:
        partial.unlink(missing_ok=True)
        _partial.discard(partial)


@contextmanager
def made_folder(path: Path) -> Iterator[None]:
    """The folder `path` and those it lies in; made ones go again where the block fails.

    Raises:
        ValueError: it is a file, or lies in one.
    """
    missing = [folder for folder in (path, *path.parents) if not folder.exists()]
    try:
        path.mkdir(parents=True, exist_ok=True)
    except (FileExistsError, NotADirectoryError):
        raise ValueError(f"{path} must be a folder, and is, or lies in, a file") from None
    try:
        yield
    except BaseException:
        for folder in missing:
            with suppress(OSError):  # It holds something by now.
                folder.rmdir()
        raise


@contextmanager
def atomic_folder(path: str | Path) -> Iterator[Path]:
    """A new folder that takes the name `path` when the block ends without an error.

    Raises:
        ValueError: `path` exists and is not an empty folder, or lies in a file.
    """
    path = Path(path)
    if path.exists() and (not path.is_dir() or any(path.iterdir())):
        raise ValueError(f"{path} already exists; give a folder that is new or empty")
    target = Path(os.path.realpath(path))
    name = f".{target.name[:200]}."
    with made_folder(target.parent):
        partial = Path(tempfile.mkdtemp(prefix=name, suffix=".partial", dir=target.parent))
        _partial.add(partial)
        try:
            partial.chmod(0o755)
            yield partial
            os.replace(partial, target)
        except BaseException:
            shutil.rmtree(partial, ignore_errors=True)
            raise
        finally:
            _partial.discard(partial)
