"""`sf2 bench memory`: the bytes on paper next to those that a step took."""

import json

import pytest

from sf2_plugin.bench.rank_memory import measured_memory, rank_memory
from sf2_plugin.cli import main


@pytest.mark.parametrize(
    ("optimizer", "sample_rate"),
    [
        ("sgd", 1.0),
        ("sgd", 0.3),
        ("fused-sgd", 1.0),
        ("fused-sgd", 0.3),
        ("adamw", 1.0),
        ("adamw", 0.3),
    ],
)
@pytest.mark.parametrize(("num_classes", "ranks"), [(20_001, 1), (30_001, 3)])
def test_the_paper_agrees_with_what_is_measured(num_classes, ranks, sample_rate, optimizer):
    shape = dict(ranks=ranks, batch=64, sample_rate=sample_rate, optimizer=optimizer)
    on_paper = rank_memory(num_classes, 128, device="cpu", **shape)
    assert measured_memory(num_classes, 128, **shape) == pytest.approx(on_paper["peak"], rel=0.03)
    kept = {"sgd": 1, "fused-sgd": 1, "adamw": 2}[optimizer]
    classes = -(-num_classes // ranks)
    assert on_paper["centers"] == 4 * 128 * classes
    counts = 4 * classes if (optimizer, sample_rate) == ("fused-sgd", 0.3) else 0
    assert on_paper["optimizer"] == kept * on_paper["centers"] + counts


def test_ten_million_classes_over_eight_ranks(capsys):
    assert main(["bench", "memory", "--classes", "10000000", "--ranks", "8", "--json"]) == 0
    rows = json.loads(capsys.readouterr().out)["bytes_by_ranks"]
    assert list(rows) == ["1", "2", "4", "8"]
    assert rows["8"]["centers"] == 10_000_000 // 8 * 512 * 4
    assert rows["1"]["centers"] == 8 * rows["8"]["centers"]
    # Four tensors of the centers' size with SGD, and what a step needs whatever the classes.
    assert rows["8"]["peak"] == 4 * rows["8"]["centers"]
    assert rows["1"]["step"] == rows["8"]["step"]


def test_what_a_rank_receives(capsys):
    assert (
        main(
            [
                "bench",
                "memory",
                "--classes",
                "10",
                "--dim",
                "6",
                "--batch",
                "12",
                "--ranks",
                "3",
                "--json",
            ]
        )
        == 0
    )
    received = json.loads(capsys.readouterr().out)["bytes_received_by_ranks"]
    # Eight faces of the others, twice their six numbers and a label; six whole numbers a rank.
    assert received["3"] == 8 * (2 * 6 * 4 + 8) + 2 * 6 * 8
    assert received["1"] == 0


def test_prints_a_table(capsys):
    arguments = "--classes 300 --dim 8 --ranks 3 --batch 4 --measure"
    assert main(["bench", "memory", *arguments.split()]) == 0
    head, columns, *rows = capsys.readouterr().out.splitlines()
    assert head.startswith("300 classes of size 8, batch 4")
    assert columns.split()[-2:] == ["measured", "peak"]
    assert [row.split()[0] for row in rows] == ["1", "2", "3"]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ("--sample-rate 1.5", "sample_rate must be a number from 0 to 1, got 1.5"),
        ("--ranks 0", "must be a whole number of at least 1"),
        ("--measure --device cuda", "a step is measured on a CPU alone"),
    ],
)
def test_what_cannot_be_is_refused(arguments, message, capsys):
    try:
        code = main(f"bench memory --classes 10 {arguments}".split())
    except SystemExit as error:
        code = error.code
    assert code == 2
    assert message in capsys.readouterr().err
