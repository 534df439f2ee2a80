"""Pair verification against arcface_torch's answers and against loops over folds."""

import dataclasses
import json
import re

import numpy as np
import pytest

from sf2_plugin.evaluation import PairReport, best_common_threshold, verify_pairs, verify_scores

from ..parity import load_case


def made_up_pairs(pairs: int = 400, dimensions: int = 8, seed: int = 0):
    rng = np.random.default_rng(seed)
    issame = rng.random(pairs) < 0.5
    first = rng.normal(size=(pairs, dimensions))
    second = rng.normal(size=(pairs, dimensions)) + 1.5 * issame[:, None] * first
    return np.stack([first, second], axis=1).reshape(-1, dimensions), issame


def folds_of(pairs: int, folds: int) -> list[np.ndarray]:
    return np.array_split(np.arange(pairs), folds)


@pytest.mark.parametrize("case", ["verification_0", "verification_1"])
def test_grid_answers_are_arcface_torchs(case: str):
    expected = load_case("eval.npz", case)
    report = verify_pairs(expected["embeddings"].astype(np.float64), expected["issame"])
    np.testing.assert_array_equal(report.grid_accuracy, expected["accuracy"])
    np.testing.assert_allclose(report.grid_tpr, expected["tpr"], rtol=0, atol=1e-12)
    np.testing.assert_allclose(report.grid_fpr, expected["fpr"], rtol=0, atol=1e-12)


@pytest.mark.parametrize("folds", [2, 7, 10])
def test_each_fold_is_judged_by_the_best_threshold_of_the_others(folds):
    embeddings, issame = made_up_pairs()
    report = verify_pairs(embeddings, issame, folds=folds)
    for fold, test in enumerate(folds_of(len(issame), folds)):
        train = np.setdiff1d(np.arange(len(issame)), test)
        accuracies = [
            np.mean((report.scores[train] >= t) == issame[train]) for t in report.scores[train]
        ]
        threshold = report.thresholds[fold]
        assert np.mean((report.scores[train] >= threshold) == issame[train]) == max(accuracies)
        right = (report.scores[test] >= threshold) == issame[test]
        assert report.accuracy[fold] == pytest.approx(right.mean(), abs=1e-15)
    assert report.accuracy_mean == pytest.approx(np.mean(report.accuracy))
    assert report.accuracy_std == pytest.approx(np.std(report.accuracy))


def test_exact_threshold_finds_the_gap_that_the_grid_steps_over():
    distance = np.tile([0.5021, 0.5024, 0.5026, 0.5029], 20)
    issame = np.tile([True, True, False, False], 20)
    report = verify_scores(1 - distance / 2, issame)
    assert report.accuracy_mean == 1
    assert report.grid_accuracy is not None
    assert report.grid_accuracy.mean() == 0.5


def test_grid_val_is_read_off_the_interpolated_threshold_of_the_other_folds():
    embeddings, issame = made_up_pairs(3000, seed=3)
    report = verify_pairs(embeddings, issame)
    distance = 2 - 2 * report.scores
    grid = np.arange(0, 4, 0.001)
    val, far = [], []
    for test in folds_of(len(issame), 10):
        train = np.setdiff1d(np.arange(len(issame)), test)
        impostor = distance[train][~issame[train]]
        threshold = np.interp(1e-3, [np.mean(impostor < t) for t in grid], grid)
        val.append(np.mean(distance[test][issame[test]] < threshold))
        far.append(np.mean(distance[test][~issame[test]] < threshold))
    assert report.grid_val == pytest.approx(np.mean(val), abs=1e-12)
    assert report.grid_val_std == pytest.approx(np.std(val), abs=1e-12)
    assert report.grid_val_far == pytest.approx(np.mean(far), abs=1e-12)


def test_grid_val_accepts_nothing_where_the_grid_never_reaches_the_far():
    issame = np.tile([True, False], 20)
    report = verify_scores(np.where(issame, 1.0, -1.0), issame)
    assert (report.grid_val, report.grid_val_far) == (0.0, 0.0)
    assert report.accuracy_mean == 1


def test_scores_are_cosines_whatever_the_length_or_precision():
    embeddings, issame = made_up_pairs(200)
    length = np.linalg.norm(embeddings, axis=1, keepdims=True)
    unit = embeddings / length
    expected = np.sum(unit[0::2] * unit[1::2], axis=1)
    np.testing.assert_allclose(verify_pairs(embeddings, issame).scores, expected, atol=1e-14)
    for factor in (1e-300, 1e-160, 1e200, 1e307):
        scores = verify_pairs(unit * factor, issame).scores
        np.testing.assert_allclose(scores, expected, rtol=0, atol=1e-14)
    for dtype, tolerance in ((np.float32, 1e-6), (np.float16, 5e-3)):
        scores = verify_pairs(embeddings.astype(dtype), issame).scores
        np.testing.assert_allclose(scores, expected, rtol=0, atol=tolerance)


def test_a_face_and_itself_score_one_and_its_opposite_minus_one():
    rng = np.random.default_rng(0)
    first = rng.normal(size=(40, 5)).astype(np.float32)
    issame = np.tile([True, False], 20)
    second = np.where(issame[:, None], 4 * first, -2 * first)
    report = verify_pairs(np.stack([first, second], axis=1).reshape(-1, 5), issame)
    np.testing.assert_array_equal(report.scores[issame], 1)
    assert report.grid_tpr is not None
    assert tuple(report.grid_tpr[:2]) == (0, 1)  # A distance of 0 is not below 0.
    assert report.scores.min() >= -1
    np.testing.assert_allclose(report.scores[~issame], -1, atol=1e-15)


def test_long_sets_are_worked_on_in_chunks(monkeypatch):
    embeddings, issame = made_up_pairs(100)
    whole = verify_pairs(embeddings, issame)
    monkeypatch.setattr("sf2_plugin.evaluation.pairs.CHUNK_ROWS", 7)
    monkeypatch.setattr("sf2_plugin.evaluation.input_checks._CHUNK_ROWS", 9)
    np.testing.assert_array_equal(verify_pairs(embeddings, issame).scores, whole.scores)


def test_scores_of_any_range_are_verified_but_only_cosines_by_the_grid():
    embeddings, issame = made_up_pairs()
    cosines = verify_pairs(embeddings, issame)
    logits = verify_scores(40 * cosines.scores - 5, issame)
    np.testing.assert_array_equal(logits.accuracy, cosines.accuracy)
    np.testing.assert_allclose(logits.thresholds, 40 * cosines.thresholds - 5)
    assert logits.auc == cosines.auc
    assert logits.grid_accuracy is None
    assert logits.grid_val is None
    assert "grid_accuracy_mean" not in logits.as_dict()
    assert "grid" not in logits.table()


def test_figures_are_json_and_say_what_cannot_be_measured():
    report = verify_pairs(*made_up_pairs(), far_targets=(1e-6, 0.1))
    figures = report.as_dict()
    assert json.loads(json.dumps(figures)) == figures
    assert report.tar_at_far[1e-6] is None
    assert figures["tar_at_far_1e-06"] is None
    assert figures["tar_at_far_1e-06_low"] is None
    tar = report.tar_at_far[0.1]
    assert tar is not None
    assert figures["tar_at_far_0.1"] == tar.tar
    assert figures["accuracy_mean"] == report.accuracy_mean
    assert figures["genuine"] + figures["impostor"] == figures["pairs"] == 400
    assert re.search("TAR@FAR=1e-06 +not measurable: too few impostor pairs", str(report))
    assert f"{report.accuracy_mean:.5f}" in report.table()


def test_the_report_is_frozen():
    report = verify_pairs(*made_up_pairs())
    with pytest.raises(dataclasses.FrozenInstanceError):
        report.issame = None


def common_threshold_by_trial(reports: list[PairReport]) -> float:
    return max(
        np.mean([np.mean((r.scores >= t) == r.issame) for r in reports])
        for t in np.concatenate([r.scores for r in reports])
    )


def test_common_threshold_is_best_on_average_and_says_what_each_set_loses():
    reports = []
    for seed, shift in ((0, 0.0), (1, 0.3), (2, -0.2)):
        rng = np.random.default_rng(seed)
        issame = rng.random(100 * (seed + 1)) < 0.5
        reports.append(verify_scores(shift + 0.2 * rng.normal(size=len(issame)) + issame, issame))
    common = best_common_threshold(reports)
    assert common.accuracy_mean == pytest.approx(common_threshold_by_trial(reports), abs=1e-12)
    for report, accuracy, own in zip(reports, common.accuracy, common.own_accuracy, strict=True):
        right = (report.scores >= common.threshold) == report.issame
        assert accuracy == pytest.approx(right.mean(), abs=1e-15)
        assert own == pytest.approx(common_threshold_by_trial([report]), abs=1e-12)
    assert np.any(common.accuracy < common.own_accuracy)


def test_no_reports_have_no_common_threshold():
    with pytest.raises(ValueError, match="at least one report"):
        best_common_threshold([])


def with_value(embeddings: np.ndarray, row: int, value: float) -> np.ndarray:
    embeddings = embeddings.copy()
    embeddings[row] = value
    return embeddings


EMBEDDINGS, ISSAME = made_up_pairs(40)


@pytest.mark.parametrize(
    ("embeddings", "issame", "options", "message"),
    [
        (with_value(EMBEDDINGS, 5, np.nan), ISSAME, {}, "NaN or inf in row 5"),
        (with_value(EMBEDDINGS, 7, np.inf), ISSAME, {}, "NaN or inf in row 7"),
        (with_value(EMBEDDINGS, 6, 0), ISSAME, {}, "all zero in row 6"),
        (EMBEDDINGS[:-1], ISSAME, {}, "an even number, not 79"),
        (EMBEDDINGS[:-2], ISSAME, {}, "issame must be (39,)"),
        (EMBEDDINGS[0], ISSAME, {}, "(rows, dimensions)"),
        (EMBEDDINGS[:, :0], ISSAME, {}, "(rows, dimensions)"),
        (EMBEDDINGS, np.ones(40, bool), {}, "no impostor pair among its 40"),
        (EMBEDDINGS, np.zeros(40, bool), {}, "no genuine pair among its 40"),
        (EMBEDDINGS, np.arange(40) < 20, {}, "fold 1 of 10 (pairs 0 to 3) has only genuine"),
        (EMBEDDINGS, np.arange(40) < 2, {}, "fold 2 of 10 (pairs 4 to 7) has only impostor"),
        (EMBEDDINGS, ISSAME, {"folds": 1}, "between 2 and the number of pairs, 40, not 1"),
        (EMBEDDINGS, ISSAME, {"folds": 41}, "between 2 and the number of pairs, 40, not 41"),
        (EMBEDDINGS, ISSAME, {"far_targets": (0.1, 2)}, "far_targets must lie between 0 and 1"),
    ],
)
def test_bad_input_is_refused_in_one_line(embeddings, issame, options, message):
    with pytest.raises(ValueError, match=r".+") as error:
        verify_pairs(embeddings, issame, **options)
    assert message in str(error.value)
    assert "\n" not in str(error.value)


def test_embeddings_that_are_no_numbers_are_refused():
    with pytest.raises(TypeError, match="embeddings must be real numbers, not complex128"):
        verify_pairs(EMBEDDINGS.astype(complex), ISSAME)


@pytest.mark.parametrize("dtype", [np.float64, np.float32])
def test_embeddings_of_one_direction_tell_nothing_whatever_their_length(dtype):
    rng = np.random.default_rng(0)
    pair = np.tile(rng.normal(size=(2, 64)), (400, 1)) * rng.uniform(0.1, 9, (800, 1))
    issame = rng.permutation(np.arange(400) % 2 == 0)
    report = verify_pairs(pair.astype(dtype), issame, folds=4)
    assert len(np.unique(report.scores)) == 1
    assert (report.auc, report.eer) == (0.5, 0.5)


def test_merging_ties_leaves_what_is_apart():
    from sf2_plugin.evaluation.vectors import merge_ties

    scores = np.array([0.5, 1.0, 0.5 + 1e-15, 0.5 + 3e-15, -0.25, 1.0 - 1e-15])
    top = 0.5 + 3e-15
    expected = [top, 1.0, top, top, -0.25, 1.0]
    assert merge_ties(scores, 4e-15).tolist() == expected
    assert merge_ties(scores, 1e-16) is scores
