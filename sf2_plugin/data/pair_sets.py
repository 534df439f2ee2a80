"""Verification pair sets: two images and a flag, from a `.bin` file or from a list of paths."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from ..reading import reading
from ..terminal import printable
from .bins import read_pair_bin
from .images import decode_image
from .pair_lists import read_list


@dataclass(frozen=True)
class PairSet:
    """Named image pairs for verification.

    Attributes:
        name: what logs and tables call the set.
        images: 2N images, those of pair i at 2i and 2i + 1, as encoded bytes or as paths.
        issame: (N,) bool, whether both images of a pair show one person.
        format: of a benchmark's list, which it was taken for.
    """

    name: str
    images: Sequence[bytes | Path]
    issame: NDArray[np.bool_]
    format: str = ""

    def decode(self, i: int) -> NDArray[np.uint8]:
        """The pixels of image i, uint8 (H, W, 3), RGB."""
        return decode_image(self.images[i], self.full_name(i))

    def full_name(self, i: int) -> str:
        """What errors call image i: its path; of bytes, its number and the set's name."""
        image = self.images[i]
        is_bytes = isinstance(image, bytes)
        return f"image {i} of pair set {self.name}" if is_bytes else str(image)

    def image_name(self, i: int) -> str:
        """What image i is called: the end of its path, PERSON/FILE; of bytes, its number."""
        image = self.images[i]
        return f"image {i}" if isinstance(image, bytes) else "/".join(image.parts[-2:])

    def distinct(self) -> tuple[NDArray[np.intp], NDArray[np.intp]]:
        """Each image once: `first` (U,), where it first occurs, and `inverse` (2N,).

        Pair sets repeat images, so embedding `first` alone saves time:
        `embeddings[inverse]` are then the embeddings of all 2N images.
        """
        places: dict[bytes | Path, int] = {}
        inverse = np.array([places.setdefault(image, len(places)) for image in self.images])
        _, first = np.unique(inverse, return_index=True)
        return first, inverse

    def embeddings(self, embed: Callable[..., NDArray[np.float32]]) -> NDArray[np.float32]:
        """(2N, D): `embed(images, names=...)` gives those (U, D) of each image once."""
        first, inverse = self.distinct()
        names = [self.full_name(i) for i in first]
        return embed([self.images[i] for i in first], names=names)[inverse]


def read_pairs(
    path: str | Path, *, root: str | Path | None = None, outside: bool = False
) -> PairSet:
    """Read a pair set: a `.bin` file as InsightFace has them, any other file as a pair list.

    Its name is the file's, without the suffix. For the arguments and errors, see `read_pair_list`.
    """
    path = Path(path)
    if path.suffix == ".bin":
        images, issame = read_pair_bin(path)
        return PairSet(printable(path.stem), images, issame)
    return read_pair_list(path, root=root, outside=outside)


def read_pair_list(
    path: str | Path, *, root: str | Path | None = None, outside: bool = False
) -> PairSet:
    """Read a list of pairs, of this project's kind or a benchmark's: see `data/pair_lists.py`.

    Args:
        path: a text file, or of CFP's pairs the folder `Protocol/Split/FP` or `FF`.
        root: folder that paths are relative to; by default the folder `val` beside the list where
            there is one, else the list's own, or one that a benchmark's images usually lie in.
        outside: also read images to which a path or a link leads out of `root`.

    Raises:
        ValueError: a malformed line, an image that does not exist or lies out of `root`, with the
            line's number; or a list without pairs.
        FileNotFoundError: there is no such list.
    """
    path = Path(path)
    with reading(path, "a list of pairs"):
        pairs = read_list(path, root, outside)
        return PairSet(printable(path.stem), pairs.images, np.array(pairs.issame), pairs.format)
