"""The exact ROC against loops over every threshold and against scikit-learn and SciPy."""

import itertools

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from sf2_plugin.evaluation import roc_curve
from sf2_plugin.evaluation.roc import best_threshold, wilson_interval

from ..processes import python


@st.composite
def scored_pairs(draw: st.DrawFn) -> tuple[np.ndarray, np.ndarray]:
    """Few pairs and fewer scores, so that ties of all kinds occur."""
    size = draw(st.integers(2, 30))
    levels = draw(st.integers(1, 12))
    scores = draw(st.lists(st.integers(-levels, levels), min_size=size, max_size=size))
    issame = draw(st.lists(st.booleans(), min_size=size - 2, max_size=size - 2))
    return np.array(scores) / levels, np.array([True, False, *issame])


def every_threshold(scores: np.ndarray) -> list[float]:
    return [*sorted(set(scores)), np.inf]


def rates(scores: np.ndarray, issame: np.ndarray, threshold: float) -> tuple[float, float]:
    accepted = scores >= threshold
    return float(accepted[~issame].mean()), float(accepted[issame].mean())


@given(scored_pairs())
def test_curve_passes_through_the_rates_of_every_threshold(pairs):
    scores, issame = pairs
    roc = roc_curve(scores, issame)
    assert (roc.far[0], roc.tar[0], roc.far[-1], roc.tar[-1]) == (0, 0, 1, 1)
    assert np.all(np.diff(roc.far) >= 0)
    assert np.all(np.diff(roc.tar) >= 0)
    for threshold, far, tar in zip(roc.thresholds, roc.far, roc.tar, strict=True):
        assert (far, tar) == rates(scores, issame, threshold) == roc.rates(threshold)
    along = roc.far + roc.tar  # Rises strictly along the curve.
    assert np.all(np.diff(along) > 0)
    for threshold in every_threshold(scores):
        far, tar = rates(scores, issame, threshold)
        assert np.interp(far + tar, along, roc.tar) == pytest.approx(tar, abs=1e-12)


@given(scored_pairs())
def test_auc_counts_a_tie_as_one_half(pairs):
    scores, issame = pairs
    wins = [
        1.0 if genuine > impostor else 0.5 if genuine == impostor else 0.0
        for genuine in scores[issame]
        for impostor in scores[~issame]
    ]
    assert roc_curve(scores, issame).auc == pytest.approx(np.mean(wins), abs=1e-12)


@given(scored_pairs())
def test_eer_is_where_the_curve_crosses_the_diagonal(pairs):
    scores, issame = pairs
    points = [rates(scores, issame, threshold) for threshold in every_threshold(scores)][::-1]
    for (far, tar), (next_far, next_tar) in itertools.pairwise(points):
        before, after = far - (1 - tar), next_far - (1 - next_tar)
        if before < 0 <= after:
            crossing = far + (next_far - far) * -before / (after - before)
    roc = roc_curve(scores, issame)
    assert roc.eer == pytest.approx(crossing, abs=1e-12)
    at = roc.thresholds.tolist().index(roc.eer_threshold)
    balance = [sum(rates(scores, issame, t)) for t in roc.thresholds]
    assert balance[at] >= 1 - 1e-12
    assert balance[at - 1] < 1 - 1e-12
    assert np.isfinite(roc.eer_threshold)


@given(scored_pairs(), st.sampled_from([0.03, 0.1, 0.25, 0.5, 0.9]))
def test_tar_at_far_is_the_best_of_all_thresholds_within_the_target(pairs, target):
    scores, issame = pairs
    measured = roc_curve(scores, issame).tar_at_far(target)
    if target * np.count_nonzero(~issame) < 1:
        assert measured is None
        return
    within = [rates(scores, issame, t) for t in every_threshold(scores)]
    best = max(tar for far, tar in within if far <= target)
    assert measured is not None
    assert measured.tar == best
    assert measured.far <= target
    assert rates(scores, issame, measured.threshold) == (measured.far, measured.tar)
    assert measured.low <= measured.tar <= measured.high
    assert measured.far_low <= measured.far <= measured.far_high


@pytest.mark.parametrize("target", [0.29, 0.57, 0.01, 0.07])
def test_rounding_of_the_target_costs_no_pair(target):
    roc = roc_curve(np.arange(200.0), np.arange(200) >= 100)
    measured = roc.tar_at_far(target)
    assert measured is not None
    assert measured.far == target


def test_a_far_of_exactly_one_pair_is_measurable_and_less_is_not():
    roc = roc_curve(np.arange(200.0), np.arange(200) % 2 == 0)
    assert roc.tar_at_far(0.01) is not None
    assert roc.tar_at_far(0.0099) is None


def test_huge_and_neighbouring_scores_keep_a_finite_threshold_between_them():
    one = np.nextafter(1.0, 2)
    measured = roc_curve([1.0, one, -1e308, 1e308], [False, True, False, True]).tar_at_far(0.5)
    assert measured is not None
    assert (measured.tar, measured.threshold) == (1.0, -1e308 / 2 + 0.5)
    assert best_threshold([roc_curve([1.0, one], [False, True])]) == one


TIED = (
    ([0, 0, 0, 0, 0, -1, -1, 0, 0], [1, 0, 0, 0, 0, 0, 0, 1, 1]),
    ([0, 0, 0, -1, -1, -1, 0, 0, -1], [1, 0, 0, 0, 0, 0, 1, 1, 0]),
)


@example(*((np.array(scores, float), np.array(issame, bool)) for scores, issame in TIED))
@given(scored_pairs(), scored_pairs())
def test_best_threshold_is_the_strictest_of_the_best_over_all_sets(first, second):
    for sets in ([first], [first, second]):
        threshold = best_threshold([roc_curve(*pairs) for pairs in sets])
        assert np.isfinite(threshold)

        def accuracy(t: float, sets: list = sets) -> float:
            return np.mean([np.mean((scores >= t) == issame) for scores, issame in sets])

        candidates = every_threshold(np.concatenate([scores for scores, _ in sets]))
        best = max(accuracy(t) for t in candidates)
        assert accuracy(threshold) == pytest.approx(best, abs=1e-12)
        stricter = [t for t in candidates if accuracy(t) < accuracy(threshold) - 1e-12]
        higher = [t for t in candidates if t >= threshold]
        assert all(t in stricter for t in higher[1:])


@pytest.mark.parametrize(("successes", "trials"), [(0, 10), (3, 10), (10, 10), (1, 3000)])
def test_wilson_interval_is_scipys(successes, trials):
    stats = pytest.importorskip("scipy.stats")
    expected = stats.binomtest(successes, trials).proportion_ci(method="wilson")
    assert wilson_interval(successes, trials) == pytest.approx(tuple(expected), abs=1e-12)


@settings(max_examples=30, deadline=None)
@given(st.integers(0, 2**32 - 1))
def test_auc_and_curve_are_scikit_learns(seed):
    metrics = pytest.importorskip("sklearn.metrics")
    rng = np.random.default_rng(seed)
    issame = rng.permutation(500) < rng.integers(1, 499)
    scores = rng.normal(size=500).round(int(rng.integers(1, 8))) + issame
    roc = roc_curve(scores, issame)
    assert roc.auc == pytest.approx(metrics.roc_auc_score(issame, scores), abs=1e-12)
    far, tar, _ = metrics.roc_curve(issame, scores, drop_intermediate=False)
    along = roc.far + roc.tar
    np.testing.assert_allclose(np.interp(far + tar, along, roc.tar), tar, atol=1e-12)


@pytest.mark.parametrize(
    ("scores", "issame", "message"),
    [
        ([0.1, np.nan, np.inf], [1, 0, 0], "2 of 3 are NaN or inf, the first at 1"),
        ([[0.1, 0.2]], [1, 0], "one-dimensional"),
        ([0.1, 0.2, 0.3], [1, 0], "issame must be (3,)"),
        ([0.1, 0.2], [1, 1], "no impostor pair"),
        ([0.1, 0.2], [0, 0], "no genuine pair"),
        ([0.1, 0.2], [1, 2], "True or False"),
        ([], [], "no genuine pair"),
    ],
)
def test_bad_scores_are_refused(scores, issame, message):
    with pytest.raises(ValueError, match=r"must|has no") as error:
        roc_curve(np.array(scores, dtype=float), issame)
    assert message in str(error.value)


def test_scores_that_are_no_numbers_are_refused():
    with pytest.raises(TypeError, match="scores must be real numbers, not <U1"):
        roc_curve(["a", "b"], [1, 0])


@pytest.mark.parametrize("target", [0, 1, -0.1, float("nan")])
def test_a_far_outside_its_range_is_refused(target):
    with pytest.raises(ValueError, match="between 0 and 1"):
        roc_curve([0.1, 0.2], [0, 1]).tar_at_far(target)


def test_importing_evaluation_imports_no_optional_dependency():
    code = (
        "import sys, sf2_plugin.evaluation, sf2_plugin.report.plots; "
        "print([m for m in ('sklearn', 'scipy', 'matplotlib', 'PIL') if m in sys.modules])"
    )
    result = python("-c", code)
    assert (result.stdout.strip(), result.stderr) == ("[]", "")
