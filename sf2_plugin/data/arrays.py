"""Arrays of numbers or text in `.npy` and `.npz` files, of which no header is believed."""

from __future__ import annotations

import math
import os
import zipfile
from typing import IO

from numpy.lib import format as npy
from numpy.typing import NDArray

from ..reading import reading

#: How many times its own size a file may unfold to: text and labels shrink well, embeddings do not.
_MOST_UNFOLDED = 100
_ALWAYS_ALLOWED = 1 << 26


def read_arrays(path: str | os.PathLike[str]) -> dict[str, NDArray]:
    """The arrays of a `.npz` file by name; that of a `.npy` file is called `embeddings`.

    Raises:
        ValueError: the file is damaged, claims to be larger than it is, or holds anything but
            numbers and text.
        FileNotFoundError: there is no such file.
    """
    with reading(path, "saved arrays"), open(path, "rb") as file:
        size = os.stat(path).st_size
        if not zipfile.is_zipfile(file):
            file.seek(0)
            return {"embeddings": _read_array(file, size)}
        with zipfile.ZipFile(file) as archive:
            members = archive.infolist()
            unfolded = sum(member.file_size for member in members)
            if unfolded > max(_MOST_UNFOLDED * size, _ALWAYS_ALLOWED):
                raise ValueError(f"its {size} bytes unfold to {unfolded}")
            return {_name(member): _read_member(archive, member) for member in members}


def _name(member: zipfile.ZipInfo) -> str:
    return member.filename.removesuffix(".npy")


def _read_member(archive: zipfile.ZipFile, member: zipfile.ZipInfo) -> NDArray:
    encrypted = member.flag_bits & 1
    if encrypted or member.compress_type not in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED):
        raise ValueError(f"{_name(member)!r} is packed otherwise than NumPy does")
    with archive.open(member) as file:
        try:
            return _read_array(file, member.file_size)
        except ValueError as error:
            raise ValueError(f"array {_name(member)!r}: {error}") from error


def _read_array(file: IO[bytes], size: int) -> NDArray:
    """The array in `size` bytes that begin where `file` stands, at its beginning."""
    version = npy.read_magic(file)
    if version not in ((1, 0), (2, 0)):  # 3 is for the names of fields.
        raise ValueError(f"version {version} of .npy is none of plain numbers")
    header = npy.read_array_header_1_0 if version == (1, 0) else npy.read_array_header_2_0
    shape, _, dtype = header(file)
    if dtype.kind not in "biufU":
        raise ValueError(f"it holds {str(dtype)[:80]}; numbers or text are wanted")
    claimed, held = math.prod(shape) * dtype.itemsize, size - file.tell()
    if claimed != held or not claimed:
        raise ValueError(f"its header claims {claimed} bytes, {dtype} {shape}; there are {held}")
    file.seek(0)
    return npy.read_array(file, allow_pickle=False)
