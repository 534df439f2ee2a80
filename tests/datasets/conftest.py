"""Folders of people, and the command line over them."""

import json

import numpy as np
import pytest

pytest.importorskip("PIL", reason='needs pip install "sf2-plugin[data]"')

from sf2_plugin import cli
from sf2_plugin.data import encode_jpeg
from sf2_plugin.synthetic import draw_face


@pytest.fixture
def data(capsys):
    """Runs `sf2 data COMMAND ...`: the status, and JSON where it was asked for, else text."""

    def run(*arguments):
        arguments = [str(argument) for argument in arguments]
        try:
            status = cli.main(["data", *arguments])
        except SystemExit as stopped:
            status = stopped.code
        captured = capsys.readouterr()
        if status == 2:
            assert captured.err.count("\n") == 1
            return status, captured.err
        return status, json.loads(captured.out) if "--json" in arguments else captured.out

    return run


@pytest.fixture(scope="session")
def drawn():
    """JPEG bytes of drawn faces, by person and image."""
    return {(p, i): encode_jpeg(draw_face(p, i)) for p in range(4) for i in range(3)}


@pytest.fixture
def people(tmp_path, drawn):
    """`faces/PERSON/*.jpg` of four people with three images each."""
    folder = tmp_path / "faces"
    for (person, image), content in drawn.items():
        path = folder / f"person {person}" / f"{image}.jpg"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content)
    return folder


@pytest.fixture
def named(tmp_path):
    """Makes a folder of people whose images are bytes of their own names: `{name: images}`."""

    def make(counts, folder="named"):
        for person, images in counts.items():
            (tmp_path / folder / person).mkdir(parents=True, exist_ok=True)
            for image in range(images):
                (tmp_path / folder / person / f"{image}.jpg").write_bytes(
                    f"{person}/{image}".encode()
                )
        return tmp_path / folder

    return make


@pytest.fixture
def rng():
    return np.random.default_rng(0)
