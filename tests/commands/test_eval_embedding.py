"""Embedding extraction: batches, flip test, the cache, and backbones from files."""

import functools
import io
import multiprocessing
import os
import signal
import sys
import tracemalloc
from argparse import ArgumentParser

import numpy as np
import pytest
import torch

pytest.importorskip("PIL", reason='needs pip install "sf2-plugin[eval]"')

from sf2_plugin.backbones import file_digest, open_backbone
from sf2_plugin.backbones.embedding import embed_images
from sf2_plugin.commands.models import add_model_options, read_models
from sf2_plugin.data import PairSet, encode_jpeg
from sf2_plugin.data.alignment import TEMPLATE, align_face
from sf2_plugin.data.images import decode_image

from ..onnx_models import onnx_file


class Means:
    """A backbone that answers the mean of each half of a face, and counts what it is asked."""

    settings = "means"
    calibration = None

    def __init__(self):
        self.batches = []

    def embed(self, faces):
        faces = list(faces)
        self.batches.append(len(faces))
        halves = [np.array_split(face.astype(np.float32), 2, axis=1) for face in faces]
        return np.array([[half.mean() for half in pair] for pair in halves], np.float32)


@pytest.fixture(scope="module")
def images():
    rng = np.random.default_rng(0)
    return [
        encode_jpeg(rng.integers(0, 255, (16, 16, 3), dtype=np.uint8), quality=95)
        for _ in range(23)
    ]


@pytest.mark.parametrize("flip_test", [True, False])
@pytest.mark.parametrize("batch_size", [1, 4, 7, 64])
def test_every_batch_size_gives_the_obvious_answer(images, flip_test, batch_size):
    expected = []
    for image in images:
        pixels = decode_image(image).astype(np.float32)
        left, right = pixels[:, :8].mean(), pixels[:, 8:].mean()
        expected.append([left + right, right + left] if flip_test else [left, right])
    backbone = Means()
    embedded = embed_images(backbone, images, flip_test=flip_test, batch_size=batch_size)
    np.testing.assert_allclose(embedded, expected, rtol=1e-6)
    assert embedded.dtype == np.float32
    assert max(backbone.batches) <= max(batch_size, 2 if flip_test else 1)


def test_a_damaged_image_of_a_pair_set_is_called_by_its_place_there(images):
    damaged = [images[0], images[1], images[0], images[1], images[2], b"damaged"]
    pairs = PairSet("lfw", damaged, np.ones(3, bool))
    with pytest.raises(ValueError, match="image 5 of pair set lfw: not readable as an image"):
        pairs.embeddings(functools.partial(embed_images, Means()))


@pytest.fixture
def small_parts(monkeypatch):
    monkeypatch.setattr("sf2_plugin.backbones.embedding._PART_IMAGES", 8)


@pytest.mark.usefixtures("small_parts")
def test_what_is_cached_is_not_embedded_again(images, tmp_path):
    options = dict(batch_size=4, cache=tmp_path / "cache", model_digest="a")
    first, again = Means(), Means()
    embedded = embed_images(first, images, **options)
    np.testing.assert_array_equal(embed_images(again, images, **options), embedded)
    assert sum(first.batches) == 46
    assert again.batches == []
    assert len(list((tmp_path / "cache").iterdir())) == 3

    changed = [*images[:9], images[0], *images[10:]]
    third = Means()
    embed_images(third, changed, **options)
    assert sum(third.batches) == 16  # one part of three

    for change in (dict(model_digest="b"), dict(flip_test=False), dict(batch_size=2)):
        other = Means()
        embed_images(other, images, **(options | change))
        assert other.batches


class Killed(Means):
    """Dies as by the kernel's hand, in the middle of the second part."""

    def embed(self, faces):
        faces = list(faces)
        if len(self.batches) == 6:
            os.kill(os.getpid(), signal.SIGKILL)
        return super().embed(faces)


@pytest.mark.usefixtures("small_parts")
@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs os.fork")
def test_a_killed_run_goes_on_where_it_stopped(images, tmp_path):
    whole, killed = (dict(batch_size=4, cache=tmp_path / n, model_digest="a") for n in "wk")
    process = multiprocessing.get_context("fork").Process(
        target=embed_images, args=(Killed(), images), kwargs=killed
    )
    process.start()
    process.join()
    assert process.exitcode == -signal.SIGKILL
    rest, seen = Means(), []
    embedded = embed_images(rest, images, progress=lambda *at: seen.append(at), **killed)
    assert sum(rest.batches) == 46 - 16  # the first part was kept
    assert seen == [(8, 23), (16, 23), (23, 23)]
    assert embedded.tobytes() == embed_images(Means(), images, **whole).tobytes()
    files = [{path.name: path.read_bytes() for path in (tmp_path / n).iterdir()} for n in "wk"]
    assert files[0] == files[1]


class Padded:
    """Images of 200 kB, made anew whenever one is asked for."""

    def __init__(self, image, count):
        self.image, self.count = image, count

    def __len__(self):
        return self.count

    def __getitem__(self, place):
        return self.image + bytes(200_000)


@pytest.mark.usefixtures("small_parts")
def test_memory_does_not_grow_with_the_number_of_images(images):
    def peak(count):
        tracemalloc.start()
        embed_images(Means(), Padded(images[0], count), batch_size=4)
        _, most = tracemalloc.get_traced_memory()
        tracemalloc.stop()
        return most

    few, many = peak(16), peak(160)
    assert few > 8 * 200_000
    assert many < few + 100_000


@pytest.mark.usefixtures("small_parts")
def test_a_damaged_part_is_made_anew(images, tmp_path):
    options = dict(batch_size=4, cache=tmp_path, model_digest="a")
    embedded = embed_images(Means(), images, **options)
    parts = sorted(tmp_path.iterdir())
    parts[0].write_bytes(parts[0].read_bytes()[:-5])
    parts[1].write_bytes(b"")
    np.save(parts[2], np.zeros(3))
    again = Means()
    np.testing.assert_array_equal(embed_images(again, images, **options), embedded)
    assert sum(again.batches) == 46


def test_bad_input(images):
    with pytest.raises(ValueError, match="no images"):
        embed_images(Means(), [])
    with pytest.raises(ValueError, match="batch_size must be at least 1, not 0"):
        embed_images(Means(), images, batch_size=0)
    with pytest.raises(ValueError, match="image 1: not readable as an image"):
        embed_images(Means(), [images[0], b"no image"])
    with pytest.raises(ValueError, match=r"landmarks must be \(23, 5, 2\)"):
        embed_images(Means(), images, landmarks=np.zeros((22, 5, 2)))


def test_alignment_brings_a_turned_face_back():
    """A face painted at the template, turned, scaled and moved, comes back to its place."""
    x, y = np.meshgrid(np.arange(200), np.arange(200))
    a, b = 0.8 * np.exp(0.4j), 30 + 20j
    landmarks = a * (TEMPLATE @ [1, 1j]) + b
    points = np.stack([landmarks.real, landmarks.imag], axis=1)
    pixels = np.zeros((200, 200, 3))
    for px, py in points:
        pixels += 250 * np.exp(-((x - px) ** 2 + (y - py) ** 2) / 8)[..., None]
    aligned = align_face(pixels.clip(0, 255).astype(np.uint8), points).astype(float)[..., 0]
    assert aligned.shape == (112, 112)
    yy, xx = np.mgrid[:112, :112]
    for px, py in TEMPLATE:
        near = aligned * ((xx - px) ** 2 + (yy - py) ** 2 < 64)
        assert abs((near * xx).sum() / near.sum() - px) < 0.1
        assert abs((near * yy).sum() / near.sum() - py) < 0.1


@pytest.mark.parametrize("landmarks", [np.zeros((4, 2)), np.ones((5, 2)), np.full((5, 2), np.nan)])
def test_landmarks_that_are_no_landmarks(landmarks):
    with pytest.raises(ValueError, match="landmarks must"):
        align_face(np.zeros((50, 50, 3), np.uint8), landmarks)


@pytest.mark.parametrize("batch", ["batch", 1, 4])
@pytest.mark.parametrize("normalises", [True, False])
def test_onnx(tmp_path, normalises, batch):
    path = tmp_path / "model.onnx"
    weights = onnx_file(path, normalises=normalises, batch=batch)
    faces = np.random.default_rng(1).integers(0, 255, (6, 8, 8, 3), dtype=np.uint8)
    scale = 128 if normalises else 127.5
    planes = (faces.astype(np.float32).transpose(0, 3, 1, 2) - 127.5) / scale
    embedded = open_backbone(path).embed(list(faces))
    np.testing.assert_allclose(embedded, planes.reshape(6, -1) @ weights, rtol=1e-4, atol=1e-4)


def test_onnx_resizes_to_the_size_of_the_model(tmp_path):
    onnx_file(tmp_path / "model.onnx", normalises=False)
    backbone = open_backbone(tmp_path / "model.onnx")
    small = np.full((8, 8, 3), 99, np.uint8)
    large = np.full((20, 24, 3), 99, np.uint8)
    np.testing.assert_allclose(backbone.embed([large]), backbone.embed([small]), rtol=1e-6)


def test_onnx_weights_in_a_file_of_their_own_decide_what_is_cached(images, tmp_path):
    onnx_file(tmp_path / "whole.onnx", normalises=False)
    onnx = pytest.importorskip("onnx")
    path, data = tmp_path / "model.onnx", tmp_path / "model.onnx.data"
    onnx.save(
        onnx.load(tmp_path / "whole.onnx"),
        path,
        save_as_external_data=True,
        location=data.name,
        size_threshold=0,
    )

    def embedded():
        digest = file_digest(path)
        return embed_images(open_backbone(path), images, cache=tmp_path / "c", model_digest=digest)

    before = embedded()
    data.write_bytes((np.frombuffer(data.read_bytes(), np.float32) * -1).tobytes())
    np.testing.assert_allclose(embedded(), -before, rtol=1e-5)


HOST = """
import torch
def get_model(name, fp16, num_features=512):
    if name != "tiny":
        raise ValueError()
    net = torch.nn.Sequential()
    net.add_module("flat", torch.nn.Flatten())
    net.add_module("fc", torch.nn.Linear(3 * 112 * 112, num_features))
    net.add_module("features", torch.nn.BatchNorm1d(num_features))
    return net
"""


@pytest.fixture
def arcface_torch(tmp_path, monkeypatch):
    monkeypatch.delitem(sys.modules, "backbones", raising=False)
    (tmp_path / "host" / "backbones").mkdir(parents=True)
    (tmp_path / "host" / "backbones" / "__init__.py").write_text(HOST)
    yield tmp_path / "host"
    sys.modules.pop("backbones", None)


def test_arcface_torch(tmp_path, arcface_torch):
    torch.manual_seed(0)
    namespace: dict = {}
    exec(HOST, namespace)
    network = namespace["get_model"]("tiny", False, 6).eval()
    path = tmp_path / "model.pt"
    torch.save(network.state_dict(), path)
    faces = np.random.default_rng(1).integers(0, 255, (3, 112, 112, 3), dtype=np.uint8)
    embedded = open_backbone(path, network="tiny", arcface_torch=arcface_torch).embed(list(faces))
    planes = torch.from_numpy(faces).permute(0, 3, 1, 2).float()
    with torch.no_grad():
        expected = network((planes / 255 - 0.5) / 0.5)
    np.testing.assert_array_equal(embedded, expected.numpy())

    torch.save({"fc.weight": torch.zeros(2)}, path)
    with pytest.raises(ValueError, match="not the network tiny: 5 of 6 tensors are missing"):
        open_backbone(path, network="tiny", arcface_torch=arcface_torch)
    with pytest.raises(ValueError, match="has no network 'r5': r50, mbf or another"):
        open_backbone(path, network="r5", arcface_torch=arcface_torch)
    with pytest.raises(ValueError, match="needs the folder of arcface_torch"):
        open_backbone(path, network="tiny")
    with pytest.raises(FileNotFoundError, match="has no backbones/"):
        open_backbone(path, network="tiny", arcface_torch=tmp_path)


def test_models_of_arcface_torch_may_have_networks_of_their_own(tmp_path):
    (tmp_path / "model.pt").touch()
    parser = ArgumentParser()
    add_model_options(parser, "saved embeddings")
    models = [f"{name}={tmp_path / 'model.pt'}" for name in ("small", "large")]
    arguments = parser.parse_args([*models, "--network", "r50", "--network", "large=r100"])
    assert [model.network for model in read_models(arguments)] == ["r50", "r100"]
    (model,) = read_models(parser.parse_args(models[:1]))
    assert model.network is None


class Malicious:
    def __reduce__(self):
        return (open, ("executed", "w"))


def test_files_that_are_no_models(tmp_path, arcface_torch, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(FileNotFoundError, match=r"no model .*none\.onnx"):
        open_backbone("none.onnx")
    path = tmp_path / "model.pt"
    options = dict(network="tiny", arcface_torch=arcface_torch)
    torch.save({"weights": Malicious()}, path)
    with pytest.raises(ValueError, match=r"model\.pt: it holds _?io\.open, which is refused"):
        open_backbone(path, **options)
    assert not (tmp_path / "executed").exists()
    content = io.BytesIO()
    torch.save({"w": torch.zeros(100)}, content)
    for broken in (b"", b"text", content.getvalue()[:300]):
        path.write_bytes(broken)
        with pytest.raises(ValueError, match="not readable as a checkpoint of tensors"):
            open_backbone(path, **options)
    torch.save([1], path)
    with pytest.raises(ValueError, match="no weights in it, but a list"):
        open_backbone(path, **options)


@pytest.mark.parametrize("library", ["onnx", "onnxruntime"])
def test_onnx_without_its_libraries_names_the_extra(tmp_path, monkeypatch, library):
    (tmp_path / "model.onnx").touch()
    monkeypatch.setitem(sys.modules, library, None)
    with pytest.raises(ImportError, match=rf'pip install "sf2-plugin\[{library}\]"$'):
        open_backbone(tmp_path / "model.onnx")


def test_a_file_that_is_no_onnx(tmp_path):
    pytest.importorskip("onnxruntime", reason='needs pip install "sf2-plugin[onnxruntime]"')
    (tmp_path / "model.onnx").write_bytes(b"text")
    with pytest.raises(ValueError, match="not readable as ONNX"):
        open_backbone(tmp_path / "model.onnx")


def test_a_file_is_known_by_its_content(tmp_path):
    import hashlib

    (tmp_path / "a").write_bytes(b"abc")
    assert file_digest(tmp_path / "a") == hashlib.sha256(b"abc").hexdigest()


def test_a_cache_that_fills_the_disk_costs_no_embeddings(images, tmp_path, monkeypatch):
    from contextlib import contextmanager

    @contextmanager
    def full(path):
        raise OSError(28, "No space left on device")
        yield

    monkeypatch.setattr("sf2_plugin.backbones.embedding.atomic_file", full)
    with pytest.warns(UserWarning, match="cannot be written .No space left on device.") as warned:
        embedded = embed_images(Means(), images, batch_size=4, cache=tmp_path)
    assert len(warned) == 1
    np.testing.assert_array_equal(embedded, embed_images(Means(), images, batch_size=4))


@pytest.mark.parametrize(
    ("where", "prefix"),
    [("state_dict", "backbone."), ("model", "_orig_mod.module."), ("state_dict_backbone", "")],
)
def test_arcface_torchs_networks_from_other_trainers(tmp_path, arcface_torch, where, prefix):
    namespace: dict = {}
    exec(HOST, namespace)
    network = namespace["get_model"]("tiny", False, 6).eval()
    weights = {prefix + key: tensor for key, tensor in network.state_dict().items()}
    torch.save({where: {**weights, "head.weight": torch.zeros(9, 6)}}, tmp_path / "model.ckpt")
    options = dict(network="tiny", arcface_torch=arcface_torch)
    backbone = open_backbone(tmp_path / "model.ckpt", **options)
    with torch.no_grad():
        expected = network(torch.full((1, 3, 112, 112), 1.0))
    white = np.full((112, 112, 3), 255, np.uint8)
    np.testing.assert_array_equal(backbone.embed([white]), expected.numpy())
