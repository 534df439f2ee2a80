"""One job a folder: a lock that lives as long as the process that holds it."""

import errno
import os
import socket
from pathlib import Path
from typing import IO

try:
    import fcntl
except ImportError:  # Not a POSIX system: nothing is locked.
    fcntl = None  # type: ignore[assignment]

_UNSUPPORTED = (errno.ENOLCK, errno.ENOSYS, errno.EOPNOTSUPP, errno.EINVAL)

#: Locks this process holds. Closing a file gives its lock back, so they stay open.
_held: dict[Path, IO[str]] = {}


def claim(lock: str | Path) -> bool:
    """Hold the file `lock` until this process ends, however it ends.

    The system keeps the lock, so a killed job's is free at once; the file says who holds it.

    Returns:
        Whether it is held: file systems without locks hold none.

    Raises:
        ValueError: another process holds it.
    """
    lock = Path(lock).resolve()
    if lock in _held:
        return True
    if fcntl is None:
        return False
    file = open(lock, "a+")  # noqa: SIM115 (closed with the process)
    try:
        fcntl.lockf(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as error:
        file.seek(0)
        holder = file.read(200).strip() or "unknown"
        file.close()
        if error.errno in _UNSUPPORTED:
            return False
        raise ValueError(
            f"{lock.parent} is in use by another job, {holder}: wait for it, or take another folder"
        ) from None
    file.truncate(0)
    file.write(f"process {os.getpid()} on {socket.gethostname()}\n")
    file.flush()
    _held[lock] = file
    return True


def is_claimed(lock: str | Path) -> bool:
    """Whether this process holds `lock`."""
    return Path(lock).resolve() in _held
