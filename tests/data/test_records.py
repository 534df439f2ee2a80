"""Record files, against an obvious reader, bytes that MXNet wrote, and damage of all kinds."""

import multiprocessing
import pickle
import random
import struct
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest

from sf2_plugin.data import (
    FaceRecords,
    IndexedRecords,
    encode_jpeg,
    read_face_folder,
    unpack_record,
    write_records,
)
from sf2_plugin.data.records import pack_record

MAGIC = struct.pack("<I", 0xCED7230A)


def obvious_records(content: bytes) -> dict[int, bytes]:
    """All records of a file by offset, read from the front."""
    records, place = {}, 0
    while place < len(content):
        begin, record = place, b""
        while True:
            magic, word = struct.unpack_from("<II", content, place)
            assert magic == 0xCED7230A
            kind, length = word >> 29, word & (2**29 - 1)
            if kind in (2, 3):
                record += MAGIC
            record += content[place + 8 : place + 8 + length]
            place += 8 + length
            place += (4 - place % 4) % 4
            if kind in (0, 3):
                break
        records[begin] = record
    return records


def blobs(count: int) -> list[bytes]:
    """Byte strings with the magic number in all places and numbers."""
    random.seed(count)
    made = [MAGIC, MAGIC * 2, MAGIC * 5, b"abcd" + MAGIC, MAGIC + b"x", b"abc" + MAGIC, b"a"]
    while len(made) < count:
        blob = bytearray(random.randbytes(random.randrange(1, 60)))
        for _ in range(random.randrange(5)):
            place = random.randrange(len(blob))
            blob[place:place] = MAGIC
        made.append(bytes(blob))
    return made


def test_round_trip_with_the_magic_number_inside(tmp_path):
    contents = blobs(80)
    labels = [random.randrange(9) for _ in contents]
    assert write_records(zip(contents, labels, strict=True), tmp_path / "out") == 80
    faces = FaceRecords(tmp_path / "out")
    assert [faces.encoded(i) for i in range(len(faces))] == list(zip(contents, labels, strict=True))
    assert faces.encoded(-1)[0] == contents[-1]

    in_file = obvious_records((tmp_path / "out" / "train.rec").read_bytes())
    assert len(in_file) == 81
    lines = (tmp_path / "out" / "train.idx").read_text().splitlines()
    assert lines == [f"{key}\t{offset}" for key, offset in enumerate(in_file)]
    assert list(in_file.values()) == [faces.records.read(key) for key in range(81)]
    announcement = unpack_record(faces.records.read(0))
    assert announcement.flag == 2
    assert announcement.labels.tolist() == [81, 81]
    assert (tmp_path / "out" / "property").read_text() == f"{max(labels) + 1},112,112\n"
    names = sorted(path.name for path in (tmp_path / "out").iterdir())
    assert names == ["property", "train.idx", "train.rec"]


# mxnet 1.9.1: IRHeader(2, [4, 6], 0, 0) without content; IRHeader(0, 7, 1, 0) with b"abcde";
# IRHeader(0, [3, 5], 2, 0) with MAGIC + b"xy"; IRHeader(0, 2.0, 3, 0) with b"zz" + MAGIC.
MXNET_REC = bytes.fromhex(
    "0a23d7ce20000000020000000000000000000000000000000000000000000000000080400000c040"
    "0a23d7ce1d000000000000000000e040010000000000000000000000000000006162636465000000"
    "0a23d7ce20000020020000000000000002000000000000000000000000000000000040400000a040"
    "0a23d7ce02000060787900000a23d7ce1e0000000000000000000040030000000000000000000000"
    "000000007a7a0a23d7ce0000"
)
MXNET_IDX = "0\t0\n1\t40\n2\t80\n3\t132\n"


def test_bytes_that_mxnet_wrote(tmp_path):
    (tmp_path / "train.rec").write_bytes(MXNET_REC)
    (tmp_path / "train.idx").write_text(MXNET_IDX)
    faces = FaceRecords(tmp_path)
    assert faces.records.keys.tolist() == [0, 1, 2, 3]
    assert faces.keys.tolist() == [1, 2, 3]
    expected = [(b"abcde", 7), (MAGIC + b"xy", 3), (b"zz" + MAGIC, 2)]
    assert [faces.encoded(i) for i in range(3)] == expected
    second = unpack_record(faces.records.read(2))
    assert (second.flag, second.id, second.labels.tolist()) == (2, 2, [3.0, 5.0])


def test_images_are_decoded(tmp_path):
    pixels = np.full((8, 8, 3), (200, 30, 90), np.uint8)
    write_records([(encode_jpeg(pixels), 4)], tmp_path)
    decoded, label = FaceRecords(tmp_path)[0]
    assert label == 4
    assert np.abs(decoded.astype(int) - pixels).max() < 8
    write_records([(b"no image", 4)], tmp_path)
    with pytest.raises(ValueError, match=r"train\.rec, record 1: not readable as an image"):
        FaceRecords(tmp_path)[0]


def test_an_image_folder(face_set, tmp_path):
    folder = face_set / "train"
    samples = read_face_folder(folder).samples
    assert write_records(folder, tmp_path) == len(samples)
    faces = FaceRecords(tmp_path)
    assert len(faces) == len(samples)
    for i in (0, 1, len(samples) // 2, len(samples) - 1):
        assert faces.encoded(i) == (samples[i][0].read_bytes(), samples[i][1])


@pytest.mark.parametrize("labels", [3, 3.0, [3.0], [3, 9, 1], np.array([3.0, 0.0])])
def test_pack_and_unpack(labels):
    record = unpack_record(pack_record(b"content", labels, 12))
    assert record.flag == np.size(labels) * (np.ndim(labels) > 0)
    assert record.labels.tolist() == np.atleast_1d(labels).tolist()
    assert (record.id, record.content) == (12, b"content")


def write_raw(folder: Path, records: dict[int, bytes]) -> None:
    """Records under given keys, each in one part."""
    rec, idx = b"", ""
    for key, record in records.items():
        idx += f"{key}\t{len(rec)}\n"
        rec += MAGIC + struct.pack("<I", len(record)) + record + bytes(-len(record) % 4)
    (folder / "train.rec").write_bytes(rec)
    (folder / "train.idx").write_text(idx)


def test_record_0_is_a_face_where_it_announces_nothing(tmp_path):
    keys = [5, 0, 900]
    write_raw(tmp_path, {key: pack_record(b"%d" % key, key) for key in keys})
    faces = FaceRecords(tmp_path)
    assert faces.keys.tolist() == keys
    assert [faces.encoded(i) for i in range(3)] == [(b"%d" % key, key) for key in keys]


def test_no_record_0(tmp_path):
    write_raw(tmp_path, {key: pack_record(b"%d" % key, key) for key in (1, 2)})
    assert FaceRecords(tmp_path).keys.tolist() == [1, 2]


@pytest.mark.parametrize("end", [0, 1, 1.5, 3, 5, -1, float("nan"), float("inf")])
def test_a_false_announcement(tmp_path, end):
    faces = {key: pack_record(b"x", 0) for key in (1, 3)}
    write_raw(tmp_path, {0: pack_record(b"", [end, end]), **faces})
    with pytest.raises(ValueError, match=r"train\.rec: record 0 says"):
        FaceRecords(tmp_path)


def test_identity_records_behind_the_faces_are_passed_over(tmp_path):
    behind = {3: pack_record(b"", [1, 2]), 4: pack_record(b"", [2, 3])}
    faces = {key: pack_record(b"x", key) for key in (1, 2)}
    write_raw(tmp_path, {0: pack_record(b"", [3, 5]), **faces, **behind})
    assert FaceRecords(tmp_path).keys.tolist() == [1, 2]


def read_all(records: IndexedRecords, order: list[int]) -> list[bytes]:
    return [records.read(key) for key in order]


@pytest.fixture
def many(tmp_path):
    contents = blobs(300)
    write_records([(content, i) for i, content in enumerate(contents)], tmp_path)
    orders = [random.sample(range(1, 301), 300) for _ in range(4)]
    expected = [[contents[key - 1] for key in order] for order in orders]
    return tmp_path, orders, expected


def test_threads_and_processes_share_a_reader(many):
    folder, orders, expected = many
    records = IndexedRecords(folder / "train.rec")

    def contents(answers):
        return [[unpack_record(record).content for record in answer] for answer in answers]

    with ThreadPoolExecutor(4) as threads:
        assert contents(threads.map(read_all, [records] * 4, orders)) == expected
    with multiprocessing.get_context("fork").Pool(2) as pool:
        arguments = [(records, order) for order in orders]
        assert contents(pool.starmap(read_all, arguments)) == expected
    copy = pickle.loads(pickle.dumps(records))
    records.close()
    assert contents([read_all(copy, orders[0])]) == expected[:1]


def test_cut_short_anywhere(tmp_path):
    write_records([(MAGIC + b"abcdef", 1), (b"xyz", 2)], tmp_path)
    content = (tmp_path / "train.rec").read_bytes()
    for end in range(len(content) - 1):  # the very last byte is padding
        (tmp_path / "train.rec").write_bytes(content[:end])
        with pytest.raises(ValueError, match=r"train\.rec"):
            [FaceRecords(tmp_path).encoded(i) for i in range(2)]


def test_damaged_bytes_give_records_or_one_error(tmp_path):
    random.seed(0)
    write_records([(content, 1) for content in blobs(12)], tmp_path)
    path, messages = tmp_path / "train.rec", []
    content = path.read_bytes()
    for _ in range(300):
        damaged = bytearray(content)
        for _ in range(3):
            damaged[random.randrange(len(damaged))] = random.randrange(256)
        path.write_bytes(damaged)
        try:
            faces = FaceRecords(tmp_path)
            read = [faces.encoded(i) for i in range(len(faces))]
        except ValueError as refusal:
            messages.append(str(refusal))
        else:
            assert all(type(image) is bytes and type(label) is int for image, label in read)
    assert len(messages) > 50
    assert all("train.rec" in message for message in messages)


def test_a_wrong_magic_number_and_parts_out_of_place(tmp_path):
    record = pack_record(b"abc", 1)
    word = struct.pack("<I", len(record))
    for start, message in [
        (b"JPEG" + word, "no record begins at byte 0"),
        (MAGIC + struct.pack("<I", 2 << 29 | len(record)), "part of kind 2 out of place"),
        (MAGIC + struct.pack("<I", 3 << 29 | len(record)), "part of kind 3 out of place"),
        (MAGIC + struct.pack("<I", 5 << 29 | len(record)), "part of kind 5 out of place"),
        (MAGIC + struct.pack("<I", 1 << 29 | len(record)), "cut short in record 1"),
        (MAGIC + struct.pack("<I", 2**29 - 1), "cut short in record 1"),
    ]:
        (tmp_path / "train.rec").write_bytes(start + record + b"\0")
        (tmp_path / "train.idx").write_text("1\t0\n")
        with pytest.raises(ValueError, match=message):
            FaceRecords(tmp_path).encoded(0)


@pytest.mark.parametrize(
    ("index", "message"),
    [
        ("", "no records"),
        ("1\t0\n2", "a key and an offset"),
        ("one\t0\n", "a key and an offset"),
        ("1\t0.5\n", "a key and an offset"),
        ("1\t99999999999999999999999\n", "a key and an offset"),
        ("1\t-4\n", "negative"),
        ("1\t0\n1\t0\n", "key twice"),
        ("1\t0\n2\t4096\n", "at byte 4096"),
    ],
)
def test_a_malformed_index(tmp_path, index, message):
    write_raw(tmp_path, {1: pack_record(b"x", 0)})
    (tmp_path / "train.idx").write_text(index)
    with pytest.raises(ValueError, match=f"train.idx.*{message}"):
        FaceRecords(tmp_path)


@pytest.mark.parametrize(
    ("record", "message"),
    [
        (b"short", "5 bytes; a header alone has 24"),
        (struct.pack("<IfQQ", 2**32 - 1, 0, 0, 0) + b"abcd", "no room"),
        (pack_record(b"x", float("nan")), "label nan"),
        (pack_record(b"x", [0.5, 1.0]), "label 0.5"),
    ],
)
def test_a_malformed_record(tmp_path, record, message):
    write_raw(tmp_path, {1: record})
    with pytest.raises(ValueError, match=rf"train\.rec, record 1.*{message}"):
        FaceRecords(tmp_path).encoded(0)


@pytest.mark.parametrize("indexed", [True, False])
def test_faces_with_several_labels_and_no_record_that_announces_them(tmp_path, indexed):
    """The header of a face then says how many labels follow it, and so does an announcement's."""
    faces = {key: pack_record(b"face %d" % key, [key % 2, 0.5, -1]) for key in range(5)}
    write_raw(tmp_path, faces)
    if not indexed:
        (tmp_path / "train.idx").unlink()
    read = FaceRecords(tmp_path)
    assert [read.encoded(i) for i in range(5)] == [(b"face %d" % i, i % 2) for i in range(5)]


@pytest.mark.parametrize("count", [1, 80])
def test_without_an_index_records_are_counted(tmp_path, count):
    contents = blobs(80)[:count]
    write_records([(content, i) for i, content in enumerate(contents)], tmp_path)
    indexed = FaceRecords(tmp_path)
    (tmp_path / "train.idx").unlink()
    counted = FaceRecords(tmp_path)
    assert counted.keys.tolist() == indexed.keys.tolist()
    assert [counted.encoded(i) for i in range(count)] == list(
        zip(contents, range(count), strict=True)
    )
    whole = (tmp_path / "train.rec").read_bytes()
    for broken, message in (
        (whole + b"abc", f"no record begins at byte {len(whole)}"),
        (whole + b"abcd" * 9, f"no record begins at byte {len(whole)}"),
        (whole[:-8], "it is cut short in the record at byte"),
        (b"", "it has no records"),
    ):
        (tmp_path / "train.rec").write_bytes(broken)
        with pytest.raises(ValueError, match=rf"train\.rec: .*{message}"):
            IndexedRecords(tmp_path / "train.rec")


def test_missing_files_and_keys(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"train\.rec"):
        FaceRecords(tmp_path)
    write_records([(b"x", 0)], tmp_path)
    with pytest.raises(KeyError, match="no record 7"):
        IndexedRecords(tmp_path / "train.rec").read(7)
    (tmp_path / "train.rec").unlink()
    with pytest.raises(FileNotFoundError, match=r"train\.rec"):
        FaceRecords(tmp_path)


@pytest.mark.parametrize(
    ("faces", "message"),
    [
        ([], "no faces"),
        ([(b"x", -1)], "label -1"),
        ([(b"x", 2**24)], "float32"),
        ([(b"x", 0), (b"", 0)], "face 2 has 0 bytes"),
    ],
)
def test_refused_faces_leave_older_files_as_they_were(tmp_path, faces, message):
    write_records([(b"older", 3)], tmp_path)
    before = {path.name: path.read_bytes() for path in tmp_path.iterdir()}
    with pytest.raises(ValueError, match=message):
        write_records(faces, tmp_path)
    assert {path.name: path.read_bytes() for path in tmp_path.iterdir()} == before
