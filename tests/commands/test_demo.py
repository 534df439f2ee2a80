"""`sf2 demo` from the command line, on a few faces for an epoch."""

import json

import pytest

from sf2_plugin.cli import main
from sf2_plugin.synthetic import write_synthetic_faces

pytest.importorskip("mmpretrain")


def test_trains_on_a_small_folder_and_prints_json_alone(tmp_path, capsys):
    faces = tmp_path / "faces"
    write_synthetic_faces(
        faces, train_identities=5, images_per_identity=3, val_identities=8, pairs_per_fold=4
    )
    out = tmp_path / "out"
    arguments = ["demo", "--faces", str(faces), "--out", str(out), "--epochs", "1", "--json"]
    assert main(arguments) == 0
    printed = capsys.readouterr()
    figures = json.loads(printed.out)
    assert "epoch 1/1  loss " in printed.err
    assert figures["faces"] == str(faces)
    for name in ("before", "after"):
        assert 0 <= figures[name]["accuracy_mean"] <= 1
    assert figures["before"]["auc"] != figures["after"]["auc"]  # It has learned something.
    for plot in ("roc", "scores"):
        assert (out / f"{plot}.png").read_bytes().startswith(b"\x89PNG")
        assert figures[plot] == str(out / f"{plot}.png")


def test_faces_without_pairs_are_refused(tmp_path, capsys):
    write_synthetic_faces(
        tmp_path, train_identities=2, images_per_identity=2, val_identities=4, pairs_per_fold=2
    )
    for pairs in ("val_pairs.txt", "val.bin"):
        (tmp_path / pairs).unlink(missing_ok=True)
    out = tmp_path / "out"
    assert main(["demo", "--faces", str(tmp_path), "--out", str(out)]) == 2
    assert "neither val_pairs.txt nor val.bin" in capsys.readouterr().err
