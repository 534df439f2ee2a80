"""Template verification against arcface_torch's answers and against loops over templates."""

import dataclasses
import json

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sf2_plugin.evaluation import pool_templates, roc_curve, verify_templates
from sf2_plugin.evaluation import templates as module
from sf2_plugin.evaluation.templates import _nearest_tar_at_far, score_pairs

from ..parity import load_case


def made_up_images(images: int = 300, templates: int = 40, seed: int = 0):
    """Template ids have gaps and are negative too; media ids repeat between templates."""
    rng = np.random.default_rng(seed)
    ids = rng.choice(10_000, templates, replace=False) - 5_000
    member = rng.permutation(np.concatenate([ids, rng.choice(ids, images - templates)]))
    return rng.normal(size=(images, 12)), member, rng.integers(0, 4, images)


def pooled_by_loops(features, templates, medias) -> tuple[np.ndarray, np.ndarray]:
    ids = np.unique(templates)
    pooled = []
    for template in ids:
        mine = templates == template
        means = [features[mine & (medias == m)].mean(axis=0) for m in np.unique(medias[mine])]
        pooled.append(np.sum(means, axis=0) / np.linalg.norm(np.sum(means, axis=0)))
    return np.array(pooled), ids


def test_answers_are_arcface_torchs():
    case = load_case("eval.npz", "ijb_0")
    report = verify_templates(
        *(case[name] for name in ("features", "templates", "medias", "p1", "p2", "label")),
        far_targets=case["far_targets"],
    )
    np.testing.assert_array_equal(report.template_ids, case["unique_templates"])
    features = case["template_features"]
    np.testing.assert_allclose(report.template_features, features, rtol=0, atol=1e-9)
    np.testing.assert_allclose(report.scores, case["score"], rtol=0, atol=1e-9)
    assert report.auc == pytest.approx(float(case["auc"]), abs=1e-9)
    for target, tar in zip(case["far_targets"], case["tar"], strict=True):
        assert report.nearest_tar_at_far[target] == tar


@pytest.mark.parametrize("images_at_once", [1, 5, 100_000])
def test_pooling_averages_a_media_and_sums_the_medias(monkeypatch, images_at_once):
    monkeypatch.setattr(module, "CHUNK_ROWS", images_at_once)
    images = made_up_images()
    pooled, ids = pool_templates(*images)
    expected, expected_ids = pooled_by_loops(*images)
    np.testing.assert_array_equal(ids, expected_ids)
    np.testing.assert_allclose(pooled, expected, rtol=0, atol=1e-14)


def test_weights_and_flip_test_apply_to_images_in_the_hosts_order():
    features, templates, medias = made_up_images()
    rng = np.random.default_rng(1)
    flipped, detector = rng.normal(size=features.shape), rng.random(len(features))
    added = features + flipped
    directions = added / np.linalg.norm(added, axis=1, keepdims=True)
    for options, expected in (
        ({"flipped": flipped}, added),
        ({"detector_scores": detector}, features * detector[:, None]),
        ({"flipped": flipped, "norm_weighting": False}, directions),
        (
            {"flipped": flipped, "norm_weighting": False, "detector_scores": detector},
            directions * detector[:, None],
        ),
    ):
        pooled, _ = pool_templates(features, templates, medias, **options)
        by_loops, _ = pooled_by_loops(expected, templates, medias)
        np.testing.assert_allclose(pooled, by_loops, rtol=0, atol=1e-13)


def test_single_precision_features_are_pooled_in_double_and_left_alone():
    features, templates, medias = made_up_images()
    single = features.astype(np.float32)
    before = single.copy()
    pooled, _ = pool_templates(single, templates, medias)
    expected, _ = pooled_by_loops(single.astype(np.float64), templates, medias)
    np.testing.assert_allclose(pooled, expected, rtol=0, atol=1e-14)
    np.testing.assert_array_equal(single, before)


@pytest.mark.parametrize("gather_cost", [0, 24, 1e9])
def test_scores_are_inner_products_by_either_way(monkeypatch, gather_cost):
    """A cost of 0 gathers every pair, one of 1e9 multiplies whole blocks."""
    monkeypatch.setattr(module, "_GATHER_COST", gather_cost)
    monkeypatch.setattr(module, "_PRODUCT_ROWS", 3)
    monkeypatch.setattr(module, "CHUNK_ROWS", 5)
    rng = np.random.default_rng(0)
    features = rng.normal(size=(20, 6))
    first, second = rng.integers(2, 18, 300), rng.integers(0, 20, 300)
    expected = [features[i] @ features[j] for i, j in zip(first, second, strict=True)]
    np.testing.assert_allclose(score_pairs(features, first, second), expected, atol=1e-13)


@settings(max_examples=200, deadline=None)
@given(st.integers(0, 2**32 - 1), st.floats(1e-3, 0.999))
def test_nearest_far_is_read_as_from_scikit_learns_curve(seed, target):
    metrics = pytest.importorskip("sklearn.metrics")
    rng = np.random.default_rng(seed)
    size = int(rng.integers(4, 200))
    issame = rng.permutation(size) < rng.integers(1, size)
    scores = rng.normal(size=size).round(int(rng.integers(0, 3))) + issame
    far, tar, _ = metrics.roc_curve(issame, scores)
    far, tar = far[::-1], tar[::-1]
    _, nearest = min(zip(abs(far - target), range(len(far)), strict=True))
    assert _nearest_tar_at_far(roc_curve(scores, issame), [target]) == {target: tar[nearest]}


def made_up_pairs(templates: np.ndarray, pairs: int = 200):
    rng = np.random.default_rng(2)
    ids = np.unique(templates)
    return rng.choice(ids, pairs), rng.choice(ids, pairs), rng.random(pairs) < 0.3


def test_report_holds_the_exact_figures_as_json_and_text():
    images = made_up_images()
    p1, p2, labels = made_up_pairs(images[1])
    report = verify_templates(*images, p1, p2, labels.astype(int), far_targets=(1e-4, 0.1))
    roc = roc_curve(report.scores, labels)
    assert (report.auc, report.eer) == (roc.auc, roc.eer)
    assert report.tar_at_far == {1e-4: None, 0.1: roc.tar_at_far(0.1)}
    np.testing.assert_array_equal(report.issame, labels)
    figures = report.as_dict()
    assert json.loads(json.dumps(figures)) == figures
    assert figures["tar_at_far_0.0001"] is None
    assert figures["nearest_tar_at_far_0.1"] == report.nearest_tar_at_far[0.1]
    assert "TAR@FAR=0.0001          not measurable" in str(report)
    with pytest.raises(dataclasses.FrozenInstanceError):
        report.roc = None


FEATURES, TEMPLATES, MEDIAS = made_up_images()
P1, P2, LABELS = made_up_pairs(TEMPLATES)
GOOD = {
    "features": FEATURES,
    "templates": TEMPLATES,
    "medias": MEDIAS,
    "p1": P1,
    "p2": P2,
    "labels": LABELS,
}


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"features": np.where(np.arange(300)[:, None] == 4, np.nan, FEATURES)}, "in row 4"),
        ({"features": FEATURES[1:]}, "templates must be (299,), one for each of features"),
        ({"medias": MEDIAS[1:]}, "medias must be (300,), one for each of features, not (299,)"),
        ({"p1": P1[1:]}, "p1 must be (200,), one for each of labels"),
        ({"p2": P2[1:]}, "p2 must be (200,), one for each of labels"),
        ({"p1": np.where(np.arange(200) == 9, 77_777, P1)}, "p1 names template 77777, which has"),
        ({"p2": np.where(np.arange(200) == 9, -77_777, P2)}, "p2 names template -77777, which"),
        ({"labels": np.ones(200)}, "labels has no impostor pair"),
        ({"labels": np.zeros(200)}, "labels has no genuine pair"),
        ({"labels": np.arange(200)}, "labels must hold True or False"),
        ({"flipped": FEATURES[:, :3]}, "flipped must be shaped as features, (300, 12)"),
        ({"detector_scores": np.ones(3)}, "detector_scores must be (300,)"),
        ({"detector_scores": np.full(300, np.nan)}, "detector_scores must be finite"),
        ({"detector_scores": np.zeros(300)}, "has no direction"),
        ({"flipped": -FEATURES, "norm_weighting": False}, "has no direction"),
        ({"far_targets": [0.0]}, "far_targets must lie between 0 and 1"),
    ],
)
def test_bad_input_is_refused_in_one_line(changed, message):
    with pytest.raises(ValueError, match=r".+") as error:
        verify_templates(**{**GOOD, **changed})
    assert message in str(error.value)
    assert "\n" not in str(error.value)


def test_ids_that_are_no_integers_are_refused():
    with pytest.raises(TypeError, match="templates must be integers or strings, not float64"):
        verify_templates(**{**GOOD, "templates": TEMPLATES.astype(float)})


def test_templates_of_one_direction_tie_and_large_ids_are_themselves():
    rng = np.random.default_rng(0)
    features = np.tile(rng.normal(size=(1, 64)), (6, 1)) * rng.uniform(0.1, 9, (6, 1))
    ids = np.array([2**64 - 1, 2**64 - 2, 3, 4, 5, 6], np.uint64)
    report = verify_templates(
        features, ids, np.arange(6), ids[[0, 1, 2, 3]], ids[[1, 2, 3, 4]], [1, 0, 1, 0]
    )
    assert report.scores.tolist() == [1.0] * 4
    assert report.auc == 0.5
    with pytest.raises(ValueError, match="p1 names template -1, which has no image"):
        verify_templates(features, ids, np.arange(6), [-1, 3], [3, 4], [1, 0])
    with pytest.raises(TypeError, match="p1 and templates must be of one kind"):
        verify_templates(features, ids, np.arange(6), ["3", "4"], [3, 4], [1, 0])
