"""The benchmark suite end to end, at a size at which its figures mean nothing."""

import json

import pytest
import torch

from benchmarks import report, suite
from sf2_plugin.compat import OutOfMemoryError


def test_measures_and_makes_the_page(monkeypatch, tmp_path, capsys):
    pytest.importorskip("matplotlib")
    heads = [(4, 30, "float32", 1.0), (4, 30, "float32", 0.5), (4, 31, "float32", 1.0)]
    monkeypatch.setitem(suite.HEADS, "cpu", heads)
    monkeypatch.setitem(suite.BACKEND_SHAPES, "cpu", [(4, 30, "float32")])
    monkeypatch.setitem(suite.GROWTH, "cpu", (4, "float32", [10, 20]))
    monkeypatch.setitem(suite.TRAINING, "cpu", [(4, 30)])
    monkeypatch.setattr(suite, "PACKAGES", {})
    folder = tmp_path / "benchmarks"
    arguments = ["--device", "cpu", "--rounds", "1", "--max-classes", "30", "--commit", "abc"]
    suite.main([*arguments, "--out", str(folder)])
    (file,) = folder.iterdir()
    assert capsys.readouterr().out == f"{file} is written\n"
    figures = json.loads(file.read_text())
    assert {"machine", "versions"} < set(figures)
    assert (figures["commit"], figures["unmeasured"]) == ("abc", [])
    assert [row["sample_rate"] for row in figures["heads"]] == [1.0, 0.5]
    for row in figures["heads"]:
        assert row["floor_ms"] == min(row["floor_whole_ms"], row["floor_by_chunks_ms"])
    assert [row["backend"] for row in figures["backends"]] == ["chunked"]
    assert {row["chunk_size"] for row in figures["chunks"]} == {15, 30}
    assert all(row["class centers"] < 1e-5 for row in figures["precision"])
    plain, fused = figures["training"]
    assert (plain["fused"], fused["fused"]) == (False, True)

    monkeypatch.setattr(report, "DOCS", tmp_path)
    monkeypatch.setattr("sys.argv", ["report.py"])
    report.main()
    page = (tmp_path / "benchmarks.md").read_text()
    assert "### Batch 4, 30 classes, 512 dimensions, float32, 50% sampled" in page
    assert "No file here was measured on a GPU" in page
    for link in (f"benchmarks/{file.name}", f"benchmarks/{file.stem}.png"):
        assert f"({link})" in page
        assert (tmp_path / link).is_file()


def test_what_does_not_fit_has_no_figures(monkeypatch):
    def no_memory(*arguments):
        raise OutOfMemoryError

    monkeypatch.setattr(suite, "_training_step", no_memory)
    monkeypatch.setitem(suite.TRAINING, "cpu", [(4, 30)])
    rows = [row() for row in suite.training(suite.Suite(torch.device("cpu"), [], 1, 30))]
    assert [row["ms"] for row in rows] == [None, None]


@pytest.mark.parametrize(
    ("options", "unmeasured"),
    [
        ([], "growth, row 2: ZeroDivisionError: division by zero"),
        (["--minutes", "1e-9"], "heads from row 1 on: no time was left"),
    ],
)
def test_what_fails_takes_nothing_else_away(monkeypatch, tmp_path, options, unmeasured):
    monkeypatch.setattr(
        suite, "SECTIONS", {name: lambda suite: iter(()) for name in suite.SECTIONS}
    )
    monkeypatch.setitem(suite.SECTIONS, "heads", lambda suite: iter([lambda: {"ms": 1}]))
    growth = [lambda: {"ms": 2}, lambda: 1 / 0, lambda: {"ms": 3}]
    monkeypatch.setitem(suite.SECTIONS, "growth", lambda suite: iter(growth))
    with pytest.raises(SystemExit, match=unmeasured):
        suite.main(["--device", "cpu", "--out", str(tmp_path), *options])
    (file,) = tmp_path.iterdir()
    figures = json.loads(file.read_text())
    assert unmeasured in figures["unmeasured"]
    assert figures["growth"] == ([] if options else [{"ms": 2}, {"ms": 3}])
