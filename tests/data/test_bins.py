"""`.bin` pair sets: what real writers produce is read, everything else is refused unexecuted."""

import os
import pickle
import random
import struct
from pathlib import Path

import numpy as np
import pytest

from sf2_plugin.data import read_pair_bin, write_pair_bin

IMAGES = [b"\xff\xd8one", b"two\x00\x80\xfe", b"\xff\xd8" + bytes(range(256)) * 2, b"4"]
ISSAME = [True, False]


def read(tmp_path: Path, content: bytes):
    path = tmp_path / "pairs.bin"
    path.write_bytes(content)
    return read_pair_bin(path)


def check(pairs) -> None:
    images, issame = pairs
    assert images == IMAGES
    assert all(type(image) is bytes for image in images)
    assert issame.dtype == bool
    assert issame.tolist() == ISSAME


@pytest.mark.parametrize("protocol", [2, 3, 4, 5])
@pytest.mark.parametrize("images", [list, tuple])
@pytest.mark.parametrize("flags", [list, tuple, lambda x: [int(i) for i in x]])
def test_python_3_pickles(tmp_path, protocol, images, flags):
    check(read(tmp_path, pickle.dumps((images(IMAGES), flags(ISSAME)), protocol)))


@pytest.mark.parametrize("protocol", [2, 3, 4, 5])
@pytest.mark.parametrize(
    "flags",
    [list, lambda x: [np.bool_(i) for i in x], np.array],
    ids=["bool", "numpy.bool_", "array"],
)
@pytest.mark.parametrize("shape", [(-1,), (-1, 1)])
def test_numpy_pickles(tmp_path, protocol, flags, shape):
    arrays = [np.frombuffer(image, np.uint8).reshape(shape) for image in IMAGES]
    check(read(tmp_path, pickle.dumps((arrays, flags(ISSAME)), protocol)))
    owned = [array.copy() for array in arrays]
    check(read(tmp_path, pickle.dumps((owned, flags(ISSAME)), protocol)))


@pytest.mark.parametrize("protocol", [2, 4, 5])
@pytest.mark.parametrize(
    "dtype", ["?", "i1", "u1", "<i2", ">i4", "<i8", ">i8", "u4", "u8", "f2", "f4", ">f8"]
)
def test_flags_of_any_number_type(tmp_path, protocol, dtype):
    array = np.array(ISSAME, dtype)
    for flags in (array, array[:, None], list(array), tuple(array), array.tolist()):
        check(read(tmp_path, pickle.dumps((IMAGES, flags), protocol)))


@pytest.mark.parametrize(
    "flags", [[0.5, 1.0], [float("nan"), 1.0], np.array([2, 1]), np.array([-1, 1], "i1"), ["a", 1]]
)
def test_flags_other_than_0_and_1(tmp_path, flags):
    with pytest.raises(ValueError, match=r"0 or 1 is wanted"):
        read(tmp_path, pickle.dumps((IMAGES, flags), 4))


@pytest.mark.parametrize("dtype", ["c8", "O", "M8[s]", "U3", "S2"])
def test_flags_that_are_no_numbers(tmp_path, dtype):
    with pytest.raises(ValueError, match=r"pairs\.bin: not readable as a pair file"):
        read(tmp_path, pickle.dumps((IMAGES, np.array(ISSAME).astype(dtype)), 4))


def python_2_string(content: bytes) -> bytes:
    if len(content) < 256:
        return b"U" + bytes([len(content)]) + content
    return b"T" + struct.pack("<i", len(content)) + content


def test_python_2_pickle(tmp_path):
    images = b"".join(python_2_string(image) + b"q\x05" for image in IMAGES)
    content = b"\x80\x02]q\x01(" + images + b"e]q\x02(\x88\x89e\x86q\x03."
    assert pickle.loads(content, encoding="bytes") == (IMAGES, ISSAME)
    check(read(tmp_path, content))


def test_python_2_numpy_pickle(tmp_path):
    def array(content: bytes) -> bytes:
        shape = b"K\x01J" + struct.pack("<i", len(content)) + b"\x85"
        dtype = b"cnumpy\ndtype\nU\x02u1K\x00K\x01\x87R(K\x03U\x01|NNNJ\xff\xff\xff\xff"
        dtype += b"J\xff\xff\xff\xffK\x00tb"
        reconstruct = b"cnumpy.core.multiarray\n_reconstruct\ncnumpy\nndarray\nK\x00\x85U\x01b\x87R"
        return reconstruct + b"(" + shape + dtype + b"\x89" + python_2_string(content) + b"tb"

    content = b"\x80\x02](" + b"".join(map(array, IMAGES)) + b"e](\x88\x89e\x86."
    check(read(tmp_path, content))


def test_pairs_of_faces(face_set):
    path = face_set / "val.bin"
    images, issame = read_pair_bin(path)
    expected = pickle.loads(path.read_bytes())
    assert images == expected[0]
    assert issame.tolist() == expected[1]


def test_round_trip_is_what_insightface_unpickles(tmp_path):
    path = tmp_path / "new.bin"
    write_pair_bin(path, IMAGES, np.array(ISSAME))
    check(read_pair_bin(path))
    assert pickle.loads(path.read_bytes()) == (IMAGES, ISSAME)
    assert [child.name for child in tmp_path.iterdir()] == ["new.bin"]


@pytest.mark.parametrize(
    ("images", "issame"),
    [(IMAGES, [True]), (IMAGES, [[True, False]]), (IMAGES, [1, 2]), ([], []), (["a", "b"], [1])],
)
def test_writing_refuses_what_reading_would(tmp_path, images, issame):
    with pytest.raises(ValueError, match=r"wanted|byte string"):
        write_pair_bin(tmp_path / "new.bin", images, issame)
    assert not list(tmp_path.iterdir())


class Call:
    """Pickles as a call of `function(*arguments)`."""

    def __init__(self, function, *arguments) -> None:
        self.reduced = (function, arguments)

    def __reduce__(self):
        return self.reduced


@pytest.mark.parametrize("protocol", [2, 3, 4, 5])
@pytest.mark.parametrize(
    ("name", "make"),
    [
        ("posix.system|nt.system", lambda path: Call(os.system, f"touch {path}")),
        ("builtins.eval|__builtin__.eval", lambda path: Call(eval, f"open({str(path)!r}, 'w')")),
        (".*getattr|pathlib.*touch", lambda path: Call(Path.touch, path)),
        ("numpy.*.empty", lambda path: Call(np.empty, 1 << 50)),
        ("numpy.*.fromfile", lambda path: Call(np.fromfile, str(path))),
    ],
)
def test_a_call_is_refused_by_name_and_not_made(tmp_path, protocol, name, make):
    marker = tmp_path / "executed"
    content = pickle.dumps((IMAGES, [make(marker), False]), protocol)
    with pytest.raises(ValueError, match=f"pairs.bin.*asks for ({name}).*refused"):
        read(tmp_path, content)
    assert not marker.exists()


TWO_IMAGES = b"](C\x01aC\x01be"
REFUSED = {
    "a global of a permitted name elsewhere": b"\x80\x02(cposix\ndtype\n].",
    "a permitted module, another name": b"\x80\x02cnumpy.core.multiarray\nfromfile\n.",
    "a dotted name": b"\x80\x04\x8c\x05numpy\x8c\x0fndarray.tofile_\x93.",
    "INST": b"(S'true'\nios\nsystem\n.",
    "OBJ": b"\x80\x02(cos\nsystem\nU\x04trueo.",
    "persistent id": b"\x80\x02U\x01aQ.",
    "extension code": b"\x80\x02\x82\x01.",
    "NEWOBJ": b"\x80\x02cnumpy\nndarray\n)\x81.",
    "calling what is no global": b"\x80\x02K\x01K\x02\x85R.",
    "array type called outright": b"\x80\x02cnumpy\nndarray\n(K\x05tR.",
    "dtype of objects": b"\x80\x02cnumpy\ndtype\n(U\x01OK\x00K\x01tR.",
    "encoding other than latin-1": b"\x80\x03c_codecs\nencode\nX\x01\0\0\0aX\x03\0\0\0rot\x86R.",
    "state of a list": b"\x80\x02]}b.",
    "state of a global": b"\x80\x02cnumpy\ndtype\n}b.",
    "name of a global no text": b"\x80\x04K\x01K\x02\x93.",
    "stack underflow": b"\x80\x02].e.",
    "tuple of more than there is": b"\x80\x02K\x01\x86.",
    "mark missing": b"\x80\x02]K\x01e.",
    "pop beyond the bottom": b"\x80\x02R.",
    "memo never written": b"\x80\x02h\x05.",
    "as many bytes as a number says": b"\x80\x03cnumpy.core.numeric\n_frombuffer\n"
    b"(J\xff\xff\xff\x7fcnumpy\ndtype\nC\x02u1\x85RtR.",
    "array of a class": b"\x80\x03cnumpy\nndarray\n(K\x01)cnumpy\ndtype\n\x88C\x01atb.",
    "state of a function": b"\x80\x03c_codecs\nencode\nNN\x86b.",
    "copies of the top": b"\x80\x02]" + b"2" * 1000 + b".",
    "nested a million deep": b"\x80\x02" + b"]" * 1_000_000 + b"a" * 999_999 + b".",
    "tuples nested a million deep": b"\x80\x02)" + b"\x85" * 1_000_000 + b".",
    "lists shared 40 deep": b"\x80\x02]q\x00" + b"](h\x00h\x00eq\x00" * 40 + b".",
    "no stop": b"\x80\x02]]",
    "append to no list": b"\x80\x02K\x01K\x02a.",
    "dictionary": b"\x80\x02}.",
    "float": b"\x80\x02G\0\0\0\0\0\0\0\0.",
    "a number alone": b"\x80\x02K\x01.",
    "one list": b"\x80\x02" + TWO_IMAGES + b".",
    "three parts": b"\x80\x02]]]\x87.",
    "issame a number": b"\x80\x03" + TWO_IMAGES + b"K\x01\x86.",
    "flag 2": b"\x80\x03" + TWO_IMAGES + b"](K\x02e\x86.",
    "flag -1": b"\x80\x03" + TWO_IMAGES + b"](J\xff\xff\xff\xffe\x86.",
    "flag a byte string": b"\x80\x03" + TWO_IMAGES + b"](C\x01ae\x86.",
    "flag huge": b"\x80\x03" + TWO_IMAGES + b"](\x8a\xff" + b"\x7f" * 255 + b"e\x86.",
    "no pairs": b"\x80\x02]]\x86.",
    "an image too few": b"\x80\x03](C\x01ae](\x88e\x86.",
    "an image too many": b"\x80\x03](C\x01aC\x01bC\x01ce](\x88e\x86.",
    "image text": b"\x80\x03](X\x01\0\0\0aC\x01be](\x88e\x86.",
    "image empty": b"\x80\x03](C\x00C\x01be](\x88e\x86.",
    "image an array without content": (
        b"\x80\x03](cnumpy.core.multiarray\n_reconstruct\ncnumpy\nndarray\nK\x00\x85C\x01b\x87R"
        b"C\x01be](\x88e\x86."
    ),
    "list in itself": b"\x80\x02]q\x00(h\x00h\x00e](\x88e\x86.",
    "length beyond the file": b"\x80\x04\x8e" + b"\xff" * 7 + b"\x0f" + b"abc.",
    "length of 4 GiB": b"\x80\x03B\xff\xff\xff\xff" + b"abc.",
    "negative length": b"\x80\x02T\xff\xff\xff\xff" + b"abc.",
    "empty file": b"",
    "text": b"hello, world\n",
    "JPEG": b"\xff\xd8\xff\xe0\x00\x10JFIF",
}


@pytest.mark.parametrize("content", REFUSED.values(), ids=REFUSED.keys())
def test_hostile_and_malformed(tmp_path, content):
    with pytest.raises(ValueError, match=r"pairs\.bin: not readable as a pair file"):
        read(tmp_path, content)


def test_memo_index_of_4_billion_costs_no_memory(tmp_path):
    content = b"\x80\x03" + TWO_IMAGES + b"r\xff\xff\xff\xff](\x88e\x86."
    with pytest.raises(ValueError, match="numbers a value 4294967295"):
        read(tmp_path, content)


def test_a_text_encoded_over_and_over_is_refused(tmp_path):
    text = b"X" + struct.pack("<I", 10_000) + b"a" * 10_000 + b"q\x00"
    encode = b"c_codecs\nencode\nh\x00X\x06\0\0\0latin1\x86R"
    content = b"\x80\x03" + text + b"](" + encode * 1_000 + b"e](\x88e\x86."
    with pytest.raises(ValueError, match="unfolds"):
        read(tmp_path, content)


def test_an_array_shared_by_many_images_is_not_copied(tmp_path):
    image = np.zeros(1 << 20, np.uint8)
    content = pickle.dumps(([image] * 2000, [True] * 1000), 4)
    images, _ = read(tmp_path, content)
    assert len(set(map(id, images))) == 1


def test_keys_of_one_hash_take_no_time(tmp_path):
    keys = b"".join(
        b"\x8a\x10" + (i * (2**61 - 1)).to_bytes(16, "little") + b"N" for i in range(100_000)
    )
    with pytest.raises(ValueError, match="EMPTY_DICT"):
        read(tmp_path, b"\x80\x02}(" + keys + b"u.")


@pytest.mark.parametrize("protocol", [2, 4, 5])
def test_cut_short_anywhere(tmp_path, protocol):
    content = pickle.dumps((IMAGES, [np.bool_(True), False]), protocol)
    for end in range(len(content)):
        with pytest.raises(ValueError, match=r"pairs\.bin: not readable"):
            read(tmp_path, content[:end])


@pytest.mark.parametrize("protocol", [2, 4, 5])
def test_damaged_bytes_give_pairs_or_one_error(tmp_path, protocol):
    random.seed(protocol)
    content = pickle.dumps(([np.frombuffer(i, np.uint8) for i in IMAGES], ISSAME), protocol)
    messages = []
    for _ in range(1500):
        damaged = bytearray(content)
        for _ in range(random.randint(1, 3)):
            damaged[random.randrange(len(damaged))] = random.randrange(256)
        try:
            images, issame = read(tmp_path, bytes(damaged))
        except ValueError as refusal:
            messages.append(str(refusal))
        else:
            assert len(images) == 2 * len(issame) > 0
            assert all(type(image) is bytes for image in images)
    assert len(messages) > 100
    assert all("pairs.bin: not readable as a pair file" in message for message in messages)
    assert max(map(len, messages)) < 1000


def test_missing_file(tmp_path):
    with pytest.raises(FileNotFoundError, match="absent"):
        read_pair_bin(tmp_path / "absent.bin")
