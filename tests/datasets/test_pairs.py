"""`sf2 data pairs`: folds that share nobody, no pair twice, hard impostors by a model."""

import itertools

import numpy as np
import pytest

from sf2_plugin.data import read_pair_bin, read_pairs
from sf2_plugin.datasets.pair_choice import _pair_of, make_pairs


def checked(pairs, labels, folds, genuine, impostor):
    """What holds of all pairs, by obvious loops."""
    length = genuine + impostor
    assert pairs.images.shape == (folds * length, 2)
    assert pairs.issame.tolist() == ([True] * genuine + [False] * impostor) * folds
    seen, people = set(), []
    for fold in range(folds):
        rows = range(fold * length, (fold + 1) * length)
        people.append({int(labels[i]) for row in rows for i in pairs.images[row]})
        for row in rows:
            a, b = pairs.images[row].tolist()
            assert a != b
            assert (labels[a] == labels[b]) == pairs.issame[row]
            assert frozenset((a, b)) not in seen
            seen.add(frozenset((a, b)))
    assert not any(first & second for first, second in itertools.combinations(people, 2))


@pytest.mark.parametrize("seed", range(3))
def test_pairs_of_people_with_different_numbers_of_images(seed):
    rng = np.random.default_rng(seed)
    labels = rng.permutation(np.repeat(np.arange(60), rng.integers(1, 9, 60)))
    checked(make_pairs(labels, folds=5, genuine=20, impostor=33, seed=seed), labels, 5, 20, 33)


def test_all_pairs_that_there_are():
    labels = np.repeat(np.arange(4), 3)
    pairs = make_pairs(labels, folds=2, genuine=6, impostor=9)
    checked(pairs, labels, 2, 6, 9)
    checked(make_pairs(labels, folds=2), labels, 2, 6, 6)
    assert pairs.as_dict(labels)["people"] == 4
    with pytest.raises(ValueError, match=r"7 genuine pairs in each of 2 folds .* from 1 to 6"):
        make_pairs(labels, folds=2, genuine=7)
    with pytest.raises(ValueError, match=r"10 impostor pairs in each of 2 folds .* from 1 to 9"):
        make_pairs(labels, folds=2, genuine=6, impostor=10)
    with pytest.raises(ValueError, match="4 people are too few for 3 folds"):
        make_pairs(labels, folds=3)


def test_nobody_fills_the_genuine_pairs():
    labels = np.concatenate([np.zeros(500, int), np.repeat(np.arange(1, 40), 3)])
    pairs = make_pairs(labels, folds=2, genuine=40, impostor=40)
    of = labels[pairs.images[pairs.issame][:, 0]]
    assert (
        np.bincount(of).max() <= 21
    )  # 19 others have three pairs each at most, and two are wanted


def test_numbers_of_pairs():
    expected = [(i, j) for j in range(1, 60) for i in range(j)]
    assert list(map(tuple, _pair_of(np.arange(len(expected))).tolist())) == expected


def test_hard_impostors_are_the_nearest(rng):
    labels = np.repeat(np.arange(12), 4)
    embeddings = rng.normal(size=(48, 5))
    pairs = make_pairs(labels, folds=2, genuine=5, impostor=10, embeddings=embeddings)
    checked(pairs, labels, 2, 5, 10)
    assert pairs.hard == 20
    unit = embeddings / np.linalg.norm(embeddings, axis=1, keepdims=True)
    cosines = unit @ unit.T
    for fold in range(2):
        rows = pairs.images[fold * 15 : fold * 15 + 15]
        people = set(labels[rows[:5]].ravel()) | set(labels[rows[5:]].ravel())
        best = {}
        for a, b in itertools.combinations(np.flatnonzero(np.isin(labels, list(people))), 2):
            if labels[a] != labels[b]:
                key = frozenset((labels[a], labels[b]))
                best[key] = max(best.get(key, (-2,)), (cosines[a, b], a, b))
        expected = sorted(best.values(), reverse=True)[:10]
        assert {frozenset(row) for row in rows[5:].tolist()} == {
            frozenset((int(a), int(b))) for _, a, b in expected
        }


def test_more_hard_impostors_than_pairs_of_people_are_drawn_evenly(rng):
    labels = np.repeat(np.arange(4), 3)
    embeddings = rng.normal(size=(12, 5))
    pairs = make_pairs(labels, folds=2, genuine=2, impostor=8, embeddings=embeddings)
    checked(pairs, labels, 2, 2, 8)
    assert pairs.hard == 2
    half = make_pairs(
        np.repeat(np.arange(20), 3), folds=2, impostor=8, embeddings=rng.normal(size=(60, 5)),
        hard=0.25,
    )  # fmt: skip
    assert half.hard == 4


@pytest.mark.parametrize("folder", ["val", "other people", "some, or; all"])
def test_both_files_are_read_back(data, people, tmp_path, folder):
    people = people.rename(people.with_name(folder))
    status, figures = data("pairs", people, "--folds", 2, "--genuine", 8, "--impostor", 4, "--json")
    assert status == 0
    assert (figures["genuine"], figures["impostor"], figures["people"]) == (8, 4, 4)
    listed = read_pairs(tmp_path / f"{folder}_pairs.txt")
    images, issame = read_pair_bin(tmp_path / f"{folder}.bin")
    assert [path.read_bytes() for path in listed.images] == images
    assert listed.issame.tolist() == issame.tolist() == ([True] * 4 + [False] * 2) * 2
    for first, second, same in zip(listed.images[::2], listed.images[1::2], issame, strict=True):
        assert (first.parent == second.parent) == same


def test_one_file_where_one_is_named(data, people, tmp_path):
    assert data("pairs", people, "--folds", 2, "--bin", tmp_path / "mine.bin")[0] == 0
    assert len(read_pairs(tmp_path / "mine.bin").issame) == 2 * 12
    assert not list(tmp_path.rglob("*.txt"))


def test_a_list_is_where_it_is_read_from(data, people, tmp_path):
    (tmp_path / "val").mkdir()  # Lists beside it are of its images.
    status, figures = data("pairs", people, "--folds", 2, "--json")
    assert status == 0
    assert figures["files"][0] == str(people / "pairs.txt")
    assert len(read_pairs(people / "pairs.txt").issame) == 2 * 12
    (tmp_path / "far").mkdir()
    for place in (tmp_path / "mine.txt", tmp_path / "far" / "mine.txt"):
        status, line = data("pairs", people, "--folds", 2, "--list", place)
        assert status == 2
        assert "would be read with the images of" in line
        assert not place.exists()
    photo = people / "person 0" / "0.jpg"
    before = photo.read_bytes()
    status, line = data("pairs", people, "--folds", 2, "--bin", photo)
    assert (status, photo.read_bytes()) == (2, before)
    assert "is not replaced: it is read" in line
    status, line = data(
        "pairs", people, "--folds", 2, "--list", people / "a", "--bin", people / "b" / ".." / "a"
    )
    assert status == 2
    assert "is to be written twice" in line
    assert not (people / "a").exists()


def test_a_model_chooses(data, people, tmp_path, rng):
    np.save(tmp_path / "saved.npy", rng.normal(size=(12, 4)))
    options = ["--folds", 2, "--model", tmp_path / "saved.npy"]
    status, figures = data("pairs", people, *options, "--genuine", 2, "--impostor", 2, "--json")
    assert (status, figures["hard_impostor"]) == (0, 2)
    np.save(tmp_path / "saved.npy", rng.normal(size=(13, 4)))
    status, line = data("pairs", people, *options)
    assert status == 2
    assert "has 13 embeddings, and the folder 12 images" in line


@pytest.mark.parametrize(
    ("options", "complaint"),
    [
        (["--folds", 3], "too few for 3 folds"),
        (["--folds", 2, "--genuine", 3], "a multiple of the 2 folds"),
        (["--folds", 2, "--genuine", 14], "7 genuine pairs"),
        (["--folds", 2, "--hard", 2], "--hard must lie between 0 and 1"),
        (["--folds", 2, "--hard", 0.5], "--hard needs --model"),
        (["--folds", 2, "--model", "nothing.onnx"], "there is no model nothing.onnx"),
        (["--folds", 2, "--model", "a", "--model", "b"], "--model must be given once"),
    ],
)
def test_bad_input_writes_nothing(data, people, tmp_path, options, complaint):
    status, line = data("pairs", people, *options)
    assert status == 2
    assert complaint in line
    assert [path.name for path in tmp_path.iterdir()] == ["faces"]
