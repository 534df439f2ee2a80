"""What `sf2 eval` says of how faces are given to an ONNX file, and how it can be told."""

import html
import os

import numpy as np
import pytest

pytest.importorskip("PIL", reason='needs pip install "sf2-plugin[eval]"')

from sf2_plugin.data import encode_jpeg, write_pair_bin

from ..onnx_models import onnx_file


@pytest.fixture
def pairs(tmp_path):
    rng = np.random.default_rng(0)
    faces = [rng.integers(0, 255, (8, 8, 3), dtype=np.uint8) for _ in range(16)]
    write_pair_bin(tmp_path / "set.bin", [encode_jpeg(face) for face in faces], [1, 0] * 4)
    return ["--pairs", tmp_path / "set.bin", "--folds", 2]


def test_the_report_says_what_was_assumed(evaluate, tmp_path, pairs):
    pytest.importorskip("matplotlib")
    onnx_file(tmp_path / "a.onnx", normalises=False)
    onnx_file(tmp_path / "b.onnx", normalises=True)
    models = [tmp_path / "a.onnx", tmp_path / "b.onnx"]
    assumed = "(x - 127.5) / 127.5, assumed, as InsightFace's package does"
    read = "x, by the graph, which normalises"
    _, figures = evaluate("pairs", *models, *pairs, "--json", "--html", tmp_path / "page.html")
    assert {name: of["values"] for name, of in figures["inputs"].items()} == {
        "a": assumed,
        "b": read,
    }
    _, text = evaluate("pairs", *models, *pairs)
    assert f"a, its input\ninput     face: float32 (N, 3, 8, 8)\nvalues    {assumed}\n" in text
    page = html.unescape((tmp_path / "page.html").read_text())
    assert assumed in page
    assert read in page


def test_options_settle_it_for_all_or_for_one(evaluate, tmp_path, pairs):
    onnx_file(tmp_path / "a.onnx", normalises=False)
    onnx_file(tmp_path / "b.onnx", normalises=False)
    models = [tmp_path / "a.onnx", tmp_path / "b.onnx"]
    told = ["--input-mean", "0", "--input-std", "b=1,2,3", "--input-std", "255"]
    told += ["--channels", "b=bgr", "--output", "embedding"]
    _, figures = evaluate("pairs", *models, *pairs, *told, "--json")
    inputs = figures["inputs"]
    assert inputs["a"]["values"] == "x / 255, given"
    assert inputs["b"]["values"] == "x / (1, 2, 3), given"
    assert inputs["a"]["channels"] == "RGB, assumed"
    assert inputs["b"]["channels"] == "BGR, given"
    assert inputs["b"]["output"] == "embedding: 4 numbers, given"


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--channels", "c=bgr"], "no model called 'c'"),
        (["--channels", "grb"], "channels must be rgb or bgr, got 'grb'"),
        (["--input-mean", "1"], "belong together"),
        (["--input-mean", "x", "--input-std", "1"], "x"),
        (["--output", "fc1"], "no output 'fc1', but embedding"),
    ],
)
def test_options_that_do_not_fit(evaluate, tmp_path, pairs, options, message):
    onnx_file(tmp_path / "a.onnx", normalises=False)
    status, error = evaluate("pairs", tmp_path / "a.onnx", *pairs, *options)
    assert status == 2
    assert message in error


@pytest.mark.skipif(os.name == "nt", reason="a file in the folder's place")
def test_a_cache_that_cannot_be_written_is_a_warning_before_the_work(
    evaluate, tmp_path, pairs, capsys
):
    onnx_file(tmp_path / "a.onnx", normalises=False)
    (tmp_path / "cache").write_text("no folder")
    from sf2_plugin import cli

    arguments = ["eval", "pairs", tmp_path / "a.onnx", *pairs, "--cache", tmp_path / "cache"]
    assert cli.main([str(argument) for argument in arguments]) == 0
    captured = capsys.readouterr()
    assert captured.err.count("\n") == 1
    assert captured.err.startswith(
        f"sf2: warning: the cache {tmp_path / 'cache'} cannot be written"
    )
    assert "accuracy" in captured.out
