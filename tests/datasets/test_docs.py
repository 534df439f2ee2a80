"""The commands of docs/data.md run, one after another, as they stand there."""

import shlex
from pathlib import Path

import pytest

from sf2_plugin.data import decode_image, encode_jpeg
from sf2_plugin.data.alignment import TEMPLATE
from sf2_plugin.synthetic import draw_face

from ..onnx_models import detector_file, onnx_file

PAGE = Path(__file__).parents[2] / "docs" / "data.md"
PEOPLE, IMAGES = 24, 4


@pytest.fixture
def reader(tmp_path, monkeypatch):
    """The folder of somebody who has photos, landmarks, a detector and a backbone."""
    pytest.importorskip("onnxruntime")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    for person in range(PEOPLE):
        (tmp_path / "photos" / f"person_{person}").mkdir(parents=True)
        for image in range(IMAGES):
            path = tmp_path / "photos" / f"person_{person}" / f"{image}.jpg"
            path.write_bytes(encode_jpeg(draw_face(person, image)))
    points = ",".join(f"{value:.2f}" for value in TEMPLATE.ravel())
    photos = sorted((tmp_path / "photos").rglob("*.jpg"))
    names = [photo.relative_to(tmp_path / "photos").as_posix() for photo in photos]
    (tmp_path / "landmarks.csv").write_text("".join(f"{name},{points}\n" for name in names))
    detector_file(tmp_path / "det_10g.onnx", [(0.9, (10, 10, 100, 110), TEMPLATE)], size=112)
    onnx_file(tmp_path / "backbone.onnx", normalises=True)
    return tmp_path


def commands():
    lines = PAGE.read_text().splitlines()
    return [shlex.split(line)[2:] for line in lines if line.startswith("$ ")]


def test_the_page_runs(data, reader):
    for _, *arguments in commands():
        if "--detector" in arguments:
            try:
                import insightface  # noqa: F401
            except ImportError:  # Landmarks give the same faces.
                place = arguments.index("--detector")
                arguments[place : place + 2] = ["--landmarks", "landmarks.csv"]
        share = arguments.index("--test") if "--test" in arguments else None
        if share:  # So few people make no ten folds of a tenth of them.
            arguments[share + 1] = "20"
        status, said = data(*arguments)
        assert status == 0, said
    assert sorted(path.name for path in (reader / "set").iterdir()) == [
        "records", "train", "val", "val.bin", "val_pairs.txt",
    ]  # fmt: skip
    assert len((reader / "hard.txt").read_text().splitlines()) == 120
    assert len(list((reader / "unpacked").rglob("*.png"))) == 4 * IMAGES
    face = next((reader / "faces").rglob("*.png"))
    assert decode_image(face).shape == (112, 112, 3)
