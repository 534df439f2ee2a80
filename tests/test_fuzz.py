"""Every reader on damaged files: an answer or a ValueError, in bounded memory, and nothing else.

A second or a few for each reader; `SF2_FUZZ=100000` tries as many files of each kind, other ones at
each run.
"""

import contextlib
import io
import json
import os
import pickle
import resource
import sys
import zipfile

import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from sf2_plugin.data import FaceRecords, decode_image, read_pair_bin, read_pairs, write_records
from sf2_plugin.data.arrays import read_arrays
from sf2_plugin.evaluation import Calibration, identify, verify_pairs
from sf2_plugin.evaluation.ijb import (
    read_ijb_galleries,
    read_ijb_images,
    read_ijb_pairs,
    read_ijb_probes,
)
from sf2_plugin.reading import reading
from sf2_plugin.shards import read_shards, reshard
from sf2_plugin.shards.checkpoints import file_name
from sf2_plugin.torch_files import load_torch_file

EXAMPLES = int(os.environ.get("SF2_FUZZ", 0))
fuzz = settings(
    max_examples=EXAMPLES or 300,
    derandomize=not EXAMPLES,
    database=None,
    deadline=None,
    suppress_health_check=list(HealthCheck),
)
MIB = 1 << 20

# What decoders have stumbled over: ends of numbers, words that are numbers, and nesting.
TRICKY = [
    *(b"\xff" * n for n in (1, 2, 4, 8)),
    *(b"\0" * n for n in (1, 4, 8)),
    *(b"\xff\xff\xff\x7f", b"\0\0\0\x80", b"-", b"-1", b"9" * 30, b"1e999", b"nan", b"inf"),
    *(b"[" * 2000, b"(" * 2000, b"{" * 2000, b"\n", b"\t", b",", b"\r\n", b"\xef\xbb\xbf", b"\x1b"),
    *(b"h\0", b"2", b"0", b"R", b"b", b"\x85" * 2000, b"]" * 2000, b"."),
]
edits = st.lists(
    st.tuples(
        st.floats(0, 1, exclude_max=True),
        st.one_of(st.integers(0, 2), st.integers(0, 400)),
        st.one_of(st.binary(max_size=6), st.sampled_from(TRICKY)),
    ),
    min_size=1,
    max_size=4,
)


def damaged(content: bytes, edits) -> bytes:
    """`content` with pieces of it, at a share of its length, taken out and others put in."""
    for place, taken, put in edits:
        start = int(place * len(content))
        content = content[:start] + put + content[start + taken :]
    return content


def damaged_member(content: bytes, name: str, edits) -> bytes:
    """A zip file whose member is damaged before it is packed, checksum and all."""
    out = io.BytesIO()
    with zipfile.ZipFile(io.BytesIO(content)) as archive, zipfile.ZipFile(out, "w") as packed:
        for member in archive.namelist():
            inner = archive.read(member)
            packed.writestr(member, damaged(inner, edits) if member.endswith(name) else inner)
    return out.getvalue()


def check(read):
    """An answer or a ValueError, and not much more memory than a small file needs."""
    scale = 1 if sys.platform == "darwin" else 1024
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * scale
    with contextlib.suppress(ValueError):
        read()
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * scale - before < 300 * MIB


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tmp_path_factory.mktemp("fuzz")


IMAGES = [b"\xff\xd8one", b"two\x00\x80\xfe", b"\xff\xd8" + bytes(range(256)), b"4"]
ARRAYS = [np.frombuffer(image, np.uint8) for image in IMAGES]
BINS = [
    pickle.dumps((IMAGES, [True, False]), 2),
    pickle.dumps((IMAGES, np.array([1, 0])), 4),
    pickle.dumps((ARRAYS, [np.bool_(True), np.bool_(False)]), 2),
    pickle.dumps((ARRAYS, [1.0, 0.0]), 5),
]


@fuzz
@given(st.sampled_from(BINS), edits)
def test_bins(folder, content, edits):
    path = folder / "x.bin"
    path.write_bytes(damaged(content, edits))
    check(lambda: read_pair_bin(path))


@pytest.fixture(scope="module")
def records(folder):
    faces = [(bytes([i]) * (20 + i), i % 3) for i in range(4)]
    write_records(faces, folder / "records")
    return {name: (folder / "records" / name).read_bytes() for name in ("train.rec", "train.idx")}


@fuzz
@given(st.sampled_from(["train.rec", "train.idx"]), edits)
def test_records(folder, records, name, edits):
    for each, content in records.items():
        changed = damaged(content, edits) if each == name else content
        (folder / "records" / each).write_bytes(changed)

    def read():
        faces = FaceRecords(folder / "records")
        for i in range(min(len(faces.keys), 10)):
            faces.encoded(i)
        faces.records.close()

    check(read)


def saved_arrays():
    rng = np.random.default_rng(0)
    issame = np.arange(20) % 2 == 0
    arrays = dict(
        embeddings=rng.normal(size=(40, 3)).astype(np.float32),
        issame=issame,
        ids=np.arange(40) % 9,
    )
    files = []
    for save in (np.savez, np.savez_compressed):
        file = io.BytesIO()
        save(file, **arrays)
        files.append(file.getvalue())
    for array in arrays.values():
        file = io.BytesIO()
        np.save(file, array)
        files.append(file.getvalue())
    return files


@pytest.mark.filterwarnings("ignore:Reading .* created on Python 2")
@fuzz
@given(st.sampled_from(saved_arrays()), st.sampled_from([None, "s.npy", "e.npy"]), edits)
def test_saved_arrays(folder, content, member, edits):
    path = folder / "x.npz"
    inside = member and content.startswith(b"PK")
    path.write_bytes(damaged_member(content, member, edits) if inside else damaged(content, edits))

    def read():
        arrays = read_arrays(path)
        faces, ids = arrays.get("embeddings"), arrays.get("ids")
        if "issame" in arrays:
            verify_pairs(faces, arrays["issame"], folds=2)
        if ids is not None:
            identify(faces[:20], ids[:20], faces[20:], ids[20:])

    with np.errstate(all="ignore"):
        check(read)


def checkpoint(rank):
    rows = 3 - rank
    momentum = {0: {"momentum_buffer": torch.ones(2)}, 1: {"momentum_buffer": torch.ones(rows, 4)}}
    return {
        "epoch": 1,
        "global_step": 7,
        "world_size": 2,
        "state_dict_backbone": {"layer.weight": torch.ones(2)},
        "state_dict_softmax_fc": {"weight": torch.ones(rows, 4), "bias": torch.zeros(1)},
        "state_optimizer": {
            "state": momentum,
            "param_groups": [{"lr": 0.1, "params": [0]}, {"lr": 0.1, "params": [1, 2]}],
        },
    }


def saved_checkpoint(rank, zipped=True):
    file = io.BytesIO()
    torch.save(checkpoint(rank), file, _use_new_zipfile_serialization=zipped)
    return file.getvalue()


SHARDS = [saved_checkpoint(rank) for rank in range(2)]


@fuzz
@given(st.integers(0, 1), st.booleans(), edits)
def test_shards(folder, rank, inside, edits):
    place = folder / "shards"
    place.mkdir(exist_ok=True)
    for each, content in enumerate(SHARDS):
        if each == rank:
            content = (
                damaged_member(content, "data.pkl", edits) if inside else damaged(content, edits)
            )
        (place / file_name(each)).write_bytes(content)

    def read():
        shards = read_shards(place)
        shards.describe()
        for _ in reshard(shards, 3):
            pass

    check(read)


@fuzz
@given(edits)
def test_torch_files_from_before_they_were_archives(folder, edits):
    path = folder / "x.pt"
    path.write_bytes(damaged(saved_checkpoint(0, zipped=False), edits))
    check(lambda: load_torch_file(path))


@fuzz
@given(edits)
def test_pair_lists(folder, edits):
    (folder / "a b.png").write_bytes(b"an image")
    lines = "".join(f"a b.png\ta b.png\t{i % 2}\n" for i in range(6))
    (folder / "pairs.txt").write_bytes(damaged(lines.encode(), edits))
    check(lambda: read_pairs(folder / "pairs.txt"))


IJB = {
    "face_tid_mid.txt": "1.jpg 7 1\n2.jpg 8 2\n3.jpg 9 2\n",
    "name_5pts_score.txt": "".join(
        f"{i}.jpg {' '.join(map(str, range(10)))} 0.9\n" for i in (1, 2, 3)
    ),
    "template_pair_label.txt": "7 8 1\n8 9 0\n",
    "1N_gallery_G1.csv": "TEMPLATE_ID,SUBJECT_ID,F\n7,1,x\n",
    "1N_gallery_G2.csv": "TEMPLATE_ID,SUBJECT_ID,F\n8,2,x\n",
    "1N_probe_mixed.csv": "TEMPLATE_ID,SUBJECT_ID,F\n9,2,x\n",
}


@fuzz
@given(st.sampled_from(sorted(IJB)), edits)
def test_ijb_lists(folder, name, edits):
    meta = folder / "ijb/meta"
    meta.mkdir(parents=True, exist_ok=True)
    for each, text in IJB.items():
        content = damaged(text.encode(), edits) if each == name else text.encode()
        (meta / f"ijbc_{each}").write_bytes(content)

    def read():
        for reader in (read_ijb_images, read_ijb_pairs, read_ijb_galleries, read_ijb_probes):
            reader(folder / "ijb")

    check(read)


@fuzz
@given(edits)
def test_calibrations(folder, edits):
    path = folder / "x.json"
    values = {"scale": 40.0, "t": 3.0, "bias": -20.5, "fitted_pairs": 10}
    path.write_bytes(damaged(json.dumps(values).encode(), edits))
    with np.errstate(all="ignore"):
        check(lambda: Calibration.load(path).probability([-1, 0.0, 1]))


CONFIG = """\
model = dict(type='ImageClassifier', backbone=dict(type='ResNet', depth=18),
    head=dict(type='SphereFace2ClsHead', num_classes=4, in_channels=512))
test_pipeline = [dict(type='Resize', scale=(112, 112)), {'type': 'PackInputs'}]
work_dir = None
"""


@fuzz
@given(edits)
def test_configs_in_checkpoints(edits):
    pytest.importorskip("mmpretrain")
    from sf2_plugin.integrations.mmpretrain.checkpoint_backbone import read_config

    def read():
        with reading("x.pth"):
            read_config(damaged(CONFIG.encode(), edits).decode(errors="surrogateescape"))

    check(read)


def images():
    Image = pytest.importorskip("PIL.Image")
    pixels = np.random.default_rng(0).integers(0, 255, (9, 7, 3), dtype=np.uint8)
    files = []
    for mode in ("RGB", "L", "P", "RGBA", "I;16", "1", "CMYK"):
        for kind in ("PNG", "JPEG", "BMP", "WEBP"):
            file = io.BytesIO()
            image = Image.fromarray(pixels)
            if mode == "I;16":
                image = Image.fromarray(pixels[..., 0].astype(np.uint16) * 250)
            elif mode != "RGB":
                image = image.convert(mode)
            try:
                image.save(file, kind)
            except (OSError, KeyError):  # The format has no such mode.
                continue
            files.append(file.getvalue())
    return files


@pytest.mark.filterwarnings("ignore")
@fuzz
@given(st.integers(0, 1000), edits)
def test_images(which, edits):
    files = images()
    content = damaged(files[which % len(files)], edits)
    check(lambda: decode_image(content, "x.png"))
