"""docs/from_photos.md is one script, and runs as it stands: from photos to a probability."""

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from sf2_plugin.data.alignment import TEMPLATE
from sf2_plugin.synthetic import write_synthetic_faces

from .ranks import free_port, rank_variables

for library in ("mmpretrain", "insightface", "onnxruntime", "easydict"):
    pytest.importorskip(library)

PAGE = Path(__file__).parents[1] / "docs" / "from_photos.md"
STAND_IN = Path(__file__).parent / "integrations" / "arcface_torch_stand_in"
PEOPLE, IMAGES = 36, 4


def script():
    return "\n".join(re.findall(r"^```bash\n(.*?)^```$", PAGE.read_text(), re.M | re.S))


def test_the_page_is_a_script_that_leads_from_photos_to_a_probability(tmp_path):
    drawn = write_synthetic_faces(
        tmp_path / "drawn", train_identities=PEOPLE, images_per_identity=IMAGES,
        val_identities=2, val_images_per_identity=3, pairs_per_fold=2, folds=2,
    )  # fmt: skip
    photos = tmp_path / "photos"
    (drawn / "train").rename(photos)
    points = ",".join(f"{value:.2f}" for value in TEMPLATE.ravel())
    names = [photo.relative_to(photos).as_posix() for photo in sorted(photos.rglob("*.jpg"))]
    (tmp_path / "landmarks.csv").write_text("".join(f"{name},{points}\n" for name in names))
    shutil.copytree(STAND_IN, tmp_path / "host")
    done = subprocess.run(
        ["bash", "-c", script()],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        env={
            **os.environ,
            "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}",
            "ARCFACE_TORCH": str(tmp_path / "host"),
            "XDG_CACHE_HOME": str(tmp_path / "cache"),
            "OMP_NUM_THREADS": "1",
            **dict(DEVICE="cpu", EPOCHS="1", PEOPLE="20"),
            # Alone, the host takes a fixed port, which two runs cannot share.
            **rank_variables(0, 1, free_port()),
        },
    )
    assert done.returncode == 0, (done.stdout + done.stderr)[-3000:]
    assert re.search(r"insightface opens it: \(1, 256\)", done.stdout)
    found = re.search(r"0\.jpg and \S+1\.jpg, same person: (\d+) %", done.stdout)
    assert found
    assert 0 <= int(found[1]) <= 100
    assert re.search(r"^theirs on unseen$", done.stdout, re.M)
    assert "In short" in (tmp_path / "report.html").read_text()
    for name in ("recognition.onnx", "calibration.json", "manifest.json", "README.md"):
        assert (tmp_path / "my_model" / name).is_file()
