"""Photos cut to aligned faces, with a log that says what became of each, and goes on where it is.

The log, `align.jsonl`, has a line for the settings and one for each photo: how many faces were
found, the landmarks of the one that was taken, and the face's file. While the work goes on its name
is `.align.jsonl.partial`; each face appears whole, and its line after it.
"""

from __future__ import annotations

import json
import os
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..atomic import atomic_file, made_folder
from ..data.alignment import align_face
from ..data.folders import check_apart
from ..data.images import IMAGE_SUFFIXES, decode_image, encode_jpeg, encode_png
from ..progress import Progress
from ..reading import UnreadableFile
from .faces import PICKS, Faces

LOG = "align.jsonl"
FORMATS = ("png", "jpg")
_JPEG_QUALITY = 95
#: A detector, called with a photo's pixels (H, W, 3), RGB; or landmarks by path.
Finder = Callable[[NDArray[np.uint8]], Faces] | dict[str, Faces]


@dataclass(frozen=True)
class AlignReport:
    """What became of a folder's photos, by their paths relative to it."""

    photos: int
    aligned: int
    several_faces: list[str]
    no_face: list[str]
    """Photos in which no face was found, or, of several, none taken."""
    damaged: dict[str, str]
    """What is wrong with photos that cannot be read, or whose landmarks are no face's."""
    done_before: int
    """Of the photos, those that an earlier run had done."""


def find_photos(folder: str | Path) -> list[str]:
    """The images of a folder and all below it, by their sorted paths relative to it.

    Names that start with a dot are passed over.

    Raises:
        ValueError: there are none.
        FileNotFoundError: there is no such folder.
    """
    folder = Path(folder)
    if not folder.is_dir():
        raise FileNotFoundError(f"there is no folder {folder}")
    found: list[str] = []
    for place, folders, files in os.walk(folder):
        folders[:] = [name for name in folders if name[0] != "."]
        below = Path(place).relative_to(folder)
        found += [
            (below / name).as_posix()
            for name in files
            if name[0] != "." and Path(name).suffix.lower() in IMAGE_SUFFIXES
        ]
    if not found:
        raise ValueError(f"{folder} has no images ({', '.join(sorted(IMAGE_SUFFIXES))})")
    return sorted(found)


def align_photos(
    folder: str | Path,
    out: str | Path,
    find: Finder,
    *,
    settings: str,
    pick: str = "largest",
    format: str = "png",
    progress: Progress | None = None,
) -> AlignReport:
    """Cut a face from each photo of `folder`, to the same place below `out`.

    Args:
        find: what finds the faces, a detector or landmarks.
        settings: what else decides the faces, such as the detector's digest. A folder `out` that
            was begun with others is refused.
        pick: which of several faces, one of `PICKS`.
        format: `png`, which keeps every grey level, or `jpg`.

    Raises:
        ValueError: no photos, no landmarks of any of them, no face in any of them, or an `out` that
            is no folder of aligned faces made so.
    """
    folder, out = Path(folder), Path(out)
    if pick not in PICKS:
        raise ValueError(f"pick must be one of {', '.join(PICKS)}, got {pick!r}")
    if format not in FORMATS:
        raise ValueError(f"format must be one of {', '.join(FORMATS)}, got {format!r}")
    check_apart(folder, out)
    photos = find_photos(folder)
    if isinstance(find, dict) and not any(photo in find for photo in photos):
        raise ValueError(
            f"the landmarks are of other photos: they name {next(iter(find))}, and {folder} has "
            f"{photos[0]}"
        )
    names = dict(zip(photos, _aligned_names(photos, format), strict=True))
    log = _Log(out, {"sf2_align": 1, "settings": f"{settings} pick={pick} format={format}"})
    done = log.entries(names)
    entries: dict[str, dict[str, Any]] = {}
    with log.open(done.values()) as write:
        for i, photo in enumerate(photos, start=1):
            if photo in done:
                entries[photo] = done[photo]
            else:
                entries[photo] = _align(folder, photo, out, names[photo], find, pick)
                write(entries[photo])
            if progress:
                progress(i, len(photos))
    report = _report(entries, done_before=len(done))
    if not report.aligned:
        raise ValueError(f"no face was found in any of the {len(photos)} photos of {folder}")
    log.finish()
    return report


def _align(
    folder: Path, photo: str, out: Path, name: str, find: Finder, pick: str
) -> dict[str, Any]:
    """Write the photo's face, and return its line of the log."""
    entry: dict[str, Any] = {"path": photo, "faces": 0, "landmarks": None}
    try:
        pixels = decode_image(folder / photo, whole=True)
    except UnreadableFile as error:
        return entry | {"damaged": str(error)}
    try:
        no_faces = Faces.of_landmarks([])
        faces = find.get(photo, no_faces) if isinstance(find, dict) else find(pixels)
    except ValueError as error:
        raise ValueError(f"{folder / photo}: {error}") from error
    entry["faces"] = len(faces)
    landmarks = faces.pick(pick, *pixels.shape[:2])
    if landmarks is None:
        return entry
    try:
        face = align_face(pixels, landmarks)
    except ValueError as error:  # A detector may find what is no face.
        return entry | {"damaged": f"{folder / photo}: {error}"}
    path = out / name
    path.parent.mkdir(parents=True, exist_ok=True)
    with atomic_file(path) as file:
        is_jpeg = path.suffix == ".jpg"
        file.write(encode_jpeg(face, _JPEG_QUALITY) if is_jpeg else encode_png(face))
    return entry | {"landmarks": np.round(landmarks, 3).tolist(), "aligned": name}


def _aligned_names(photos: list[str], format: str) -> Iterator[str]:
    """`PERSON/photo.png`; with its own suffix before it where two photos would have one name."""
    bare = [os.path.splitext(photo)[0] for photo in photos]
    same = Counter(map(str.lower, bare))  # As some file systems compare them.
    for photo, name in zip(photos, bare, strict=True):
        yield f"{name if same[name.lower()] == 1 else photo}.{format}"


def _report(entries: dict[str, dict[str, Any]], done_before: int) -> AlignReport:
    neither = [name for name, entry in entries.items() if not entry.keys() & {"aligned", "damaged"}]
    return AlignReport(
        photos=len(entries),
        aligned=sum("aligned" in entry for entry in entries.values()),
        several_faces=[name for name, entry in entries.items() if entry["faces"] > 1],
        no_face=neither,
        damaged={name: entry["damaged"] for name, entry in entries.items() if "damaged" in entry},
        done_before=done_before,
    )


class _Log:
    """The log of a folder of aligned faces: read, gone on with, finished."""

    def __init__(self, out: Path, head: dict[str, Any]) -> None:
        self.out, self.head = out, head
        self.finished, self.partial = out / LOG, out / f".{LOG}.partial"
        self.begun = next((path for path in (self.partial, self.finished) if path.is_file()), None)
        if self.begun is None and out.exists() and (not out.is_dir() or any(out.iterdir())):
            raise ValueError(f"{out} already exists; give a folder that is new or empty")

    def entries(self, names: dict[str, str]) -> dict[str, dict[str, Any]]:
        """The lines, by photo, that still hold: a face that is gone or a damaged photo does not."""
        if self.begun is None:
            return {}
        head, *lines = self.begun.read_bytes().split(b"\n")
        if _parsed(head) != self.head:
            raise ValueError(
                f"{self.out} was made with other settings; give a folder that is new or empty"
            )
        found = {}
        for line in lines:  # The last may have been cut short.
            entry = _parsed(line)
            photo, name = entry.get("path", ""), entry.get("aligned")
            if photo not in names or "damaged" in entry or type(entry.get("faces")) is not int:
                continue
            if name not in (None, names[photo]):
                # Another photo has come that would have had the name.
                if name in (f"{os.path.splitext(photo)[0]}{Path(name).suffix}", names[photo]):
                    (self.out / name).unlink(missing_ok=True)
            elif name is None or (self.out / name).is_file():
                found[photo] = entry
        return found

    @contextmanager
    def open(self, kept: Iterable[dict[str, Any]]) -> Iterator[Callable[[dict[str, Any]], object]]:
        """Begin with the lines that are kept; what writes another, each on disk at once."""
        with made_folder(self.out), atomic_file(self.partial) as file:
            file.writelines(map(_line, [self.head, *kept]))
        with open(self.partial, "ab", buffering=0) as file:
            yield lambda entry: file.write(_line(entry))

    def finish(self) -> None:
        os.replace(self.partial, self.finished)


def _line(entry: dict[str, Any]) -> bytes:
    return json.dumps(entry).encode() + b"\n"


def _parsed(line: bytes) -> dict[str, Any]:
    """A line of the log; nothing of one that is damaged, which is then done again."""
    try:
        entry = json.loads(line)
    except ValueError:
        return {}
    return entry if isinstance(entry, dict) else {}
