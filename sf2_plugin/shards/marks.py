"""One mark on all files that are saved together; a whole set of them at any time.

A mark is a random word that all ranks agree on. What bears the same one was saved together. Files
without a mark, as the bare host writes them, go together as far as their content tells.

**How a set replaces the last one.** Every rank writes its file under a name for waiting, which
holds the mark; when all are on disk, each takes its own place. Whenever the ranks are killed, each
has either both files or the new one, so the newest set of which all have a file is whole:
`marked_files` finds what a rank has, `common_mark` what all have, and `settle` ends what a kill
has interrupted. Ranks need no disk in common.
"""

import os
import re
import secrets
import shutil
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any, NamedTuple

from ..atomic import atomic_file
from ..distributed import ProcessGroup, by_value, from_all_ranks, on_all_ranks
from ..torch_files import load_torch_file

#: Where a checkpoint bears its mark.
MARK = "saved_together"

_WAITING = re.compile(r"\.(?P<name>.+)\.(?P<mark>[0-9a-f]{16})\.whole")


def new_mark(group: ProcessGroup = None) -> str:
    """A mark that no other save has, the same on all ranks of the group, which must all ask."""
    return from_all_ranks(secrets.token_hex(8), group)[0]


def mark_of(checkpoint: Any, source: str | Path) -> str | None:
    """The mark that a checkpoint, read from `source`, bears; None without one.

    Raises:
        ValueError: it bears something else.
    """
    mark = checkpoint.get(MARK) if isinstance(checkpoint, dict) else None
    if mark is not None and not (isinstance(mark, str) and re.fullmatch("[0-9a-f]{16}", mark)):
        raise ValueError(f"{source} has a {MARK!r} that is no mark: {str(mark)[:40]!r}")
    return mark


def check_marks(marks: Mapping[str | Path, str | None]) -> None:
    """Refuse files that were not saved together.

    Args:
        marks: what each file bears (`mark_of`).

    Raises:
        ValueError: they differ; says which files bear which.
    """
    if len(set(marks.values())) > 1:
        told = ", ".join(f"{file} bears {mark or 'no mark'}" for file, mark in marks.items())
        raise ValueError(f"these files were not saved together: {told}")


def waiting(path: Path, mark: str) -> Path:
    """Where a file (or folder) that is whole waits for the others of its set."""
    return path.with_name(f".{path.name}.{mark}.whole")


def marked_files(
    path: Path, load: Callable[[Path], Any] = load_torch_file
) -> dict[str | None, Path]:
    """The files of a rank by their marks: first `path`, if it is there, then those that wait.

    Args:
        load: reads a checkpoint.

    Raises:
        ValueError: a file that cannot be read.
        FileNotFoundError: there is none.
    """
    found: dict[str | None, Path] = {}
    if path.exists():
        found[mark_of(load(path), path)] = path
    for each in waiting_in(path.parent):
        if each.path == path:
            found.setdefault(each.mark, each.found)
    if not found:
        raise FileNotFoundError(f"there is no {path}")
    return found


class Waiting(NamedTuple):
    """A file or folder that was found waiting, for which place, and with which mark."""

    found: Path
    path: Path
    mark: str


def waiting_in(folder: Path) -> list[Waiting]:
    """All that waits in a folder, which need not be there."""
    names = sorted(folder.iterdir()) if folder.is_dir() else []
    matches = ((each, _WAITING.fullmatch(each.name)) for each in names)
    return [Waiting(each, folder / m["name"], m["mark"]) for each, m in matches if m]


def waiting_names(path: Path) -> list[Path]:
    """What waits to take the place of `path`."""
    return [each.found for each in waiting_in(path.parent) if each.path == path]


def common_mark(ranks: Sequence[Sequence[str | None]]) -> str | None:
    """The first of rank 0's marks that all ranks have a file of.

    Args:
        ranks: the marks that each rank found, in `marked_files`' order.

    Raises:
        ValueError: there is none.
    """
    for mark in ranks[0]:
        if all(mark in marks for marks in ranks):
            return mark
    firsts = {rank: marks[0] or "no mark" for rank, marks in enumerate(ranks)}
    told = ", ".join(f"{ranks} with {mark}" for mark, ranks in by_value(firsts))
    raise ValueError(f"the files of the ranks were not saved together: {told}")


def settle(path: Path, found: Path) -> None:
    """Put the file or folder that was found where it belongs, if it still waits."""
    if found == path:
        return
    old = path.with_name(f".{path.name}.old")
    if path.is_dir():  # Which nothing can replace while it holds files.
        shutil.rmtree(old, ignore_errors=True)
        os.replace(path, old)
    os.replace(found, path)
    shutil.rmtree(old, ignore_errors=True)


@contextmanager
def file_of_set(path: Path, mark: str, group: ProcessGroup = None) -> Iterator[IO]:
    """A file to write this rank's part of a set to; all parts take their names, or none does.

    Every rank of the group must enter it. What is written must bear `mark`.

    Raises:
        OSError, RuntimeError, ...: what one rank could not write, on all of them (`on_all_ranks`).
    """
    whole = waiting(path, mark)
    with on_all_ranks("save", group, undo=lambda: whole.unlink(missing_ok=True)):
        with atomic_file(whole) as file:
            yield file
        _to_disk(path.parent)
    with on_all_ranks("save", group):
        settle(path, whole)
        _to_disk(path.parent)


def remove_leftovers(path: Path) -> None:
    """Remove what killed jobs left beside `path`, for whoever has it to himself (`claim`)."""
    partial = (each for each in path.parent.glob(".*.partial") if f".{path.name}." in each.name)
    for left in (*waiting_names(path), *partial):
        left.unlink(missing_ok=True)


def _to_disk(folder: Path) -> None:
    """Flush a folder's names to disk, so that they too outlive a loss of power."""
    try:
        descriptor = os.open(folder, os.O_RDONLY)
    except OSError:  # Not every system opens folders.
        return
    try:
        os.fsync(descriptor)
    except OSError:  # Nor every file system syncs them.
        pass
    finally:
        os.close(descriptor)
