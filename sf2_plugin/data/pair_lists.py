"""Lists of pairs as text: this project's own, and those that face benchmarks come with.

- `path path same`, a pair a line, same 1 or 0; separated by tabs, commas or spaces.
- LFW's `pairs.txt`: `name n n` and `name n name n`, below a line with the number of folds and of
  pairs of a kind, or of these alone (`pairsDevTest.txt`); images are `NAME/NAME_0001.jpg`.
- CALFW's and CPLFW's: `path flag` for either image, on two lines. The flag is 0 for two people,
  else the fold, or 1.
- CFP's folders `Split/FP` and `Split/FF`, of folds with `same.txt` and `diff.txt`: numbers of lines
  of `Pair_list_F.txt` and `Pair_list_P.txt`.

Which one it is, the content tells.
"""

from __future__ import annotations

import codecs
import csv
import itertools
import re
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import NamedTuple

from ..reading import UnreadableFile, reading
from .image_root import ImageRoot
from .images import IMAGE_SUFFIXES

FOLDS = 10
#: Folders beside a benchmark's list that its images lie in, where no other is given.
_USUAL = ("", "images", "aligned images", "lfw", "lfw_funneled", "lfw-deepfunneled")


@dataclass
class Pairs:
    """What a list says: two paths and whether they show one person, of each pair."""

    format: str = ""
    """Of others than this project's own, in words."""
    images: list[Path] = field(default_factory=list)
    issame: list[bool] = field(default_factory=list)

    def add(self, first: Path, second: Path, same: bool) -> None:
        self.images += [first, second]
        self.issame.append(same)

    def reordered(self, order: Sequence[int]) -> Pairs:
        images = [self.images[2 * i + place] for i in order for place in (0, 1)]
        return Pairs(self.format, images, [self.issame[i] for i in order])


class _Line(NamedTuple):
    path: Path
    number: int
    text: str

    @property
    def place(self) -> str:
        return f"{self.path}, line {self.number}"

    def refused(self, wanted: str) -> UnreadableFile:
        return UnreadableFile(f"{self.place}: {self.text[:200]!r}; {wanted}")


def read_list(path: Path, root: str | Path | None, outside: bool) -> Pairs:
    """The pairs of a text file, or of a folder of CFP's; see `read_pair_list` for the arguments."""
    if path.is_dir():
        return _cfp(path, root, outside)
    lines = list(_lines(path))
    if not lines:
        raise UnreadableFile(f"{path} has no pairs")
    kind = _kind(lines)
    if root is None:
        root = _folder(path.parent, kind, lines)
    return kind(lines, ImageRoot(root, outside))


def _lines(path: Path) -> Iterator[_Line]:
    """Read the lines that are not blank, counted from 1; a byte-order mark tells the encoding."""
    with reading(path):
        content = path.read_bytes()
        if content.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)):
            content = content.decode("utf-16").encode()
        content = content.removeprefix(codecs.BOM_UTF8)
    for number, line in enumerate(re.split(rb"\r\n|\r|\n", content), start=1):
        try:
            text = line.decode().strip()
        except UnicodeDecodeError:
            raise UnreadableFile(f"{path}, line {number}: not UTF-8 text") from None
        if text:
            yield _Line(path, number, text)


_Reader = Callable[[list[_Line], ImageRoot], Pairs]


def _kind(lines: list[_Line]) -> _Reader:
    first, *rest = (_fields(line.text) for line in lines[:3])
    is_header = first[:1] == ["name"] or (len(first) <= 2 and all(map(_is_number, first)))
    if _is_lfws(first) or (is_header and rest and _is_lfws(rest[0])):
        return _lfw
    if len(first) == 2 and _is_number(first[1]) and all(len(fields) == 2 for fields in rest):
        return _calfw
    return _paths


def _fields(text: str) -> list[str]:
    """A line's parts: between tabs, else commas, else spaces."""
    if "\t" in text:
        return [part.strip() for part in text.split("\t") if part.strip()]
    for comma in (",", ";"):
        if comma in text:
            (row,) = csv.reader([text], delimiter=comma, skipinitialspace=True)
            parts = [part.strip() for part in row if part.strip()]
            if 2 <= len(parts) <= 4 and _is_number(parts[-1]):
                return parts
    return text.split()


def _is_number(text: str) -> bool:
    return text.isascii() and text.isdecimal()


def _is_lfws(fields: list[str]) -> bool:
    numbers = [_is_number(part) for part in fields]
    return numbers in ([False, True, True], [False, True, False, True])


def own_folder(beside: Path) -> Path:
    """Where the images of this project's lists lie: in `val` beside it, or where there is none."""
    return beside / "val" if (beside / "val").is_dir() else beside


def _folder(beside: Path, kind: _Reader, lines: list[_Line]) -> Path:
    """Find the images: as this project's lists have them, else in a benchmark's usual folder."""
    folder = own_folder(beside)
    if folder != beside or kind is _paths:
        return folder
    for name in _USUAL:
        try:
            kind(lines[:4], ImageRoot(beside / name))
        except ValueError:
            continue
        return beside / name
    return beside


def _paths(lines: list[_Line], root: ImageRoot) -> Pairs:
    pairs = Pairs()
    found: dict[str, Path] = {}
    for line in lines:
        fields = _fields(line.text)
        if len(fields) != 3 and "\t" not in line.text:
            with reading(line.place):
                fields = _with_spaces(line.text, root) or fields
        if len(fields) != 3 or fields[2] not in ("0", "1"):
            raise line.refused(
                "two paths and 0 or 1 are wanted, separated by tabs where a path has spaces"
            )
        for name in fields[:2]:
            if name not in found:
                found[name] = _image(line, root, name)
        pairs.add(found[fields[0]], found[fields[1]], fields[2] == "1")
    return pairs


def _with_spaces(text: str, root: ImageRoot) -> list[str] | None:
    """Split a line where that leaves two paths, of images that are there, and the flag."""
    names, _, flag = text.rpartition(" ")
    names = names.strip()
    if len(names) > 2000:
        return None
    splits = [
        [names[: space.start()], names[space.end() :], flag] for space in re.finditer(r" +", names)
    ]
    there = [each for each in splits if root.has(each[0]) and root.has(each[1])]
    return there[0] if len(there) == 1 else None


def _lfw(lines: list[_Line], root: ImageRoot) -> Pairs:
    header = _fields(lines[0].text)
    numbers = [int(part) for part in header] if all(map(_is_number, header)) else []
    pairs = Pairs()
    for line in lines[bool(numbers) or header[0] == "name" :]:
        fields = _fields(line.text)
        if not _is_lfws(fields):
            raise line.refused("`name n n` or `name n name n` is wanted, as in LFW's pairs.txt")
        name, first, *other = fields
        second = (other[0], other[1]) if len(other) == 2 else (name, other[0])
        images = _lfw_image(line, root, name, first), _lfw_image(line, root, *second)
        pairs.add(*images, len(other) == 1)
    pairs.format = f"LFW's list of {len(pairs.issame)} pairs"
    if len(numbers) == 1:
        return _in_folds(pairs, [])
    return pairs


def _lfw_image(line: _Line, root: ImageRoot, name: str, number: str) -> Path:
    stem = f"{name}/{name}_{int(number):04d}"
    with reading(line.place):
        suffixes = (each for each in sorted(IMAGE_SUFFIXES) if root.has(stem + each))
        found = ".jpg" if root.has(f"{stem}.jpg") else next(suffixes, ".jpg")
    return _image(line, root, stem + found)


def _calfw(lines: list[_Line], root: ImageRoot) -> Pairs:
    pairs, folds = Pairs(), []
    if len(lines) % 2:
        raise UnreadableFile(f"{lines[0].path} has {len(lines)} lines, and two make a pair")
    for line, next_line in zip(lines[::2], lines[1::2], strict=True):
        first, second = _fields(line.text), _fields(next_line.text)
        for each, fields in ((line, first), (next_line, second)):
            if len(fields) != 2 or fields[1] != first[-1] or not _is_number(fields[1]):
                raise each.refused(
                    "a path and a number are wanted, the same for both images of a pair, as in "
                    "CALFW's list"
                )
        images = _image(line, root, first[0]), _image(next_line, root, second[0])
        pairs.add(*images, int(first[1]) > 0)
        folds.append(int(first[1]))
    pairs.format = f"CALFW's kind of list, {len(pairs.issame)} pairs"
    return _in_folds(pairs, folds)


def _in_folds(pairs: Pairs, fold_of: list[int]) -> Pairs:
    """Fold after fold, where a list has all pairs of one kind before the other.

    Pairs of one person are in the fold that `fold_of` says, if there is more than one; the rest is
    cut into runs of equal length.
    """
    kinds = pairs.issame
    if sum(a != b for a, b in itertools.pairwise(kinds)) != 1:
        return pairs
    same = [i for i, kind in enumerate(kinds) if kind]
    other = [i for i, kind in enumerate(kinds) if not kind]
    folds = sorted({fold_of[i] for i in same}) if fold_of else []
    if len(folds) > 1:
        runs = [[i for i in same if fold_of[i] == fold] for fold in folds]
    else:
        runs = _runs(same, FOLDS)
    order = [i for run, rest in zip(runs, _runs(other, len(runs)), strict=True) for i in run + rest]
    pairs = pairs.reordered(order)
    pairs.format += f", brought into {len(runs)} folds"
    return pairs


def _runs(items: list[int], count: int) -> list[list[int]]:
    ends = [len(items) * i // count for i in range(count + 1)]
    return [items[a:b] for a, b in itertools.pairwise(ends)]


def _cfp(split: Path, root: str | Path | None, outside: bool) -> Pairs:
    """`Split/FP`: frontal with profile; `Split/FF`: frontal with frontal."""
    protocol = next((p for p in split.parents[:3] if (p / "Pair_list_F.txt").is_file()), None)
    folds = sorted(each for each in split.iterdir() if (each / "same.txt").is_file())
    if protocol is None or not folds:
        raise UnreadableFile(
            f"{split} is a folder, and not one of CFP's: folds with same.txt and diff.txt are "
            "wanted in it, and Pair_list_F.txt above"
        )
    images = ImageRoot(protocol.parent if root is None else root, outside)
    kinds = [kind if kind in "FP" else "F" for kind in split.name.upper()[-2:].rjust(2, "F")]
    lists = {kind: _cfp_images(protocol / f"Pair_list_{kind}.txt", images) for kind in set(kinds)}
    pairs = Pairs()
    for fold in folds:
        for name, same in (("same.txt", True), ("diff.txt", False)):
            for line in _lines(fold / name):
                fields = _fields(line.text)
                known = [f in lists[k] for f, k in zip(fields, kinds, strict=False)]
                if len(fields) != 2 or not all(known):
                    raise line.refused("two numbers of images in CFP's lists are wanted")
                first, second = (lists[k][f] for f, k in zip(fields, kinds, strict=True))
                pairs.add(first, second, same)
    name, count = "".join(kinds), len(pairs.issame)
    pairs.format = f"CFP's {name} protocol, {count} pairs in {len(folds)} folds"
    return pairs


def _cfp_images(path: Path, root: ImageRoot) -> dict[str, Path]:
    """`1 ../Data/Images/001/frontal/01.jpg`, by number; the paths are from the list's folder."""
    images = {}
    for line in _lines(path):
        number, _, name = line.text.partition(" ")
        images[number] = _image(line, root, name.strip().removeprefix("../"))
    return images


def _image(line: _Line, root: ImageRoot, name: str) -> Path:
    with reading(line.place):
        if not root.has(name):
            raise ValueError(f"there is no image {root.folder / name}")
        return root.path(name)
