"""The folder that a list's images lie in, and out of which its names may not lead."""

from __future__ import annotations

import os
from pathlib import Path


class ImageRoot:
    """Finds the images of a list below one folder.

    Lists come from others, and what they name is read and shown. A name that leads out of the
    folder, by `..`, as an absolute path or over a link, is therefore refused unless `outside`.
    """

    def __init__(self, folder: str | os.PathLike[str], outside: bool = False) -> None:
        self.folder = Path(folder)
        self.outside = outside
        self._real = os.path.realpath(folder)
        self._inside: dict[str, bool] = {}

    def path(self, name: str) -> Path:
        """Where a name leads, whether or not there is a file.

        Raises:
            ValueError: out of the folder.
        """
        path = self.folder / name
        if not (self.outside or self._is_inside(path)):
            raise ValueError(
                f"{name!r} leads out of {self.folder}, and is read only with --follow-outside"
            )
        return path

    def has(self, name: str) -> bool:
        """Whether there is such an image."""
        return "\0" not in name and len(name) < 4096 and self.path(name).is_file()

    def _is_inside(self, path: Path) -> bool:
        folder = str(path.parent)
        if folder not in self._inside:
            self._inside[folder] = self._below(os.path.realpath(folder))
        if path.name == ".." or (path.is_symlink() and not self._below(os.path.realpath(path))):
            return False
        return self._inside[folder]

    def _below(self, real: str) -> bool:
        return real == self._real or real.startswith(os.path.join(self._real, ""))
