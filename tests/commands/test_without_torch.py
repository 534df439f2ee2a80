"""Commands on faces, and on embeddings saved before, start without torch, which takes seconds."""

import subprocess
import sys

import numpy as np
import pytest

from sf2_plugin.data import read_pairs
from sf2_plugin.synthetic import write_synthetic_faces

WITHOUT = """
import sys
sys.modules["torch"] = None
from sf2_plugin.cli import main
sys.exit(main(sys.argv[1:]))
"""


@pytest.fixture(scope="module")
def faces(tmp_path_factory):
    drawn = write_synthetic_faces(
        tmp_path_factory.mktemp("drawn") / "faces", train_identities=24, images_per_identity=2,
        val_identities=8, val_images_per_identity=3, pairs_per_fold=4,
    )  # fmt: skip
    images = 2 * len(read_pairs(drawn / "val.bin").issame)
    np.save(drawn / "saved.npy", np.random.default_rng(0).normal(size=(images, 8)))
    return drawn


@pytest.mark.parametrize(
    "command",
    [
        "data check train",
        "data split train --test 4 --out set",
        "data pairs train",
        "data pack train --out records",
        "eval pairs saved.npy --pairs val.bin",
        "eval templates --help",
        "eval identify --help",
        "data audit --help",
    ],
)
def test_a_command_runs(command, faces):
    done = subprocess.run(
        [sys.executable, "-c", WITHOUT, *command.split()], cwd=faces, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
