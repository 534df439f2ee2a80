"""People, never their images, divided into those to train on and those to test with."""

from __future__ import annotations

import hashlib
import os
import shutil
from collections import Counter
from dataclasses import dataclass
from pathlib import Path

from ..atomic import atomic_folder
from ..data import FaceFolder, read_face_folder
from ..data.folders import check_apart
from ..progress import Progress


@dataclass(frozen=True)
class SplitReport:
    """People and images in each part, by its name."""

    people: dict[str, int]
    images: dict[str, int]


def split_people(
    faces: FaceFolder, test: float | int, *, seed: int = 0, min_images: int = 2
) -> list[bool]:
    """Whether each person is for the test: those whose names have the lowest hashes.

    So a person that comes or goes moves few others.

    Args:
        test: how many people; a share of all of them where it is below 1.
        min_images: of whoever has fewer, none is for the test: one image makes no genuine pair.

    Raises:
        ValueError: nobody would be left for one of the parts.
    """
    people = faces.class_names
    wanted = round(test * len(people)) if test < 1 else int(test)
    held = Counter(label for _, label in faces.samples)
    order = sorted(
        (label for label in range(len(people)) if held[label] >= min_images),
        key=lambda label: hashlib.sha256(f"{seed}/{people[label]}".encode()).digest(),
    )
    if not 1 <= wanted <= len(order) or wanted == len(people):
        raise ValueError(
            f"{wanted} people for the test must be from 1 to {min(len(order), len(people) - 1)}: "
            f"there are {len(people)}, of whom {len(order)} have {min_images} images or more"
        )
    chosen = set(order[:wanted])
    return [label in chosen for label in range(len(people))]


def write_split(
    folder: str | Path,
    out: str | Path,
    test: float | int,
    *,
    names: tuple[str, str] = ("train", "val"),
    seed: int = 0,
    min_images: int = 2,
    copy: bool = False,
    progress: Progress | None = None,
) -> SplitReport:
    """Divide `folder/PERSON/*` into `out/train/PERSON/*` and `out/val/PERSON/*`.

    The folder `out` is new or empty, and appears whole or not at all.

    Args:
        names: of the two parts.
        copy: images instead of second names of them (hard links).

    Others as in `split_people`.
    """
    folder = Path(folder)
    if len(set(names)) < 2 or any(
        Path(name).name != name or name[:1] in ("", ".") for name in names
    ):
        raise ValueError(
            f"names must be those of two folders, got {' and '.join(map(repr, names))}"
        )
    check_apart(folder, out)
    faces = read_face_folder(folder)
    is_test = split_people(faces, test, seed=seed, min_images=min_images)
    images = dict.fromkeys(names, 0)
    with atomic_folder(out) as partial:
        for done, (image, label) in enumerate(faces.samples, start=1):
            name = names[is_test[label]]
            place = partial / name / image.relative_to(folder)
            place.parent.mkdir(parents=True, exist_ok=True)
            _put(image.resolve(), place, copy)
            images[name] += 1
            if progress:
                progress(done, len(faces.samples))
    return SplitReport(
        people=dict(zip(names, (is_test.count(False), is_test.count(True)), strict=True)),
        images=images,
    )


def _put(image: Path, place: Path, copy: bool) -> None:
    """A second name of the same file, which leads nowhere; or a copy, also on another disk."""
    if not copy:
        try:
            return os.link(image, place)
        except OSError:
            pass
    shutil.copyfile(image, place)
