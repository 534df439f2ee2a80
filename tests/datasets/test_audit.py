"""`sf2 data audit`: moved labels are found, and how many is said before anybody knows."""

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

pytest.importorskip("sklearn", reason='needs pip install "sf2-plugin[eval]"')

from sf2_plugin.datasets.audit import audit_labels
from sf2_plugin.evaluation import Calibration

ROOT = Path(__file__).parents[2]


def faces(rng, people=60, images=8, spread=1.0, dimensions=16):
    """Embeddings around centers, and their people."""
    labels = np.repeat(np.arange(people), images)
    centers = rng.normal(size=(people, dimensions))
    return centers[labels] + spread * rng.normal(size=(len(labels), dimensions)), labels


def moved(rng, labels, share):
    """Labels of which a share is another person's, and which."""
    wrong = np.zeros(len(labels), bool)
    wrong[rng.choice(len(labels), round(share * len(labels)), replace=False)] = True
    other = (labels + rng.integers(1, labels.max() + 1, len(labels))) % (labels.max() + 1)
    return np.where(wrong, other, labels), wrong


def test_cosines_are_those_of_obvious_loops(rng):
    embeddings, labels = faces(rng, people=7, images=4)
    labels[0] = 7  # A person of one image.
    audit = audit_labels(embeddings, labels)
    directions = embeddings / np.linalg.norm(embeddings, axis=1, keepdims=True)

    def cosine(i, person):
        rest = [directions[j] for j in range(len(labels)) if labels[j] == person and j != i]
        mean = np.sum(rest, axis=0)
        return directions[i] @ mean / np.linalg.norm(mean)

    for i, label in enumerate(labels):
        others = {person: cosine(i, person) for person in range(8) if person != label}
        assert audit.other[i] == pytest.approx(max(others.values()))
        assert audit.nearest[i] == max(others, key=others.__getitem__)
        if i:
            assert audit.own[i] == pytest.approx(cosine(i, label))
    assert audit.judged.tolist() == [False] + [True] * 27


@pytest.mark.parametrize("share", [0.1, 0.3])
@pytest.mark.parametrize("seed", [0, 1])
def test_moved_labels_are_found_and_counted(share, seed):
    rng = np.random.default_rng(seed)
    embeddings, labels = faces(rng, people=120, dimensions=32)
    labels, wrong = moved(rng, labels, share)
    audit = audit_labels(embeddings, labels)
    assert audit.share == pytest.approx(share, abs=0.04)
    listed = audit.listed()
    precision, recall = wrong[listed].mean(), wrong[listed].sum() / wrong.sum()
    assert precision > 0.9
    assert recall > 0.9
    figures = audit.as_dict(0.5)
    assert figures["listed"] == len(listed)
    assert figures["expected_precision"] == pytest.approx(precision, abs=0.2)
    # The worst come first, and a lower bound lists them and more.
    assert wrong[listed[: len(listed) // 2]].mean() >= precision - 0.02
    more = audit.listed(0.1)
    assert set(listed.tolist()) < set(more.tolist())


def test_good_labels_are_left_alone(rng):
    embeddings, labels = faces(rng, spread=0.7)
    audit = audit_labels(embeddings, labels)
    assert audit.share < 0.02
    assert len(audit.listed()) <= 2


def test_no_chance_no_list(rng):
    """Embeddings that say nothing find nothing, however many labels are wrong."""
    embeddings = rng.normal(size=(400, 16))
    audit = audit_labels(embeddings, np.arange(400) % 50)
    assert audit.share > 0.8  # All of them look drawn at random ...
    assert np.ptp(audit.wrong) < 0.6  # ... and none worse than another by much.


@pytest.mark.parametrize("labels", [[0, 0, 0, 0], [0, 1, 2, 3]])
def test_nothing_to_compare_with(rng, labels):
    with pytest.raises(ValueError, match="nothing to compare a label with"):
        audit_labels(rng.normal(size=(4, 3)), np.array(labels))


@pytest.fixture
def folder(named, tmp_path, rng):
    """A folder of 30 people, with a label moved, and a file of embeddings."""
    embeddings, labels = faces(rng, people=30, images=6, spread=0.4)
    out = named({f"p{person:02d}": 6 for person in range(30)})
    (out / "p03" / "2.jpg").rename(out / "p17" / "x.jpg")
    names = [f"p{label:02d}/{i % 6}.jpg" for i, label in enumerate(labels)]
    names[3 * 6 + 2] = "p17/x.jpg"
    np.save(tmp_path / "saved.npy", embeddings[np.argsort(names)])
    return out, tmp_path / "saved.npy"


def test_the_command_names_the_label_and_whose_it_may_be(data, folder):
    faces, saved = folder
    status, found = data("audit", saved, faces, "--json")
    assert status == 0
    assert (found["images"], found["people"], found["judged"]) == (180, 30, 180)
    (label,) = found["labels"]
    assert label["image"] == "p17/x.jpg"
    assert (label["person"], label["looks_like"]) == ("p17", "p03")
    assert label["wrong"] > 0.5
    assert "probability_person" not in label

    Calibration(40.0, 3.0, -2.0).save(saved.with_name("saved.npy.calibration.json"))
    (label,) = data("audit", saved, faces, "--json")[1]["labels"]
    assert label["probability_person"] < 0.1
    assert label["probability_looks_like"] > 0.9
    _, text = data("audit", saved, faces)
    assert "1 listed, " in text
    assert "p17/x.jpg: wrong with " in text
    assert "looks like p03 (probability " in text


def test_bad_input(data, folder, tmp_path):
    faces, saved = folder
    np.save(tmp_path / "few.npy", np.ones((3, 2)))
    for arguments, complaint in (
        ([saved, faces, "--probability", 0], "--probability must lie above 0"),
        ([tmp_path / "none.onnx", faces], "there is no model"),
        ([saved, tmp_path / "none"], "there is no folder"),
        ([tmp_path / "few.npy", faces], "has 3 embeddings, and the folder 180 images"),
    ):
        status, line = data("audit", *arguments)
        assert status == 2
        assert complaint in line


def test_labels_moved_on_purpose(named, tmp_path):
    """The benchmark moves as many as it is told to, and counts what was found."""
    faces = named({f"p{person}": 5 for person in range(8)})
    script, out = ROOT / "benchmarks" / "label_noise.py", tmp_path / "out"
    run = [sys.executable, str(script)]
    subprocess.run([*run, "move", str(faces), str(out), "--share", "0.25"], check=True)
    places = sorted(out.rglob("*.jpg"))
    strange = [
        path for path in places if path.read_bytes().split(b"/")[0] != path.parent.name.encode()
    ]
    moved = json.loads((out / "moved.json").read_text())
    assert sorted(moved) == [path.relative_to(out).as_posix() for path in strange]
    assert len(places) == 40
    assert len(moved) == 10
    labels = [{"image": moved[0]}, {"image": moved[1]}, {"image": "p0/9.jpg"}]
    (tmp_path / "audit.json").write_text(json.dumps({"labels": labels}))
    scored = [*run, "score", str(out), str(tmp_path / "audit.json")]
    figures = json.loads(subprocess.run(scored, check=True, capture_output=True).stdout)
    assert figures == {"precision": 2 / 3, "recall": 0.2, "moved": 10}
