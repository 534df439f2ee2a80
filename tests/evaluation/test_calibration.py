"""Probabilities, and how they are judged, against loops over pairs."""

import json
import math

import numpy as np
import pytest
import torch

from sf2_plugin import SphereFace2
from sf2_plugin.evaluation import Calibration, calibration_path, evaluate_calibration
from sf2_plugin.evaluation.calibration import _min_cllr
from sf2_plugin.evaluation.roc import roc_curve


def made_up_scores(pairs: int = 4000, share: float = 0.5, seed: int = 0):
    rng = np.random.default_rng(seed)
    issame = rng.random(pairs) < share
    return np.clip(0.13 * rng.normal(size=pairs) + 0.4 * issame, -1, 1), issame


def test_probability_is_the_heads():
    head = SphereFace2(11, 8, preset="wespeaker").double()
    with torch.no_grad():
        head.bias.fill_(3.25)
    calibration = Calibration.from_head(head)
    assert calibration == Calibration(scale=32.0, t=3.0, bias=3.25)
    cosines = np.linspace(-1, 1, 101)
    expected = head.verification_probability(torch.from_numpy(cosines)).detach().numpy()
    np.testing.assert_allclose(calibration.probability(cosines), expected, rtol=1e-12)


def test_prior_shifts_the_odds():
    calibration = Calibration(10, 2, 1)
    even, rare = (calibration.probability([-0.4, 0.1], prior) for prior in (0.5, 0.01))
    np.testing.assert_allclose(rare / (1 - rare), even / (1 - even) / 99, rtol=1e-12)


def test_cosines_that_rounding_left_outside_their_range_have_a_probability():
    assert np.all(np.isfinite(Calibration(40, 2.5, 0).probability([-1 - 1e-15, 1 + 1e-15])))


@pytest.mark.parametrize("share", [0.5, 0.03])
def test_cllr_is_the_mean_over_kinds_of_the_bits_that_pairs_cost(share):
    scores, issame = made_up_scores(share=share)
    calibration = Calibration(14, 3, 5)
    lr = np.exp(calibration.log_odds(scores))
    costs = [math.log2(1 + 1 / r if same else 1 + r) for r, same in zip(lr, issame, strict=True)]
    costs = np.array(costs)
    expected = (costs[issame].mean() + costs[~issame].mean()) / 2
    report = evaluate_calibration(calibration, scores, issame)
    assert report.cllr == pytest.approx(expected, rel=1e-12)


def test_scores_that_tell_nothing_cost_one_bit():
    report = evaluate_calibration(Calibration(1e-9, 1, 0), *made_up_scores())
    assert report.cllr == pytest.approx(1, abs=1e-6)
    nothing = np.zeros(40), np.arange(40) % 4 == 0
    report = evaluate_calibration(Calibration(1, 1, 5), *nothing)
    assert (report.min_cllr, report.min_dcf) == (1, 1)


@pytest.mark.parametrize("decimals", [1, 8])
@pytest.mark.parametrize("share", [0.5, 0.05])
def test_min_cllr_is_that_of_isotonic_regression_on_every_pair(decimals, share):
    isotonic = pytest.importorskip("sklearn.isotonic")
    scores, issame = made_up_scores(1500, share)
    scores = scores.round(decimals)
    weight = np.where(issame, 0.5 / issame.sum(), 0.5 / (~issame).sum())
    posterior = isotonic.IsotonicRegression(y_min=0, y_max=1).fit(scores, issame, weight)
    p = posterior.predict(scores)
    right = np.where(issame, p, 1 - p)
    assert np.all(right > 0)
    expected = -np.sum(weight * np.log2(right))
    assert 0 < expected < 1
    assert _min_cllr(roc_curve(scores, issame)) == pytest.approx(expected, rel=1e-9)


def test_min_cllr_of_pairs_without_an_error_is_zero():
    assert _min_cllr(roc_curve([0.1, 0.2, 0.8, 0.9], [0, 0, 1, 1])) == 0


@pytest.mark.parametrize(("share", "prior"), [(0.5, 0.5), (0.1, 0.5), (0.5, 0.02)])
def test_reliability_weighs_pairs_by_the_prior(share, prior):
    scores, issame = made_up_scores(share=share)
    calibration = Calibration(14, 3, 5)
    report = evaluate_calibration(calibration, scores, issame, prior=prior, bins=7)
    p = calibration.probability(scores, prior)
    ece, row = 0.0, 0
    for k in range(7):
        held = (p >= k / 7) & ((p < (k + 1) / 7) | (k == 6))
        if not held.any():
            continue
        genuine, impostor = held & issame, held & ~issame
        mass_genuine = prior * genuine.sum() / issame.sum()
        mass_impostor = (1 - prior) * impostor.sum() / (~issame).sum()
        mass = mass_genuine + mass_impostor
        predicted = prior * p[genuine].sum() / issame.sum()
        predicted += (1 - prior) * p[impostor].sum() / (~issame).sum()
        assert report.counts[row] == held.sum()
        assert report.predicted[row] == pytest.approx(predicted / mass, abs=1e-12)
        assert report.observed[row] == pytest.approx(mass_genuine / mass, abs=1e-12)
        ece += abs(predicted - mass_genuine)
        row += 1
    assert row == len(report.counts)
    assert report.ece == pytest.approx(ece, abs=1e-12)


@pytest.mark.parametrize("prior", [0.5, 0.01, 0.9])
def test_detection_cost_is_that_of_the_prescribed_and_of_the_best_threshold(prior):
    scores, issame = made_up_scores()
    calibration = Calibration(14, 3, 5)
    report = evaluate_calibration(calibration, scores, issame, dcf_prior=prior)
    log_odds = calibration.log_odds(scores)

    def cost(threshold: float) -> float:
        accepted = log_odds >= threshold
        errors = prior * np.mean(~accepted[issame]) + (1 - prior) * np.mean(accepted[~issame])
        return errors / min(prior, 1 - prior)

    assert report.dcf == pytest.approx(cost(math.log((1 - prior) / prior)), rel=1e-12)
    best = min(cost(t) for t in [*log_odds, math.inf])
    assert report.min_dcf == pytest.approx(best, rel=1e-12)
    assert report.min_dcf <= report.dcf


def test_refit_finds_the_scale_and_bias_that_pairs_were_drawn_by():
    """Normal similarities of equal spread have log-odds that are a straight line in g."""
    rng = np.random.default_rng(0)
    issame = rng.random(200_000) < 0.2
    similarity = np.where(issame, 0.1, -0.5) + 0.2 * rng.normal(size=len(issame))
    cosines = 2 * np.cbrt((np.clip(similarity, -1, 1) + 1) / 2) - 1
    refitted = Calibration(40, 3, 0).refit(cosines, issame)
    slope = 0.6 / 0.2**2
    assert refitted.scale == pytest.approx(slope, rel=0.03)
    assert refitted.bias == pytest.approx(slope * 0.2, rel=0.03)
    assert (refitted.t, refitted.fitted_pairs) == (3, 200_000)


def test_refit_helps_on_pairs_it_has_not_seen():
    scores, issame = made_up_scores()
    own = Calibration(40, 3, 2)
    refitted = own.refit(scores, issame)
    for calibration, origin in ((own, "the head's own"), (refitted, "refit on pairs  4000")):
        report = evaluate_calibration(calibration, scores, issame)
        figures = report.as_dict()
        assert json.loads(json.dumps(figures)) == figures
        assert (figures["cllr"], figures["scale"]) == (report.cllr, calibration.scale)
        assert origin in str(report)


def test_a_calibration_is_stored_beside_its_model(tmp_path):
    path = calibration_path(tmp_path / "model.pt")
    assert path == tmp_path / "model.pt.calibration.json"
    calibration = Calibration(26.1, 3.0, 13.9, fitted_pairs=2000)
    calibration.save(path)
    assert Calibration.load(path) == calibration
    assert [p.name for p in tmp_path.iterdir()] == ["model.pt.calibration.json"]


@pytest.mark.parametrize(
    "content",
    [
        "{",
        "[1, 2]",
        '{"scale": 1, "t": 3}',
        '{"scale": 1, "t": 3, "bias": 0, "prior": 1}',
        '{"scale": "1", "t": 3, "bias": 0}',
        '{"scale": true, "t": 3, "bias": 0}',
        '{"scale": -1, "t": 3, "bias": 0}',
        '{"scale": 0, "t": 3, "bias": 0}',
        '{"scale": 1, "t": 0.5, "bias": 0}',
        '{"scale": NaN, "t": 3, "bias": 0}',
    ],
)
def test_a_file_that_is_no_calibration_is_named(tmp_path, content):
    path = tmp_path / "x.json"
    path.write_text(content)
    with pytest.raises(ValueError, match=r"x\.json: not readable as a calibration"):
        Calibration.load(path)


@pytest.mark.parametrize(
    ("genuine", "impostor", "message"),
    [
        (-0.3, 0.3, r"no higher than impostor pairs: .*\(slope -.*means are -0\.\d+ and 0\.\d+\)"),
        (0.0, 0.0, r"(no|hardly) higher than impostor pairs: "),
        (0.002, 0.0, r"hardly higher .* would move from 0\.4\d+ to 0\.5\d+ \(slope 0\."),
    ],
)
def test_a_refit_that_says_nothing_is_refused_with_its_figures(genuine, impostor, message):
    rng = np.random.default_rng(1)
    issame = np.arange(20_000) % 2 == 0
    cosines = np.where(issame, genuine, impostor) + 0.1 * rng.normal(size=20_000)
    with pytest.raises(ValueError, match=message):
        Calibration(40, 1, 0).refit(cosines, issame)


def test_pairs_that_do_not_overlap_are_refitted_with_a_warning():
    issame = np.arange(100) % 2 == 0
    cosines = np.where(issame, 0.7, 0.2) + np.linspace(0, 0.1, 100)
    with pytest.warns(UserWarning, match=r"cosine 0\.7000 and more.*0\.3000 and less.*overlap"):
        refitted = Calibration(40, 3, 0).refit(cosines, issame)
    assert np.isfinite(refitted.scale)


@pytest.mark.parametrize(
    ("calibration", "doubts"),
    [
        (Calibration(14, 1, 0), []),
        (Calibration(0.1, 1, 0), ["hardly moves with the cosine: from 0.4"]),
        (Calibration(10, 1, 900), ["hardly moves with the cosine: from 1.000 to 1.000", "Cllr is"]),
        (Calibration(40, 1e6, 0), ["hardly moves with the cosine: from 0.000 to 0.000", "Cllr is"]),
        (Calibration(900, 1, 300), ["Cllr is"]),
    ],
)
def test_probabilities_that_are_no_use_are_doubted(calibration, doubts):
    rng = np.random.default_rng(0)
    issame = np.arange(2000) % 2 == 0
    cosines = np.clip(np.where(issame, 0.3, -0.3) + 0.2 * rng.normal(size=2000), -1, 0.9)
    found = evaluate_calibration(calibration, cosines, issame).doubts
    assert len(found) == len(doubts)
    assert all(words in doubt for words, doubt in zip(doubts, found, strict=True))


@pytest.mark.parametrize(
    "values",
    [
        '{"scale": 1e300, "t": 3, "bias": 0}',
        '{"scale": 1, "t": 1e9, "bias": 0}',
        '{"scale": 1, "t": 3, "bias": -1e7}',
        '{"scale": 1, "t": 3, "bias": Infinity}',
        '{"scale": 1' + "0" * 400 + ', "t": 3, "bias": 0}',
        '{"scale": 1, "t": 3, "bias": 0, "fitted_pairs": 0.5}',
        '{"scale": 1, "t": 3, "bias": 0, "fitted_pairs": Infinity}',
    ],
)
def test_stored_values_beyond_all_sense_are_refused(tmp_path, values):
    (tmp_path / "x.json").write_text(values)
    with pytest.raises(ValueError, match=r"x\.json: not readable as a calibration: .* must be"):
        Calibration.load(tmp_path / "x.json")
