"""Folders of people as InsightFace's records, and back.

The records hold numbers for people; `people.txt`, a line a person in their order, keeps the names.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from ..atomic import atomic_file, atomic_folder
from ..data import FaceRecords, decode_image, read_face_folder, write_records
from ..progress import Progress
from ..reading import reading

PEOPLE = "people.txt"
#: How encoded images begin, and the suffix of their files.
_BEGINNINGS = {b"\xff\xd8": ".jpg", b"\x89PNG": ".png", b"BM": ".bmp", b"RIFF": ".webp"}


def pack_folder(
    folder: str | Path, out: str | Path, *, progress: Progress | None = None
) -> tuple[int, int]:
    """Write `folder/PERSON/*` as `train.rec`, `train.idx`, `property` and `people.txt` in `out`.

    Images are stored as they are, after each was decoded: what is damaged stops the packing, and
    not an epoch. Whoever reads `out` meanwhile finds the older data set, or none.

    Returns:
        Images and people.

    Raises:
        ValueError: no people, an image that is damaged, images that are not all of one size.
        FileNotFoundError: there is no such folder.
    """
    faces, out = read_face_folder(folder), Path(out)
    try:
        people = [f"{_name(name)}\n".encode() for name in faces.class_names]
    except ValueError as error:
        raise ValueError(f"{folder}: {error}") from None
    first, _ = faces.samples[0]
    size = decode_image(first).shape[:2]

    def checked() -> Iterator[tuple[bytes, int]]:
        for done, (path, label) in enumerate(faces.samples, start=1):
            content = path.read_bytes()
            found = decode_image(content, str(path)).shape[:2]
            if found != size:
                raise ValueError(
                    f"{path} is {found[1]} x {found[0]}, and {first} is {size[1]} x {size[0]}: "
                    "a host's batches are of images of one size, as sf2 data align makes them"
                )
            yield content, label
            if progress:
                progress(done, len(faces.samples))
        (out / PEOPLE).unlink(missing_ok=True)  # Older ones would be of other people.

    images = write_records(checked(), out, image_size=size)
    with atomic_file(out / PEOPLE) as file:
        file.writelines(people)
    return images, len(faces.class_names)


def unpack_records(
    folder: str | Path, out: str | Path, *, progress: Progress | None = None
) -> tuple[int, int]:
    """Write the faces of `train.rec` and `train.idx` in `folder` as `out/PERSON/NUMBER.jpg`.

    People are called as in `people.txt` where there is one, else by their labels. The folder `out`
    is new or empty, and appears whole or not at all.

    Returns:
        Images and people.

    Raises:
        ValueError: damaged records, an image of no known format, or names that are not of folders
            or too few.
    """
    folder = Path(folder)
    records = FaceRecords(folder)
    names = _people(folder / PEOPLE)
    found: dict[int, str] = {}
    with atomic_folder(out) as partial:
        for i in range(len(records)):
            image, label = records.encoded(i)
            where = f"{records.records.path}, record {records.keys[i]}"
            if label not in found:
                if not 0 <= label < (len(names) if names else 1 << 24):
                    known = f"{PEOPLE} has {len(names)} names" if names else "no number of a person"
                    raise ValueError(f"{where}: label {label}, and {known}")
                found[label] = names[label] if names else f"{label:07d}"
                (partial / found[label]).mkdir()
            kind = next((end for start, end in _BEGINNINGS.items() if image.startswith(start)), "")
            if not kind:
                raise ValueError(f"{where}: its image is no JPEG, PNG, BMP or WebP")
            (partial / found[label] / f"{records.keys[i]:08d}{kind}").write_bytes(image)
            if progress:
                progress(i + 1, len(records))
    return len(records), len(found)


def _people(path: Path) -> list[str]:
    """Names of folders, by label; empty where there is no such file."""
    if not path.is_file():
        return []
    with reading(path, "names of people"):
        names = [_name(name) for name in path.read_bytes().decode().split("\n")[:-1]]
        if len(set(names)) < len(names):
            raise ValueError("it has a name twice")
    return names


def _name(name: str) -> str:
    """The name of a person's folder, and of nothing beside it."""
    if name != Path(name).name or name[:1] in ("", ".") or any(c in name for c in "\\\0\r\n"):
        raise ValueError(f"{name[:80]!r} is no name of a folder that a line can hold")
    return name
