"""`sf2 bench head`: what it measures and what it refuses; no figure of time is judged here."""

import json
import os
import sys
from pathlib import Path

import pytest
import torch

from benchmarks.suite import PEER_FOLDERS, available_peers
from sf2_plugin import cli
from sf2_plugin.bench.head_timing import measure_head
from sf2_plugin.bench.measure import interleaved_medians, peak_memory
from sf2_plugin.bench.peers import Shape, built_peer, parse_peers
from sf2_plugin.commands.bench import table
from sf2_plugin.compat import OutOfMemoryError

HOSTS = os.environ.get("SF2_HOSTS")
CPU = torch.device("cpu")


@pytest.fixture(params=["opensphere", "wespeaker", "arcface_torch"])
def checkout(request):
    """``NAME=PATH`` of a peer's checkout; the test skips where it is absent."""
    if HOSTS is None:
        pytest.skip("SF2_HOSTS does not name a folder with other projects' checkouts")
    path = Path(HOSTS) / PEER_FOLDERS[request.param]
    return f"{request.param}={path}"


@pytest.fixture(params=["pytorch-metric-learning", "mmpretrain"])
def package(request):
    """A peer's name; the test skips where it is not installed."""
    pytest.importorskip(request.param.replace("-", "_"))
    return request.param


def assert_measured_and_learning(peer):
    name = peer.partition("=")[0]
    figures = measure_head(5, 30, 4, rounds=1, peers=[peer])
    row = figures["peers"][name]
    assert row["speedup"] > 0
    assert row["ratio"] > 0
    # All cosines and their gradient at once.
    assert row["peak_extra_mb"] * 2**20 >= 2 * 5 * 30 * 4

    torch.manual_seed(0)
    x, labels = torch.randn(5, 4, requires_grad=True), torch.arange(5)
    with built_peer(name, parse_peers([peer])[name], Shape(30, 4), CPU) as head:
        optimizer = torch.optim.SGD([x, *head.module.parameters()], lr=0.01)
        first = head.loss(x, labels)
        first.backward()
        optimizer.step()
        assert head.loss(x, labels) < first


def test_a_checkout_is_measured_as_it_is(checkout):
    folder = Path(checkout.partition("=")[2])
    before = sorted(folder.rglob("*"))
    assert_measured_and_learning(checkout)
    assert sorted(folder.rglob("*")) == before
    assert not torch.distributed.is_initialized()


def test_a_package_is_measured(package):
    assert_measured_and_learning(package)


def test_sampled_classes_are_measured_against_their_own_products(checkout):
    figures = measure_head(5, 300, 4, rounds=1, sample_rate=0.1, peers=[checkout])
    assert figures["sample_rate"] == 0.1
    assert "sample_rate=0.1" in figures["head"]
    (peer,) = figures["peers"].values()
    assert peer["speedup"] > 0


def test_a_head_that_does_not_fit_has_no_figures(monkeypatch):
    def no_memory(head, embeddings, labels):
        raise OutOfMemoryError

    monkeypatch.setattr("sf2_plugin.SphereFace2.forward", no_memory)
    figures = measure_head(4, 20, 3, rounds=1)
    assert figures["head_ms"] is figures["ratio"] is figures["peak_extra_mb"] is None
    assert figures["floor_ms"] > 0
    assert table(figures).splitlines()[-1].split("  ")[0] == "this head"
    assert table(figures).endswith("out of memory")


def test_prints_figures_as_json(capsys):
    arguments = "bench head --batch 4 --classes 20 --dim 3 --rounds 1 --device cpu --json"
    assert cli.main(arguments.split()) == 0
    printed = capsys.readouterr()
    figures = json.loads(printed.out)
    assert printed.err == ""  # No bar where there is no terminal.
    assert figures["ratio"] == figures["head_ms"] / figures["floor_ms"]
    assert (figures["batch"], figures["classes"], figures["dim"]) == (4, 20, 3)
    assert (figures["dtype"], figures["device"]) == ("float32", "cpu")
    assert figures["threads"] == torch.get_num_threads()
    assert figures["versions"]["torch"] == torch.__version__
    assert figures["machine"]["cores"] == os.cpu_count()
    assert figures["peers"] == {}


def test_prints_a_table(capsys):
    figures = measure_head(4, 20, 3, rounds=1, device="cpu")
    lines = table(figures).splitlines()
    assert lines[0].startswith("batch 4, 20 classes, dim 3, float32, cpu")
    assert [line.partition("  ")[0] for line in lines[2:]] == [
        "floor: 3 matrix products",
        "this head",
    ]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (
            "--peer softmax",
            "peer must be one of opensphere, wespeaker, arcface_torch, arcface_torch_fp16, ",
        ),
        ("--peer opensphere", "peer opensphere is a checkout: give --peer opensphere=PATH"),
        ("--peer opensphere=/nowhere", "no opensphere/module/head/sphereface2.py under /nowhere"),
        ("--peer arcface_torch=/nowhere", "peer arcface_torch: no partial_fc_v2.py under /nowhere"),
        ("--peer mmpretrain=/nowhere", "peer mmpretrain is an installed package"),
        ("--backend cuda", "backend must be one of"),
        ("--device cpu --dtype bfloat16", "dtype must be float32 on a CPU"),
        ("--sample-rate 2", "sample_rate must be a number from 0 to 1, got 2.0"),
        ("--device cuda", "device cuda is not available here"),
    ],
)
def test_bad_input_is_one_line(capsys, arguments, message):
    if "--device cuda" in arguments and torch.cuda.is_available():
        pytest.skip("there is a GPU here")
    shape = "--batch 2 --classes 5 --dim 2 --rounds 1 "
    assert cli.main(["bench", "head", *(shape + arguments).split()]) == 2
    error = capsys.readouterr().err
    assert error.startswith("sf2: error: ")
    assert error.count("\n") == 1
    assert message in error


def test_a_missing_package_is_named(monkeypatch):
    monkeypatch.setitem(sys.modules, "pytorch_metric_learning.losses", None)
    with pytest.raises(ImportError, match=r"pip install \"sf2-plugin\[bench\]\""):
        parse_peers(["pytorch-metric-learning"])


def test_peak_memory_counts_what_is_held_at_once():
    kept = {}

    def step():
        a = torch.empty(100)
        b = torch.empty(2000)
        del a
        kept["c"] = torch.empty(500)  # Replaces, and frees, what the step before has left.
        del b

    # The c of the step before was there at the start.
    assert peak_memory(step, CPU) == 4 * (2000 + 500)


def test_rounds_are_interleaved_and_the_first_is_not_counted():
    calls, reported = [], []
    steps = {name: lambda name=name: calls.append(name) for name in ("a", "b")}
    times = interleaved_medians(steps, 2, CPU, lambda done, total: reported.append((done, total)))
    assert calls == ["a", "b"] * 3
    assert reported[-1] == (6, 6)
    assert set(times) == {"a", "b"}


def test_the_suite_finds_the_peers_there_are(tmp_path):
    (tmp_path / "opensphere").mkdir()
    (tmp_path / PEER_FOLDERS["arcface_torch"]).mkdir(parents=True)
    found = available_peers(tmp_path, CPU)
    names = ("opensphere", "arcface_torch")
    wanted = [f"{name}={tmp_path / PEER_FOLDERS[name]}" for name in names]
    assert found[:2] == wanted
    assert not any("=" in peer for peer in found[2:])
    on_a_gpu = available_peers(tmp_path, torch.device("cuda"))
    assert [p.partition("=")[0] for p in on_a_gpu[1:3]] == ["arcface_torch", "arcface_torch_fp16"]
