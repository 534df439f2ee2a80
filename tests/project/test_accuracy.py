"""The accuracy study end to end, at a size at which its figures mean nothing."""

import dataclasses
import json
import re
from concurrent.futures import ThreadPoolExecutor as Threads

import numpy as np
import pytest
import torch

from benchmarks import accuracy, accuracy_report
from benchmarks.face_training import LOSSES, Faces, Run, development_people, train, training_set
from benchmarks.rounded_products import rounded_products
from sf2_plugin import SphereFace2
from sf2_plugin.synthetic import write_synthetic_faces


@pytest.fixture(scope="module", autouse=True)
def small():
    """A study that asks little, in threads for processes, which would import everything anew."""
    with pytest.MonkeyPatch.context() as patch:
        for name, values in {"RATES": (0.1, 0.033), "MARGINS": (0.5,), "SCALES": (0.5,)}.items():
            patch.setattr(accuracy, name, values)
        patch.setattr(accuracy, "DYNAMICS", dict(list(accuracy.DYNAMICS.items())[:2]))
        patch.setattr(accuracy, "ProcessPoolExecutor", lambda n, mp_context, **k: Threads(n, **k))
        yield


@pytest.fixture(scope="module")
def drawn(tmp_path_factory):
    return write_synthetic_faces(
        tmp_path_factory.mktemp("drawn") / "faces",
        train_identities=12,
        images_per_identity=3,
        val_identities=8,
        val_images_per_identity=3,
        pairs_per_fold=4,
    )


@pytest.fixture(scope="module")
def runs(drawn, tmp_path_factory):
    """The folder of a study of one loss of each kind."""
    out = tmp_path_factory.mktemp("study")
    study(drawn, out)
    return out


def study(drawn, out):
    few = ["--losses", "softmax", "sf2-C", "--epochs", "1", "--seeds", "2", "--jobs", "1"]
    where = ["--faces", str(drawn), "--test", f"again={drawn}", "--out", str(out)]
    accuracy.main([*where, *few, "--parts", "clean", "dynamics"])


def written(folder):
    return {path.name: path.stat().st_mtime_ns for path in folder.glob("*.json")}


def test_a_run_is_made_once(drawn, runs):
    before = written(runs)
    # The search: two rates, and for a loss with a margin one more of it and of the scale. Of the
    # loss whose place is in doubt, twice the seeds. And two courses.
    assert len(before) == (2 + 4) + (2 + 4) + 2
    lost = sorted(before)[0]
    (runs / lost).unlink()
    study(drawn, runs)
    after = written(runs)
    assert after.keys() == before.keys()
    assert [name for name in after if after[name] != before[name]] == [lost]


def test_the_page_is_made_of_the_runs(runs, tmp_path):
    pytest.importorskip("matplotlib")
    pytest.importorskip("sklearn")
    accuracy_report.main(["--runs", str(runs), "--out", str(tmp_path)])
    page = (tmp_path / "accuracy.md").read_text()
    figures = json.loads((tmp_path / "accuracy.json").read_text())
    assert len(figures[0]["runs"]) == len(written(runs))
    assert "SphereFace2 C beats softmax: faces accuracy" in page
    assert "## 3. Labels that are wrong\n\nNot run." in page
    for plot in ("clean", "dynamics"):
        assert f"(accuracy/{plot}.png)" in page
        assert (tmp_path / "accuracy" / f"{plot}.png").is_file()
    # Again, from the figures alone.
    accuracy_report.main(["--out", str(tmp_path)])
    assert (tmp_path / "accuracy.md").read_text() == page


def test_what_was_read_stands_in_the_tables():
    page = (accuracy_report.DOCS / "accuracy.md").read_text()
    read, _, tables = page.partition("## The search")
    read = read.partition("## What came out")[2]
    numbers = re.findall(r"[+-]?\d+\.\d+", read)
    assert numbers
    assert [number for number in numbers if number not in tables] == []


def test_the_search_goes_by_what_is_asked():
    def result(run):
        return {"development": {accuracy.AREA: -run.lr, accuracy.STRICT: run.lr}}

    asked = accuracy.Study(result, ("softmax",), epochs=1, seeds=1, quick=False)
    assert asked.tuned("softmax").lr == min(accuracy.RATES)
    assert asked.tuned("softmax", by=accuracy.STRICT).lr == max(accuracy.RATES)
    [searched] = [runs for runs in accuracy.PARTS["strict search"].runs(asked) if runs]
    assert {run.lr for run in searched} == set(accuracy.RATES)


def test_every_loss_has_a_name():
    assert accuracy_report.NAMES.keys() == LOSSES.keys()


def test_faces_of_another_set_are_other_runs():
    run = Run("sf2-C", seed=1)
    assert run.name("a") != run.name("b")
    assert run.name("a") != dataclasses.replace(run, seed=2).name("a")


def test_who_is_trained_on():
    labels = np.repeat(np.arange(30), 10)
    held_out = development_people(labels)
    assert len(held_out) == 10
    known = training_set(Run("sf2-C", choosing=True), labels)
    assert known.classes == 20
    assert not np.isin(labels[known.rows], held_out).any()
    strangers = training_set(Run("sf2-C", people="known and nobody"), labels)
    assert np.isin(labels[strangers.rows[strangers.labels == -1]], held_out).all()
    assert strangers.classes == 20
    noisy = training_set(Run("sf2-C", noise=0.4), labels)
    assert np.mean(noisy.labels != labels) == pytest.approx(0.4, abs=0.08)
    few = training_set(Run("sf2-C", share=0.1), labels)
    assert few.classes == 3
    assert sorted(set(few.labels)) == [0, 1, 2]
    tailed = training_set(Run("sf2-C", tail=0.9), labels)
    counts = np.bincount(tailed.labels)
    assert sorted(counts)[-3:] == [10, 10, 10]
    assert set(counts[counts < 10]) == {1, 2}


def test_a_run_is_its_settings(runs):
    faces = Faces.load(runs / "faces")
    first, again, other = (train(Run("sf2-C", seed=n, epochs=1), faces) for n in (0, 0, 1))
    assert first["scores"] == again["scores"] != other["scores"]


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_products_are_rounded_as_on_a_gpu(dtype):
    torch.manual_seed(0)
    head = SphereFace2(20, 16)
    x, labels = torch.randn(8, 16, requires_grad=True), torch.arange(8)

    def gradients():
        return torch.autograd.grad(head(x, labels), [x, head.weight])

    exact = gradients()
    with rounded_products(torch.float32):
        torch.testing.assert_close(gradients(), exact)
    with rounded_products(dtype):
        rounded = gradients()
    for one, other in zip(rounded, exact, strict=True):
        off = (one - other).norm() / other.norm()
        assert torch.finfo(dtype).eps / 20 < off < torch.finfo(dtype).eps


def test_paired_differences():
    test = accuracy_report.paired({0: 0.5, 1: 0.7, 2: 0.9}, {0: 0.4, 1: 0.5, 2: 0.6})
    assert test["mean"] == pytest.approx(0.2)
    # Of 0.1, 0.2, 0.3: deviation 0.1, and 4.3027 is the quantile of Student's t.
    assert test["high"] == pytest.approx(0.2 + 4.3027 * 0.1 / 3**0.5, abs=1e-5)
    assert accuracy_report.verdict(test) == "not decidable"
    assert accuracy_report.verdict(accuracy_report.paired({0: 1, 1: 1.1}, {0: 0, 1: 0.1})) == "held"


@pytest.mark.parametrize(
    ("arguments", "complaint"),
    [
        (["--faces", "nowhere"], "nowhere"),
        (["--arcface-torch", "nowhere"], "holds no partial_fc_v2.py"),
    ],
)
def test_bad_input_is_one_line(arguments, complaint, tmp_path, capsys):
    with pytest.raises(SystemExit, match="2"):
        accuracy.main([*arguments, "--out", str(tmp_path / "out")])
    assert complaint in capsys.readouterr().err.splitlines()[-1]


def test_settings_are_kept_to_their_last_digit():
    settings = Run("sf2-C", share=1 / 3).settings()
    assert accuracy_report.figures_of({"settings": settings}, {})["settings"] == settings
