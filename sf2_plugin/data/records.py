"""InsightFace's record files (`train.rec`, `.idx`, `property`), read and written without mxnet.

A record is a magic number, a word with the length of what follows, and that many bytes, padded to a
multiple of four. Bytes that hold the magic number at such a multiple are stored in parts without
it, and the word's upper three bits say which part this is (MXNet, dmlc-core `recordio.h`).
A face's record is a header (flag, label, id, id2), `flag` further labels if that is not 0, and the
encoded image. In files that InsightFace's tools wrote, record 0 is no face: its first label is one
more than the index of the last face.
"""

from __future__ import annotations

import os
import struct
from collections.abc import Iterable
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray

from ..atomic import atomic_file, made_folder
from ..reading import reading
from .folders import read_face_folder
from .images import decode_image

_MAGIC = 0xCED7230A
_MAGIC_BYTES = struct.pack("<I", _MAGIC)
_WORD = struct.Struct("<II")
_HEADER = struct.Struct("<IfQQ")
_WHOLE, _FIRST, _MIDDLE, _LAST = range(4)
_MAX_LENGTH = (1 << 29) - 1
_MAX_EXACT_LABEL = 1 << 24  # labels are stored as float32


class FaceRecord(NamedTuple):
    """One record, unpacked: `labels` (n,) float32, one or more, and what follows them."""

    flag: int
    labels: NDArray[np.float32]
    id: int
    id2: int
    content: bytes


def unpack_record(record: bytes, name: str = "the record") -> FaceRecord:
    """Take a record's header apart from its content, an encoded image in a face's record."""
    if len(record) < _HEADER.size:
        raise ValueError(f"{name} has {len(record)} bytes; a header alone has {_HEADER.size}")
    flag, label, first_id, second_id = _HEADER.unpack_from(record)
    content = _HEADER.size + 4 * flag
    if len(record) < content:
        raise ValueError(f"{name} announces {flag} labels and has no room for them")
    labels = np.array([label], np.float32)
    if flag:
        labels = np.frombuffer(record, "<f4", flag, _HEADER.size).astype(np.float32)
    return FaceRecord(flag, labels, first_id, second_id, record[content:])


def pack_record(content: bytes, labels: float | ArrayLike, index: int = 0) -> bytes:
    """The bytes of a record: a single label goes into the header, several follow it."""
    array = np.asarray(labels, "<f4")
    if array.ndim == 0:
        return _HEADER.pack(0, float(array), index, 0) + content
    return _HEADER.pack(array.size, 0.0, index, 0) + array.tobytes() + content


class IndexedRecords:
    """Records by key, in any order, from any number of threads and processes.

    Args:
        rec: the record file. Its index, a line a record: key, tab, offset, has the same name with
            the suffix `.idx`; where there is none, records are found by going from one to the
            next, and counted from 0.

    Attributes:
        keys: (N,) int64, in the order of the index.

    Raises:
        ValueError: an index that is malformed or reaches beyond the record file; on reading, a
            record that is damaged or cut short. Each names the file.
        FileNotFoundError: one of the files does not exist.
    """

    def __init__(self, rec: str | Path) -> None:
        self.path = Path(rec)
        idx = self.path.with_suffix(".idx")
        if idx.is_file():
            self.keys, offsets = _read_index(idx)
        else:
            idx, (self.keys, offsets) = self.path, _scan(self.path)
        order = np.argsort(self.keys, kind="stable")
        self._sorted_keys, self._offsets = self.keys[order], offsets[order]
        if (np.diff(self._sorted_keys) == 0).any():
            raise ValueError(f"{idx} has a key twice")
        self._open()
        if offsets.max() >= self._size:
            raise ValueError(
                f"{idx} places a record at byte {offsets.max()}, and {self.path} has "
                f"{self._size} bytes: it is cut short, or the two do not belong together"
            )

    def _open(self) -> None:
        # pread, which takes an offset, shares no position between threads and forked processes.
        self._file = open(self.path, "rb")  # noqa: SIM115
        self._size = os.fstat(self._file.fileno()).st_size

    def __getstate__(self) -> dict[str, Any]:
        return {name: value for name, value in self.__dict__.items() if name != "_file"}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__.update(state)
        self._open()

    def __len__(self) -> int:
        return len(self.keys)

    def _place(self, key: int) -> int | None:
        place = int(np.searchsorted(self._sorted_keys, key))
        return place if place < len(self) and self._sorted_keys[place] == key else None

    def __contains__(self, key: int) -> bool:
        return self._place(key) is not None

    def read(self, key: int) -> bytes:
        """The bytes of the record with this key.

        Raises:
            KeyError: no record has the key.
        """
        place = self._place(key)
        if place is None:
            raise KeyError(f"{self.path} has no record {key}")
        offset = int(self._offsets[place])
        parts: list[bytes] = []
        while True:
            magic, word = _WORD.unpack(self._bytes(_WORD.size, offset, key))
            part, length = word >> 29, word & _MAX_LENGTH
            if magic != _MAGIC:
                raise ValueError(f"{self.path}: no record begins at byte {offset} (record {key})")
            if part not in ((_MIDDLE, _LAST) if parts else (_WHOLE, _FIRST)):
                raise ValueError(f"{self.path}: part of kind {part} out of place (record {key})")
            parts.append(self._bytes(length, offset + _WORD.size, key))
            offset += _WORD.size + length + -length % 4
            if part in (_WHOLE, _LAST):
                return _MAGIC_BYTES.join(parts)

    def _bytes(self, count: int, offset: int, key: int) -> bytes:
        if offset + count > self._size:
            raise ValueError(f"{self.path} is cut short in record {key}")
        content = os.pread(self._file.fileno(), count, offset)
        if len(content) != count:
            raise ValueError(f"{self.path} was cut short while it was read (record {key})")
        return content

    def close(self) -> None:
        self._file.close()


def _read_index(path: Path) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    with reading(path, "an index of records, a key and an offset a line"):
        numbers = np.array(path.read_bytes().split(), dtype=np.int64).reshape(-1, 2)
        if not len(numbers):
            raise ValueError("it has no records")
        if numbers.min() < 0:
            raise ValueError("it has a negative key or offset")
    return numbers[:, 0].copy(), numbers[:, 1].copy()


def _scan(path: Path) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Keys and offsets of the records of a file without an index, in their order."""
    offsets = []
    with reading(path, "records"), open(path, "rb") as file:
        size = os.fstat(file.fileno()).st_size
        offset = 0
        while offset < size:
            beginning = file.read(_WORD.size)
            magic, word = _WORD.unpack(beginning.ljust(_WORD.size, b"\0"))
            if magic != _MAGIC:
                raise ValueError(f"no record begins at byte {offset}")
            length = word & _MAX_LENGTH
            if offset + _WORD.size + length > size:
                raise ValueError(f"it is cut short in the record at byte {offset}")
            kind = word >> 29
            if kind in (_WHOLE, _FIRST):
                offsets.append(offset)
            offset += _WORD.size + length + -length % 4
            file.seek(offset)
        if not offsets:
            raise ValueError("it has no records")
        if kind not in (_WHOLE, _LAST):
            raise ValueError(f"it is cut short in the record at byte {offsets[-1]}")
    return np.arange(len(offsets)), np.array(offsets, np.int64)


class FaceRecords:
    """The labelled faces of a folder with `train.rec` and, mostly, `train.idx`, by position.

    `faces[i]` is (pixels uint8 (H, W, 3) RGB, label int); `faces.encoded(i)` leaves the image
    encoded. `keys` (N,) are the records that are faces, in arcface_torch's order: 1 to the
    number that record 0 announces, or every record where record 0 is a face itself, which has an
    image. Of several labels of a face the first is its person's.
    """

    def __init__(self, folder: str | Path) -> None:
        folder = Path(folder)
        self.records = IndexedRecords(folder / "train.rec")
        self.keys = self.records.keys
        if 0 in self.records:
            first = unpack_record(self.records.read(0), f"{self.records.path}, record 0")
            if first.flag and not first.content:
                end = float(first.labels[0])
                indexed = np.count_nonzero((self.keys > 0) & (self.keys < end))
                if not end >= 2 or indexed != end - 1:
                    raise ValueError(
                        f"{self.records.path}: record 0 says that the faces are records 1 to "
                        f"{end - 1:g}, of which the index has {indexed}"
                    )
                self.keys = np.arange(1, int(end))

    def __len__(self) -> int:
        return len(self.keys)

    def encoded(self, i: int) -> tuple[bytes, int]:
        """The encoded image at position i, and its label."""
        key = int(self.keys[i])
        record = unpack_record(self.records.read(key), f"{self.records.path}, record {key}")
        label = float(record.labels[0])
        if not label.is_integer():
            raise ValueError(f"{self.records.path}, record {key}: label {label} is no whole number")
        return record.content, int(label)

    def __getitem__(self, i: int) -> tuple[NDArray[np.uint8], int]:
        image, label = self.encoded(i)
        return decode_image(image, f"{self.records.path}, record {self.keys[i]}"), label


def write_records(
    faces: str | Path | Iterable[tuple[bytes | str | Path, int]],
    out: str | Path,
    *,
    image_size: tuple[int, int] = (112, 112),
) -> int:
    """Write `train.rec`, `train.idx` and `property` into the folder `out`, as InsightFace has them.

    Args:
        faces: an image folder (`faces/PERSON/*.jpg`, labelled in the people's order), or
            (encoded image or its path, label) one after another. Images are stored as they are.
        image_size: (height, width) as `property` states them.

    The index is written last and an older one removed first, so that no reader takes a part of the
    new files, or old and new together, for a data set.

    Returns:
        The number of faces.

    Raises:
        ValueError: no faces, a label that is negative or not exact in float32, an image of no bytes
            or too long for the format.
    """
    if isinstance(faces, (str, Path)):
        faces = read_face_folder(faces).samples
    out = Path(out)
    labels: set[int] = set()
    offsets: list[int] = [0]
    with made_folder(out), atomic_file(out / "train.rec") as rec:
        # Record 0 announces how many faces follow, which only the end of them tells.
        announcement_size = rec.write(_framed(pack_record(b"", [0, 0])))
        for key, (image, label) in enumerate(faces, start=1):
            if not 0 <= label < _MAX_EXACT_LABEL or key >= _MAX_EXACT_LABEL:
                raise ValueError(
                    f"face {key} has label {label}; labels and the number of faces are stored as "
                    f"float32, exact from 0 to {_MAX_EXACT_LABEL - 1}"
                )
            content = image if isinstance(image, bytes) else Path(image).read_bytes()
            if not 0 < len(content) < _MAX_LENGTH - _HEADER.size:
                raise ValueError(f"face {key} has {len(content)} bytes; 1 to 2^29 are possible")
            offsets.append(rec.tell())
            rec.write(_framed(pack_record(content, label, key)))
            labels.add(label)
        if not labels:
            raise ValueError("there are no faces to write")
        rec.seek(0)
        announcement = _framed(pack_record(b"", [len(offsets), len(offsets)]))
        assert len(announcement) == announcement_size
        rec.write(announcement)
        (out / "train.idx").unlink(missing_ok=True)
    with atomic_file(out / "property", "w") as file:
        file.write(f"{max(labels) + 1},{image_size[0]},{image_size[1]}\n")
    with atomic_file(out / "train.idx", "w") as idx:
        idx.writelines(f"{key}\t{offset}\n" for key, offset in enumerate(offsets))
    return len(offsets) - 1


def _framed(record: bytes) -> bytes:
    """A record with its magic number, length and padding; in parts where it holds the magic."""
    parts: list[bytes] = []
    start = 0
    place = record.find(_MAGIC_BYTES)
    while place >= 0:
        if place % 4 == 0:  # relative to the record: each part but the last is whole words
            parts.append(record[start:place])
            start = place + 4
        place = record.find(_MAGIC_BYTES, max(place + 1, start))
    parts.append(record[start:])
    kinds = [_FIRST, *[_MIDDLE] * (len(parts) - 2), _LAST] if len(parts) > 1 else [_WHOLE]
    return b"".join(
        _WORD.pack(_MAGIC, kind << 29 | len(part)) + part + bytes(-len(part) % 4)
        for kind, part in zip(kinds, parts, strict=True)
    )
