"""What is wrong with a folder of people: images that are damaged, tiny, blank or there twice."""

from __future__ import annotations

import hashlib
import os
from collections import Counter
from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from ..data.folders import people_of
from ..data.images import decode_image
from ..progress import Progress
from ..reading import UnreadableFile
from .likeness import Hash, look_alike, perceptual_hash

#: Of an image whose greys differ less there is nothing to see, or to compare.
_BLANK = 2.0
_AT_ONCE = 1024


@dataclass
class CheckReport:
    """What was found, by the images' paths relative to the folder."""

    people: int = 0
    images: int = 0
    sizes: Counter[str] = field(default_factory=Counter)
    """How many images there are of each size."""
    damaged: dict[str, str] = field(default_factory=dict)
    """What is wrong with images that cannot be decoded."""
    tiny: dict[str, str] = field(default_factory=dict)
    """Their sizes."""
    blank: list[str] = field(default_factory=list)
    duplicates: list[list[str]] = field(default_factory=list)
    """Images of one person with the same bytes."""
    near_duplicates: list[list[str]] = field(default_factory=list)
    """Images of one person that look the same."""
    people_in_two_folders: list[dict[str, Any]] = field(default_factory=list)
    """Of two `people`, the groups of `images` that are the same or look the same."""
    one_image: list[str] = field(default_factory=list)
    """People with a single image."""
    no_image: list[str] = field(default_factory=list)
    """People with none."""

    @property
    def is_clean(self) -> bool:
        found = vars(self)
        return not any(found[name] for name in found.keys() - {"people", "images", "sizes"})


@dataclass(frozen=True)
class _Image:
    """What is kept of an image: its digest, and the hash of one that can be compared."""

    digest: bytes
    size: tuple[int, int] = (0, 0)
    hash: Hash | None = None
    damage: str = ""


def check_folder(
    folder: str | Path, *, min_size: int = 64, distance: int = 16, progress: Progress | None = None
) -> CheckReport:
    """Look at every image of `folder/PERSON/*`; of each, some hundred bytes are kept.

    Args:
        min_size: an image with a shorter side is tiny.
        distance: bits of 256 in which images that look the same may differ.

    Raises:
        ValueError: no people.
        FileNotFoundError: there is no such folder.
    """
    folder = Path(folder)
    people = people_of(folder)
    report = CheckReport(people=len(people))
    report.no_image = [person for person, images in people.items() if not images]
    report.one_image = [person for person, images in people.items() if len(images) == 1]
    paths = [image for images in people.values() for image in images]
    person_of = [person for person, images in people.items() for _ in images]
    names = [image.relative_to(folder).as_posix() for image in paths]
    report.images = len(paths)

    images: list[_Image] = []
    with ThreadPoolExecutor(min(os.cpu_count() or 1, 8)) as pool:
        for start in range(0, len(paths), _AT_ONCE):
            images += pool.map(_examine, paths[start : start + _AT_ONCE])
            if progress:
                progress(len(images), len(paths))
    for name, image in zip(names, images, strict=True):
        if image.damage:
            report.damaged[name] = image.damage
            continue
        size = f"{image.size[0]} x {image.size[1]}"
        report.sizes[size] += 1
        if min(image.size) < min_size:
            report.tiny[name] = size
        if image.hash is None:
            report.blank.append(name)
    _compare(report, images, person_of, names, distance)
    return report


def _examine(path: Path) -> _Image:
    content = path.read_bytes()
    digest = hashlib.sha256(content).digest()
    try:
        pixels = decode_image(content, path.name)
    except UnreadableFile as error:
        return _Image(digest, damage=str(error).removeprefix(f"{path.name}: "))
    height, width = pixels.shape[:2]
    is_blank = pixels.mean(axis=2).std() < _BLANK
    return _Image(digest, (width, height), None if is_blank else perceptual_hash(pixels))


def _compare(
    report: CheckReport, images: list[_Image], person_of: list[str], names: list[str], distance: int
) -> None:
    """Images that are there twice, byte by byte and by their looks."""
    same: dict[bytes, list[int]] = {}
    for i, image in enumerate(images):
        same.setdefault(image.digest, []).append(i)
    copies = [group for group in same.values() if len(group) > 1]
    # Of copies, one is compared with the rest.
    single = [group[0] for group in same.values() if images[group[0]].hash is not None]
    hashes = [known for i in single if (known := images[i].hash) is not None]
    looks = [[single[i] for i in group] for group in look_alike(hashes, distance)]

    shared: dict[tuple[str, str], list[list[str]]] = {}
    for of, found in ((report.duplicates, copies), (report.near_duplicates, looks)):
        for group in found:
            by_person: dict[str, list[str]] = {}
            for i in group:
                by_person.setdefault(person_of[i], []).append(names[i])
            of += [own for own in by_person.values() if len(own) > 1]
            people = list(by_person)
            for j, second in enumerate(people):
                for first in people[:j]:
                    pair = [*by_person[first], *by_person[second]]
                    shared.setdefault((first, second), []).append(pair)
    report.people_in_two_folders = [
        {"people": list(people), "images": groups} for people, groups in sorted(shared.items())
    ]


def describe(report: CheckReport) -> Iterable[tuple[str, list[str]]]:
    """Each kind of finding, in words, and its lines."""
    yield "damaged", [f"{name}: {why}" for name, why in report.damaged.items()]
    yield "tiny", [f"{name}: {size}" for name, size in report.tiny.items()]
    yield "blank", report.blank
    yield "the same image twice, of one person", [" ".join(g) for g in report.duplicates]
    yield "images of one person that look the same", [" ".join(g) for g in report.near_duplicates]
    yield (
        "people in two folders",
        [
            f"{' and '.join(each['people'])}: {' '.join(each['images'][0])}"
            + (f" and {more} more" if (more := len(each["images"]) - 1) else "")
            for each in report.people_in_two_folders
        ],
    )
    yield "people with one image", report.one_image
    yield "people without images", report.no_image
