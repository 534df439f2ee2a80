"""Pairs to verify with, from a folder of people: folds share nobody, and no pair occurs twice."""

from __future__ import annotations

from dataclasses import dataclass
from math import comb
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..atomic import atomic_file
from ..data import FaceFolder, write_pair_bin
from ..data.pair_lists import own_folder
from ..evaluation.vectors import unit

Ids = NDArray[np.int64]
_CHUNK_ROWS = 512


@dataclass(frozen=True)
class FacePairs:
    """Pairs of images, fold after fold, each with its genuine pairs first.

    Attributes:
        images: (N, 2) places of images.
        issame: (N,) bool.
        folds: how many, all of one length.
        hard: how many of the impostor pairs are those that a model takes most for one person.
    """

    images: Ids
    issame: NDArray[np.bool_]
    folds: int
    hard: int = 0

    def as_dict(self, labels: Ids) -> dict[str, Any]:
        return {
            "folds": self.folds,
            "genuine": int(self.issame.sum()),
            "impostor": int((~self.issame).sum()),
            "hard_impostor": self.hard,
            "images": len(np.unique(self.images)),
            "people": len(np.unique(labels[self.images])),
        }


def make_pairs(
    labels: Ids,
    *,
    folds: int = 10,
    genuine: int | None = None,
    impostor: int | None = None,
    seed: int = 0,
    embeddings: NDArray[np.floating] | None = None,
    hard: float = 1.0,
) -> FacePairs:
    """Draw pairs of images.

    People are divided evenly among the folds, and so that each can have about as many pairs.
    Genuine pairs are drawn a person at a time, one of each before a second of anyone, so that
    nobody fills the set; impostor pairs evenly from all pairs of images of two people.

    Args:
        labels: (images,) the person of each.
        genuine: pairs in each fold; by default 300, as in LFW, or as many as there are.
        impostor: the same; by default as many as genuine ones.
        embeddings: (images, D) by a model; with them a share `hard` of the impostor pairs are
            those of the highest cosine, one of any two people. Where a fold has not so many
            pairs of people, more are drawn evenly.

    Raises:
        ValueError: a fold without two people or a genuine pair, or with too few pairs.
    """
    rng = np.random.default_rng(seed)
    order = np.argsort(labels, kind="stable")
    _, starts = np.unique(labels[order], return_index=True)
    people = np.split(order, starts[1:])
    parts = _divide(people, folds, rng)
    most = min(sum(comb(len(images), 2) for images in part) for part in parts)
    most_impostor = min(map(_different, parts))
    if genuine is None:
        genuine = min(300, most, most if impostor is not None else most_impostor)
    wanted = min(genuine, most_impostor) if impostor is None else impostor
    for kind, number, limit in (("genuine", genuine, most), ("impostor", wanted, most_impostor)):
        if not 1 <= number <= limit:
            raise ValueError(
                f"{number} {kind} pairs in each of {folds} folds are wanted: {len(labels)} images "
                f"of {len(people)} people make from 1 to {limit}"
            )
    nearest = round(hard * wanted) if embeddings is not None else 0
    chosen, flags, hard_ones = [], [], 0
    for part in parts:
        found = np.empty((0, 2), np.int64)
        if nearest:
            assert embeddings is not None
            found = _nearest(part, embeddings, nearest)
            hard_ones += len(found)
        different = np.concatenate([found, _between(part, wanted - len(found), found, rng)])
        chosen += [_within(part, genuine, rng), different]
        flags += [np.ones(genuine, bool), np.zeros(wanted, bool)]
    return FacePairs(np.concatenate(chosen), np.concatenate(flags), folds, hard_ones)


def _divide(people: list[Ids], folds: int, rng: np.random.Generator) -> list[list[Ids]]:
    """As many people in each fold; those of most pairs first, each to the fold of the fewest."""
    if len(people) < 2 * folds:
        raise ValueError(
            f"{len(people)} people are too few for {folds} folds of two: folds share nobody"
        )
    parts: list[list[Ids]] = [[] for _ in range(folds)]
    weight = [(0, 0)] * folds
    shuffled = [people[i] for i in rng.permutation(len(people))]
    for images in sorted(shuffled, key=len, reverse=True):
        least = weight.index(min(weight))
        parts[least].append(images)
        held, pairs = weight[least]
        weight[least] = (held + 1, pairs + comb(len(images), 2))
    return parts


def _within(part: list[Ids], wanted: int, rng: np.random.Generator) -> Ids:
    """Genuine pairs, in rounds of one a person."""
    possible = np.array([comb(len(images), 2) for images in part])
    # How many of each: the most even share that makes up `wanted`, at random in the last round.
    share = np.zeros(len(part), np.int64)
    while missing := wanted - int(share.sum()):
        open_ = np.flatnonzero(share < possible)
        if len(open_) > missing:
            open_ = rng.choice(open_, missing, replace=False)
        share[open_] += 1
    pairs = [
        images[_pair_of(rng.choice(int(n), int(k), replace=False))]
        for images, n, k in zip(part, possible, share, strict=True)
        if k
    ]
    return np.concatenate(pairs)


def _pair_of(number: Ids) -> Ids:
    """(n, 2) of n numbers of pairs i < j, in the order (0, 1), (0, 2), (1, 2), (0, 3), ..."""
    second = ((1 + np.sqrt(1 + 8 * number.astype(np.float64))) / 2).astype(np.int64)
    second -= second * (second - 1) // 2 > number
    second += second * (second + 1) // 2 <= number
    return np.stack([number - second * (second - 1) // 2, second], axis=1)


def _different(part: list[Ids]) -> int:
    """How many pairs of images of two people there are."""
    return comb(sum(map(len, part)), 2) - sum(comb(len(images), 2) for images in part)


def _between(part: list[Ids], wanted: int, taken: Ids, rng: np.random.Generator) -> Ids:
    """Impostor pairs evenly from all that are not `taken` (k, 2)."""
    images = np.concatenate(part)
    used = {_sorted(a, b) for a, b in taken.tolist()}
    if 2 * (wanted + len(used)) > _different(part):  # Then all are few enough to be listed.
        ends = np.cumsum([len(own) for own in part])
        every = [
            np.stack(np.meshgrid(own, images[end:]), axis=-1).reshape(-1, 2)
            for own, end in zip(part, ends, strict=True)
        ]
        free = [(a, b) for a, b in np.concatenate(every).tolist() if _sorted(a, b) not in used]
        chosen = [free[i] for i in rng.choice(len(free), wanted, replace=False)]
    else:
        person = np.repeat(np.arange(len(part)), [len(own) for own in part])
        chosen = []
        while len(chosen) < wanted:
            drawn = rng.integers(len(images), size=(wanted + 16, 2))
            drawn = images[drawn[person[drawn[:, 0]] != person[drawn[:, 1]]]]
            for a, b in drawn.tolist():
                if _sorted(a, b) not in used and len(chosen) < wanted:
                    used.add(_sorted(a, b))
                    chosen.append((a, b))
    return np.array(chosen, np.int64).reshape(-1, 2)


def _sorted(a: int, b: int) -> tuple[int, int]:
    return (a, b) if a < b else (b, a)


def _nearest(part: list[Ids], embeddings: NDArray[np.floating], wanted: int) -> Ids:
    """Of the nearest images of any two people, the `wanted` pairs of highest cosine.

    The memory is that of one person's images against all of the fold.
    """
    images = np.concatenate(part)
    vectors = unit(embeddings[images]).astype(np.float32)
    ends = np.cumsum([len(own) for own in part])
    cosines, pairs = np.empty(0, np.float32), np.empty((0, 2), np.int64)
    for person, (end, own) in enumerate(zip(ends[:-1], part[:-1], strict=True)):
        others = vectors[end:]
        best = np.full(len(others), -np.inf, np.float32)
        mine = np.zeros(len(others), np.int64)
        for start in range(end - len(own), end, _CHUNK_ROWS):
            rows = vectors[start : min(start + _CHUNK_ROWS, end)] @ others.T
            row = rows.argmax(axis=0)
            value = rows[row, np.arange(len(others))]
            better = value > best
            best[better], mine[better] = value[better], start + row[better]
        first = np.concatenate([[0], ends[person + 1 : -1] - end]).astype(np.int64)
        highest = np.maximum.reduceat(best, first)
        length = np.diff(np.append(first, len(others)))
        is_best = np.flatnonzero(best == np.repeat(highest, length))
        # The first of each person's, where two are equal.
        theirs = is_best[np.searchsorted(is_best, first)]
        found = np.stack([mine[theirs], end + theirs], axis=1)
        cosines, pairs = np.concatenate([cosines, highest]), np.concatenate([pairs, found])
        if len(cosines) > 4 * wanted + 1024:
            keep = np.argpartition(-cosines, wanted)[:wanted]
            cosines, pairs = cosines[keep], pairs[keep]
    return images[pairs[np.argsort(-cosines, kind="stable")[:wanted]]]


def default_list(folder: Path) -> Path:
    """`FOLDER_pairs.txt` beside a folder of people; in it where the one beside is read otherwise.

    Beside a folder `val`, a list is taken to be of its images.
    """
    folder = folder.resolve()
    beside = folder.with_name(f"{folder.name}_pairs.txt")
    return beside if _holds(own_folder(beside.parent), folder) else folder / "pairs.txt"


def check_list(pair_list: Path, folder: Path) -> None:
    """Refuse a place for a list from which `read_pair_list` would not find the images."""
    root = own_folder(pair_list.parent)
    if not _holds(root, folder):
        raise ValueError(
            f"{pair_list} would be read with the images of {root}: {default_list(folder)} is a "
            f"place for a list of {folder}"
        )


def _holds(root: Path, folder: Path) -> bool:
    return folder.resolve().is_relative_to(root.resolve())


def write_pairs(
    folder: Path, faces: FaceFolder, pairs: FacePairs, pair_list: Path | None, pair_bin: Path | None
) -> None:
    """Write a pair list, whose paths `read_pair_list` finds, and a `.bin`, which holds the images.

    `faces` are those of `folder`.

    Raises:
        ValueError: a path that a list cannot hold.
    """
    paths = [faces.samples[i][0] for i in pairs.images.ravel()]
    if pair_list is not None:
        below = folder.resolve().relative_to(own_folder(pair_list.parent).resolve())
        names = {path: (below / path.relative_to(folder)).as_posix() for path in set(paths)}
        for name in names.values():
            if name != name.strip() or any(character in name for character in "\t\r\n"):
                raise ValueError(f"{name!r} is no path that a line of a pair list can hold")
        space = "\t" if any(set(name) & set(" ,;") for name in names.values()) else " "
        lines = [
            f"{names[first]}{space}{names[second]}{space}{int(same)}\n"
            for first, second, same in zip(paths[::2], paths[1::2], pairs.issame, strict=True)
        ]
        with atomic_file(pair_list) as file:
            file.writelines(line.encode() for line in lines)
    if pair_bin is not None:
        content = {path: path.read_bytes() for path in set(paths)}
        write_pair_bin(pair_bin, [content[path] for path in paths], pairs.issame)
