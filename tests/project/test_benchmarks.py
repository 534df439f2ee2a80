"""The benchmark suite end to end, at a size at which its figures mean nothing."""

import json

import pytest
import torch

from benchmarks import report, suite


def test_measures_and_makes_the_page(monkeypatch, tmp_path, capsys):
    pytest.importorskip("matplotlib")
    heads = [(4, 30, 8, "float32", 1.0), (4, 30, 8, "float32", 0.5)]
    monkeypatch.setitem(suite.HEADS, "cpu", heads)
    monkeypatch.setitem(suite.GROWTH, "cpu", (4, "float32", [10, 20]))
    monkeypatch.setitem(suite.TRAINING, "cpu", [(4, 30)])
    monkeypatch.setattr(suite, "PACKAGES", {})
    folder = tmp_path / "benchmarks"
    arguments = ["--device", "cpu", "--rounds", "1", "--out", str(folder)]
    suite.main(arguments)
    (file,) = folder.iterdir()
    assert capsys.readouterr().out == f"{file} is written\n"
    figures = json.loads(file.read_text())
    assert {"machine", "versions", "commit"} < set(figures)
    assert all(row["class centers"] < 1e-5 for row in figures["precision"])
    plain, fused = figures["training"]
    assert (plain["fused"], fused["fused"]) == (False, True)

    monkeypatch.setattr(report, "DOCS", tmp_path)
    monkeypatch.setattr("sys.argv", ["report.py"])
    report.main()
    page = (tmp_path / "benchmarks.md").read_text()
    assert "### Batch 4, 30 classes, 8 dimensions, float32, 50% sampled" in page
    assert "No file here was measured on a GPU" in page
    for link in (f"benchmarks/{file.name}", f"benchmarks/{file.stem}.png"):
        assert f"({link})" in page
        assert (tmp_path / link).is_file()


def test_what_does_not_fit_has_no_figures(monkeypatch):
    def no_memory(*arguments):
        raise torch.OutOfMemoryError

    monkeypatch.setattr(suite, "_training_step", no_memory)
    rows = suite.training(torch.device("cpu"), 1)
    assert [row["ms"] for row in rows] == [None, None]


def test_what_was_measured_before_a_failure_is_kept(monkeypatch, tmp_path):
    monkeypatch.setattr(suite, "heads", lambda *arguments: ["measured"])
    monkeypatch.setattr(suite, "growth", lambda *arguments: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        suite.main(["--device", "cpu", "--out", str(tmp_path)])
    (file,) = tmp_path.iterdir()
    assert json.loads(file.read_text())["heads"] == ["measured"]
