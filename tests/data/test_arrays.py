"""Saved arrays: what NumPy writes is read; what a header claims is not believed."""

import io
import struct
import tracemalloc
import zipfile

import numpy as np
import pytest

from sf2_plugin.data.arrays import read_arrays


def npy(shape: str, dtype: str = "<f4", content: bytes = b"") -> bytes:
    """A `.npy` file that claims this of itself."""
    header = f"{{'descr': '{dtype}', 'fortran_order': False, 'shape': {shape}, }}"
    header = header.ljust(-(len(header) + 11) % 64 + len(header)) + "\n"
    return b"\x93NUMPY\1\0" + struct.pack("<H", len(header)) + header.encode() + content


@pytest.mark.parametrize("save", [np.savez, np.savez_compressed])
def test_npz_as_numpy_writes_it(tmp_path, save):
    arrays = {
        "embeddings": np.random.default_rng(0).normal(size=(6, 4)).astype(np.float32),
        "issame": np.array([True, False, True]),
        "ids": np.array(["a", "bé", "c"]),
        "fortran": np.asfortranarray(np.arange(6, dtype=">i8").reshape(2, 3)),
        "number": np.float64(3),
        "alike": np.zeros(100_000),  # shrinks a thousandfold
    }
    save(tmp_path / "x.npz", **arrays)
    read = read_arrays(tmp_path / "x.npz")
    assert read.keys() == arrays.keys()
    for name, array in arrays.items():
        np.testing.assert_array_equal(read[name], array)
        assert read[name].dtype == np.asarray(array).dtype


@pytest.mark.parametrize("name", ["x.npy", "x.npz"])
def test_the_kind_of_file_is_told_by_its_content(tmp_path, name):
    with open(tmp_path / name, "wb") as file:
        np.save(file, np.eye(3))
    np.testing.assert_array_equal(read_arrays(tmp_path / name)["embeddings"], np.eye(3))


DAMAGED = {
    "a petabyte": npy("(1000000000000, 512)"),
    "more than a machine can count": npy("(99999999999999999999999,)"),
    "a negative shape": npy("(-1, 4)", content=bytes(16)),
    "two negative": npy("(-2, -2)", content=bytes(16)),
    "cut short": npy("(4, 4)", content=bytes(63)),
    "too long": npy("(4, 4)", content=bytes(65)),
    "nothing": npy("(0, 512)"),
    "text of no length": npy("(1000000000000,)", "<U0"),
    "a number type of a terabyte": npy("(1,)", "V1000000000000"),
    "objects": npy("(1,)", "|O", content=b"\x80\x04N."),
    "times": npy("(1,)", "<M8[s]", content=bytes(8)),
    "complex numbers": npy("(1,)", "<c8", content=bytes(8)),
    "a shape of true": npy("(True,)", content=bytes(4)),
    "no shape": npy("'4'", content=bytes(4)),
    "nested header": npy("(" * 3000 + ")" * 3000),
    "signs": npy("(" + "-" * 9000 + "1,)"),
    "version 9": b"\x93NUMPY\x09\0" + bytes(100),
    "fields": npy("(1,)", content=bytes(4)).replace(b"'<f4'", b"[('a','<f4')]"),
    "no npy": b"hello",
    "empty": b"",
}


@pytest.mark.parametrize("content", DAMAGED.values(), ids=DAMAGED.keys())
@pytest.mark.parametrize("packed", [False, True], ids=["npy", "npz"])
def test_damaged(tmp_path, content, packed):
    path = tmp_path / "x.npz"
    if packed:
        with zipfile.ZipFile(path, "w") as archive:
            archive.writestr("embeddings.npy", content)
    else:
        path.write_bytes(content)
    tracemalloc.start()
    with pytest.raises(ValueError, match=r"x\.npz: not readable as saved arrays: "):
        read_arrays(path)
    assert tracemalloc.get_traced_memory()[1] < 20e6
    tracemalloc.stop()


def zipped(method: int, content: bytes, name: str = "embeddings.npy") -> bytearray:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", method) as archive:
        archive.writestr(name, content)
    return bytearray(buffer.getvalue())


def test_bombs_are_not_unpacked(tmp_path):
    path = tmp_path / "x.npz"
    zeros = 200_000_000
    path.write_bytes(zipped(zipfile.ZIP_DEFLATED, npy(f"({zeros},)", "|u1", bytes(zeros))))
    assert path.stat().st_size < zeros / 500
    with pytest.raises(ValueError, match="unfold to 2000"):
        read_arrays(path)


def test_a_size_that_the_directory_lies_about(tmp_path):
    content = npy("(100,)", "<f8", bytes(800))
    for size in (10, 2**31 - 1):
        archive = zipped(zipfile.ZIP_DEFLATED, content)
        place = archive.find(b"PK\1\2")
        archive[place + 24 : place + 28] = struct.pack("<I", size)
        (tmp_path / "x.npz").write_bytes(archive)
        with pytest.raises(ValueError, match=r"x\.npz: not readable"):
            read_arrays(tmp_path / "x.npz")


@pytest.mark.parametrize("damage", ["encrypted", "method 97", "lzma", "bzip2", "checksum"])
def test_archives_that_numpy_does_not_write(tmp_path, damage):
    method = {"lzma": zipfile.ZIP_LZMA, "bzip2": zipfile.ZIP_BZIP2}.get(damage, 8)
    archive = zipped(method, npy("(100,)", "<f8", np.arange(100.0).tobytes()))
    place = archive.find(b"PK\1\2")
    if damage == "encrypted":
        archive[6] |= 1
        archive[place + 8] |= 1
    elif damage == "method 97":
        archive[8] = archive[place + 10] = 97
    elif damage == "checksum":
        archive[place + 16] ^= 1
    (tmp_path / "x.npz").write_bytes(archive)
    with pytest.raises(ValueError, match=r"x\.npz: not readable as saved arrays: "):
        read_arrays(tmp_path / "x.npz")
