"""Files of InsightFace's, both ways between this project's readers and mxnet's, bit for bit."""

import pickle
import random

import numpy as np
import pytest

from sf2_plugin.data import (
    FaceRecords,
    decode_image,
    read_face_folder,
    read_pair_bin,
    unpack_record,
    write_pair_bin,
    write_records,
)

from .test_records import blobs

try:
    import mxnet
except Exception as error:  # It takes names from numpy that newer versions do not have.
    pytest.skip(f"mxnet cannot be imported: {error}", allow_module_level=True)

recordio = mxnet.recordio


@pytest.fixture
def samples(face_set):
    """Encoded faces and labels, and records that hold the format's magic number."""
    faces = read_face_folder(face_set / "train").samples[:40]
    return [(path.read_bytes(), label) for path, label in faces] + [(b, 7) for b in blobs(30)]


def written_by_mxnet(samples, folder):
    """As InsightFace's tools do: record 0 announces the index after the last face."""
    writer = recordio.MXIndexedRecordIO(str(folder / "train.idx"), str(folder / "train.rec"), "w")
    end = len(samples) + 1
    writer.write_idx(0, recordio.pack(recordio.IRHeader(2, [end, end], 0, 0), b""))
    for index, (content, label) in enumerate(samples, start=1):
        writer.write_idx(index, recordio.pack(recordio.IRHeader(0, label, index, 0), content))
    writer.close()


def test_the_same_faces_give_the_same_files(samples, tmp_path):
    theirs, ours = tmp_path / "mxnet", tmp_path / "ours"
    theirs.mkdir()
    written_by_mxnet(samples, theirs)
    write_records(samples, ours)
    for name in ("train.rec", "train.idx"):
        assert (ours / name).read_bytes() == (theirs / name).read_bytes()


def test_records_of_mxnets_are_read_as_mxnet_reads_them(samples, tmp_path):
    written_by_mxnet(samples, tmp_path)
    faces = FaceRecords(tmp_path)
    assert [faces.encoded(i) for i in range(len(faces))] == samples


def test_records_written_here_are_read_by_mxnet(samples, tmp_path):
    write_records(samples, tmp_path)
    faces = FaceRecords(tmp_path)
    paths = [str(tmp_path / name) for name in ("train.idx", "train.rec")]
    reader = recordio.MXIndexedRecordIO(*paths, "r")
    assert reader.keys == faces.records.keys.tolist()
    order = list(reader.keys)
    random.Random(0).shuffle(order)
    for key in order:
        record = reader.read_idx(key)
        assert record == faces.records.read(key)
        header, content = recordio.unpack(record)
        found = unpack_record(record)
        assert np.array_equal(np.atleast_1d(header.label), found.labels)
        assert (header.flag, header.id, header.id2) == (found.flag, found.id, found.id2)
        assert content == found.content


def test_pixels_are_mxnets(face_set):
    for path, _ in read_face_folder(face_set / "train").samples[:40]:
        encoded = path.read_bytes()
        assert np.array_equal(decode_image(encoded), mxnet.image.imdecode(encoded).asnumpy())


def test_pairs_go_both_ways(face_set, tmp_path):
    images, issame = read_pair_bin(face_set / "val.bin")
    write_pair_bin(tmp_path / "ours.bin", images, issame)
    with (tmp_path / "ours.bin").open("rb") as file:  # As the host's load_bin does.
        bins, flags = pickle.load(file)
    assert (bins, flags) == (list(images), issame.tolist())
    for encoded in bins[:40]:
        assert np.array_equal(decode_image(encoded), mxnet.image.imdecode(encoded).asnumpy())
    # As InsightFace's lfw2pack.py writes it, with numpy's flags too.
    for protocol, flags in ((2, issame.tolist()), (4, list(issame))):
        (tmp_path / "theirs.bin").write_bytes(pickle.dumps((bins, flags), protocol))
        read_images, read_issame = read_pair_bin(tmp_path / "theirs.bin")
        assert list(read_images) == bins
        assert np.array_equal(read_issame, issame)
