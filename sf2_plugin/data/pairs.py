"""Verification pair sets: two images and a flag, from a `.bin` file or from a list of paths."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from ..terminal import printable
from .bins import read_pair_bin
from .images import decode_image


@dataclass(frozen=True)
class PairSet:
    """Named image pairs for verification.

    Attributes:
        name: what logs and tables call the set.
        images: 2N images, those of pair i at 2i and 2i + 1, as encoded bytes or as paths.
        issame: (N,) bool, whether both images of a pair show one person.
    """

    name: str
    images: Sequence[bytes | Path]
    issame: NDArray[np.bool_]

    def decode(self, i: int) -> NDArray[np.uint8]:
        """The pixels of image i, uint8 (H, W, 3), RGB."""
        image = self.images[i]
        name = f"image {i} of pair set {self.name}" if isinstance(image, bytes) else None
        return decode_image(image, name)

    def distinct(self) -> tuple[NDArray[np.intp], NDArray[np.intp]]:
        """Each image once: `first` (U,), where it first occurs, and `inverse` (2N,).

        Pair sets repeat images, so embedding `first` alone saves time:
        `embeddings[inverse]` are then the embeddings of all 2N images.
        """
        places: dict[bytes | Path, int] = {}
        inverse = np.array([places.setdefault(image, len(places)) for image in self.images])
        _, first = np.unique(inverse, return_index=True)
        return first, inverse


def read_pairs(path: str | Path, *, root: str | Path | None = None) -> PairSet:
    """Read a pair set: a `.bin` file as InsightFace has them, any other file as a pair list.

    Its name is the file's, without the suffix. For `root` and errors, see `read_pair_list`.
    """
    path = Path(path)
    if path.suffix == ".bin":
        images, issame = read_pair_bin(path)
        return PairSet(printable(path.stem), images, issame)
    return read_pair_list(path, root=root)


def read_pair_list(path: str | Path, *, root: str | Path | None = None) -> PairSet:
    """Read a text file with one pair a line: `path path same`, where same is 1 or 0.

    Fields are separated by tabs, or by spaces where the line has no tab, so that paths with spaces
    need tabs. Blank lines are skipped. Paths are relative to `root`: by default the folder `val`
    beside the list where there is one, else the list's own folder.

    Raises:
        ValueError: a malformed line or an image that does not exist, with the line's number; or
            a list without pairs.
        FileNotFoundError: there is no such list.
    """
    path = Path(path)
    text = path.read_bytes()
    if root is None:
        root = path.parent / "val" if (path.parent / "val").is_dir() else path.parent
    root = Path(root)
    found: dict[str, Path] = {}
    images: list[Path] = []
    issame: list[bool] = []
    for number, encoded_line in enumerate(text.splitlines(), start=1):
        try:
            line = encoded_line.decode().strip()
        except UnicodeDecodeError:
            raise ValueError(f"{path}, line {number}: not UTF-8 text") from None
        if not line:
            continue
        fields = [field.strip() for field in line.split("\t" if "\t" in line else None)]
        if len(fields) != 3 or fields[2] not in ("0", "1"):
            raise ValueError(
                f"{path}, line {number}: {line[:200]!r}; two paths and 0 or 1 are wanted, "
                "separated by tabs where a path has spaces"
            )
        for name in fields[:2]:
            if name not in found:
                if not (root / name).is_file():
                    raise ValueError(f"{path}, line {number}: there is no image {root / name}")
                found[name] = root / name
            images.append(found[name])
        issame.append(fields[2] == "1")
    if not issame:
        raise ValueError(f"{path} has no pairs")
    return PairSet(printable(path.stem), images, np.array(issame))
