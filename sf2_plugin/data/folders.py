"""Image folders: one folder a person, `train/PERSON/*.jpg`."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from .images import IMAGE_SUFFIXES


@dataclass(frozen=True)
class FaceFolder:
    """The images of a folder of people.

    Attributes:
        samples: (path, label) of each image, sorted by person and then by file name.
        class_names: the person of each label, sorted, as torchvision's ImageFolder numbers them.
    """

    samples: list[tuple[Path, int]]
    class_names: list[str]


def read_face_folder(folder: str | Path) -> FaceFolder:
    """List the images of `folder/PERSON/*`, sub-folders of a person included.

    Files that are no images by their suffix, and names that start with a dot, are passed over.

    Raises:
        ValueError: no people, or a person without images.
        FileNotFoundError: there is no such folder.
    """
    samples: list[tuple[Path, int]] = []
    people = people_of(folder)
    for label, (person, images) in enumerate(people.items()):
        if not images:
            suffixes = ", ".join(sorted(IMAGE_SUFFIXES))
            raise ValueError(f"{Path(folder) / person} has no images ({suffixes})")
        samples += [(image, label) for image in images]
    return FaceFolder(samples, list(people))


def people_of(folder: str | Path) -> dict[str, list[Path]]:
    """The images of each person of `folder/PERSON/*`, as `read_face_folder`; some may have none."""
    folder = Path(folder)
    if not folder.is_dir():
        raise FileNotFoundError(f"there is no folder {folder}")
    people = sorted(
        (path for path in folder.iterdir() if path.is_dir() and path.name[0] != "."),
        key=lambda path: path.name,
    )
    if not people:
        raise ValueError(f"{folder} has no folders; one a person, with images in it, is wanted")
    return {
        person.name: sorted(
            path
            for path in person.rglob("*")
            if path.suffix.lower() in IMAGE_SUFFIXES and path.name[0] != "." and path.is_file()
        )
        for person in people
    }


def check_apart(folder: str | Path, out: str | Path) -> None:
    """Refuse an `out` in `folder`, whose files would be taken for those of `folder` next time."""
    if Path(out).resolve().is_relative_to(Path(folder).resolve()):
        raise ValueError(f"{out} lies in {folder}, which is read: give a folder beside it")
