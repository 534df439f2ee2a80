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
    folder = Path(folder)
    if not folder.is_dir():
        raise FileNotFoundError(f"there is no folder {folder}")
    people = sorted(
        (path for path in folder.iterdir() if path.is_dir() and path.name[0] != "."),
        key=lambda path: path.name,
    )
    if not people:
        raise ValueError(f"{folder} has no folders; one a person, with images in it, is wanted")
    samples: list[tuple[Path, int]] = []
    for label, person in enumerate(people):
        images = sorted(
            path
            for path in person.rglob("*")
            if path.suffix.lower() in IMAGE_SUFFIXES and path.name[0] != "." and path.is_file()
        )
        if not images:
            raise ValueError(f"{person} has no images ({', '.join(sorted(IMAGE_SUFFIXES))})")
        samples += [(image, label) for image in images]
    return FaceFolder(samples, [person.name for person in people])
