"""Identification against a loop over searches."""

import dataclasses
import json
import re

import numpy as np
import pytest

from sf2_plugin.evaluation import identification as module
from sf2_plugin.evaluation import identify


def made_up_searches(seed: int = 0, people: int = 12, enrolled: int = 20, probes: int = 150):
    """A gallery of `people`, some enrolled more than once; a third of the probes are strangers."""
    rng = np.random.default_rng(seed)
    faces = rng.normal(size=(people + people // 2, 6))
    ids = rng.permutation(1000)[: len(faces)] - 500
    gallery = np.concatenate([np.arange(people), rng.integers(0, people, enrolled - people)])
    probe = rng.integers(0, len(faces), probes)
    return (
        faces[gallery] + 0.8 * rng.normal(size=(enrolled, 6)),
        ids[gallery],
        faces[probe] + 0.8 * rng.normal(size=(probes, 6)),
        ids[probe],
    )


def searched_by_loops(gallery, gallery_ids, probes, probe_ids):
    """Mated searches as (probe, rank, mate, its score, rival, its score), and strangers' scores."""
    mated, nonmate_scores = [], []
    for i, (probe, who) in enumerate(zip(probes, probe_ids, strict=True)):
        best: dict = {}
        for row, (face, person) in enumerate(zip(gallery, gallery_ids, strict=True)):
            cosine = probe @ face / np.linalg.norm(probe) / np.linalg.norm(face)
            best[person] = max((cosine, row), best.get(person, (-2.0, -1)))
        if who not in best:
            nonmate_scores.append(max(best.values())[0])
            continue
        score, mate = best.pop(who)
        rival_score, rival = max(best.values(), default=(-np.inf, -1))
        rank = 1 + sum(other >= score for other, _ in best.values())
        mated.append((i, rank, mate, score, rival, rival_score))
    return [np.array(column) for column in zip(*mated, strict=True)], np.array(nonmate_scores)


@pytest.mark.parametrize("seed", range(3))
def test_ranks_and_open_set_rates_are_those_of_single_searches(monkeypatch, seed):
    monkeypatch.setattr(module, "CHUNK_ROWS", 17)
    searches = made_up_searches(seed)
    report = identify(*searches, fpir_targets=(0.03, 0.2))
    (mated, ranks, mates, mate_scores, rivals, rival_scores), nonmates = searched_by_loops(
        *searches
    )
    assert len(set(ranks)) > 3
    np.testing.assert_array_equal(report.mated, mated)
    np.testing.assert_array_equal(report.ranks, ranks)
    np.testing.assert_array_equal(report.mates, mates)
    np.testing.assert_array_equal(report.rivals, rivals)
    np.testing.assert_allclose(report.mate_scores, mate_scores, rtol=0, atol=1e-14)
    np.testing.assert_allclose(report.rival_scores, rival_scores, rtol=0, atol=1e-14)
    np.testing.assert_allclose(report.nonmate_scores, nonmates, rtol=0, atol=1e-14)
    assert report.identities == 12
    for k in range(1, 13):
        assert report.cmc[k - 1] == pytest.approx(np.mean(ranks <= k), abs=1e-15)
    for rank in (1, 5, 10):
        assert report.rank_accuracy(rank) == report.cmc[rank - 1]
    for target, rate in report.tpir_at_fpir.items():
        thresholds = [*report.mate_scores, *report.nonmate_scores]
        within = [t for t in thresholds if np.mean(report.nonmate_scores >= t) <= target]
        assert rate is not None
        assert rate.tar == max(np.mean(report.mate_scores >= t) for t in within)
        assert rate.far == np.mean(report.nonmate_scores >= rate.threshold) <= target


def test_strings_name_people_as_well():
    gallery, gallery_ids, probes, probe_ids = made_up_searches()
    report = identify(gallery, gallery_ids.astype(str), probes, probe_ids.astype(str))
    expected = identify(gallery, gallery_ids, probes, probe_ids)
    np.testing.assert_array_equal(report.ranks, expected.ranks)
    assert report.tpir_at_fpir == expected.tpir_at_fpir


def test_a_collapsed_backbone_finds_nobody():
    """Where all faces are alike the right person is no better placed than any other."""
    report = identify(np.ones((30, 4)), np.arange(30), np.ones((5, 4)), np.arange(5))
    np.testing.assert_array_equal(report.ranks, 30)
    assert [report.rank_accuracy(rank) for rank in (1, 5, 10)] == [0, 0, 0]


def test_a_gallery_of_one_person_has_no_rivals():
    report = identify([[1.0, 0.1], [1.0, 0.0]], ["a", "a"], [[1.0, 0.0]], ["a"])
    assert (report.mates.tolist(), report.ranks.tolist()) == ([1], [1])
    assert report.rival_scores.tolist() == [-np.inf]


def test_without_strangers_there_are_no_open_set_figures():
    gallery, gallery_ids, probes, probe_ids = made_up_searches()
    known = np.isin(probe_ids, gallery_ids)
    report = identify(gallery, gallery_ids, probes[known], probe_ids[known])
    assert report.roc is None
    assert report.tpir_at_fpir == {0.01: None, 0.1: None}
    assert report.as_dict()["tpir_at_fpir_0.01"] is None
    assert re.search("TPIR@FPIR=0.01 +not measurable: too few non-mated searches", str(report))


def test_figures_beyond_gallery_or_strangers_are_not_measurable():
    gallery, gallery_ids, probes, probe_ids = made_up_searches(people=4, enrolled=5, probes=60)
    report = identify(gallery, gallery_ids, probes, probe_ids)
    assert report.rank_accuracy(3) is not None
    assert report.rank_accuracy(4) is None
    assert report.tpir_at_fpir[0.01] is None
    assert report.tpir_at_fpir[0.1] is not None
    figures = report.as_dict()
    assert json.loads(json.dumps(figures)) == figures
    assert figures["rank_1"] == report.cmc[0]
    assert (figures["rank_5"], figures["rank_10"]) == (None, None)
    assert re.search("rank-5 +not measurable: too few identities", str(report))
    assert str(report).count("too few identities") == 2
    with pytest.raises(dataclasses.FrozenInstanceError):
        report.roc = None
    with pytest.raises(ValueError, match="rank must be at least 1"):
        report.rank_accuracy(0)


GALLERY, GALLERY_IDS, PROBES, PROBE_IDS = made_up_searches()


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"gallery": np.full((20, 6), np.nan)}, "gallery must be finite: NaN or inf in row 0"),
        ({"probes": np.zeros((150, 6))}, "probes must have a direction: all zero in row 0"),
        ({"probes": PROBES[:, :5]}, "the same dimensions, not 6 and 5"),
        ({"gallery_ids": GALLERY_IDS[1:]}, "gallery_ids must be (20,), one for each of gallery"),
        ({"probe_ids": PROBE_IDS[1:]}, "probe_ids must be (150,), one for each of probes"),
        ({"probe_ids": PROBE_IDS + 5000}, "none of the 18 people in probe_ids is in gallery_ids"),
        ({"fpir_targets": (1.5,)}, "fpir_targets must lie between 0 and 1"),
    ],
)
def test_bad_input_is_refused_in_one_line(changed, message):
    good = {
        "gallery": GALLERY,
        "gallery_ids": GALLERY_IDS,
        "probes": PROBES,
        "probe_ids": PROBE_IDS,
    }
    with pytest.raises(ValueError, match=r".+") as error:
        identify(**{**good, **changed})
    assert message in str(error.value)
    assert "\n" not in str(error.value)


def test_ids_of_two_kinds_are_refused():
    with pytest.raises(TypeError, match="gallery_ids and probe_ids must be of one kind"):
        identify(GALLERY, GALLERY_IDS, PROBES, PROBE_IDS.astype(str))


@pytest.mark.parametrize("dtype", [np.float64, np.float32])
@pytest.mark.parametrize("dimensions", [2, 37, 512])
def test_one_direction_ties_whatever_the_length(dtype, dimensions):
    """The direction of the mate is that of 302 others; and a probe that none of them equals."""
    rng = np.random.default_rng(dimensions)
    direction = rng.normal(size=(1, dimensions))
    gallery = (np.repeat(direction, 303, axis=0) * rng.uniform(0.1, 9, (303, 1))).astype(dtype)
    turned = (direction + rng.normal(size=(20, dimensions))) * rng.uniform(0.1, 9, (20, 1))
    for probes in (gallery[:20], turned.astype(dtype)):
        report = identify(gallery, np.arange(303), probes, np.arange(20))
        assert set(report.ranks) == {303}
        strangers = identify(gallery, np.arange(303), probes, np.arange(20) + 293)
        assert strangers.roc is not None


def test_what_differs_is_no_tie():
    """Two directions whose cosines with the probe differ in the ninth decimal."""
    gallery = np.array([[1.0, 1e-4], [1.0, 1.1e-4]])
    assert identify(gallery, [0, 1], [[1.0, 0.0]], [0]).ranks.tolist() == [1]
    assert identify(gallery, [0, 1], [[1.0, 0.0]], [1]).ranks.tolist() == [2]


def test_mates_and_strangers_of_one_direction_share_a_threshold():
    rng = np.random.default_rng(0)
    gallery = np.tile(rng.normal(size=(1, 64)), (8, 1)) * rng.uniform(0.1, 9, (8, 1))
    report = identify(gallery, np.arange(8), gallery[::-1], np.arange(4, 12), (0.25,))
    assert report.roc.auc == 0.5
    assert report.tpir_at_fpir[0.25].tar == 0


@pytest.mark.parametrize(
    "ids",
    [
        np.array([2**64 - 1, 2**63, 5], np.uint64),
        [2**64 - 1, -1, 5],
        [2**70, -(2**70), 0],
        [np.uint64(2**64 - 1), np.int8(-1), 5],
        np.array([2**64 - 1, -1, 5], object),
        ["18446744073709551615", "-1", "5"],
        np.array(["a", "b", "c"]),
        np.array(["a", "b", "c"], object),
    ],
)
def test_every_id_is_itself(ids):
    gallery = np.eye(3)
    report = identify(gallery, ids, gallery, ids)
    assert (report.identities, report.ranks.tolist()) == (3, [1, 1, 1])


def test_ids_that_one_dtype_confuses_are_two_people():
    gallery = np.eye(2)
    with pytest.raises(ValueError, match="none of the 1 people in probe_ids is in gallery_ids"):
        identify(gallery, np.array([2**64 - 1, 2**64 - 2], np.uint64), gallery[:1], [-1])
    report = identify(gallery, np.array([2**64 - 1, 7], np.uint64), gallery, [-1, 7])
    assert report.mated.tolist() == [1]
    assert len(report.nonmate_scores) == 1


@pytest.mark.parametrize(
    "ids",
    [
        [1, "1", 2],
        [1, 2.0, 3],
        [1, None, 3],
        [True, 2, 3],
        [b"a", b"b", b"c"],
        np.array([1.0, 2.0, 3.0]),
        np.array([True, False, True]),
        np.array([b"a", b"b", b"c"]),
        np.array([1, 2, 3], "M8[s]"),
    ],
)
def test_ids_that_are_neither_integers_nor_text_are_refused(ids):
    with pytest.raises(TypeError, match="gallery_ids must be integers or strings"):
        identify(np.eye(3), ids, np.eye(3), [1, 2, 3])
