"""Fixtures that tests of several files share."""

import json
import os
from pathlib import Path

import pytest
import torch

# Where there is no GPU, Triton's kernels are interpreted; it wants to know before its import.
if not torch.cuda.is_available():
    os.environ.setdefault("TRITON_INTERPRET", "1")

#: A folder with real faces in `data/lfw112`; the tests run on drawn ones without it.
SHARED = Path(os.environ.get("SF2_SHARED", Path(__file__).resolve().parents[2] / "shared"))
REAL_FACES = SHARED / "data" / "lfw112"


#: Files of few long tests, which begin first: two workers then end together.
LONG = ("test_from_photos.py", "test_elastic.py", "test_doctor.py")


def pytest_collection_modifyitems(items):
    items.sort(key=lambda item: item.path.name not in LONG)


@pytest.fixture(scope="session", params=["drawn", "real"])
def face_set(request, tmp_path_factory) -> Path:
    """A folder of `train/`, `val/`, `val_pairs.txt` and `val.bin`: drawn, and real where there."""
    if request.param == "real":
        if not REAL_FACES.is_dir():
            pytest.skip("real faces are not here, nor shipped")
        return REAL_FACES
    from sf2_plugin.synthetic import write_synthetic_faces

    folder = tmp_path_factory.mktemp("drawn") / "faces"
    return write_synthetic_faces(
        folder, train_identities=20, images_per_identity=4, val_identities=10, pairs_per_fold=4
    )


@pytest.fixture
def fresh_compiler():
    """torch.compile, which bears no more than some compilations of a function in a process."""
    torch._dynamo.reset()


@pytest.fixture
def one_rank():
    """torch.distributed, of this process alone."""
    distributed = torch.distributed
    distributed.init_process_group("gloo", store=distributed.HashStore(), rank=0, world_size=1)
    yield
    distributed.destroy_process_group()


@pytest.fixture
def evaluate(capsys, tmp_path):
    """Runs `sf2 eval COMMAND ...`, with a cache of the test's own."""
    from sf2_plugin import cli

    def run(*arguments):
        """The status, and what was printed: JSON where it was asked for, else text."""
        arguments = [str(argument) for argument in arguments]
        status = cli.main(["eval", *arguments, "--cache", str(tmp_path / "cache")])
        captured = capsys.readouterr()
        if status:
            assert captured.err.count("\n") == 1
            return status, captured.err
        return status, json.loads(captured.out) if "--json" in arguments else captured.out

    return run
