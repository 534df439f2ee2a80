"""1:1 verification of templates by the protocol of IJB-B and IJB-C.

A template is a set of images and videos of one person. Frames of one video (a "media") are
averaged first, so that a long video weighs no more than a photograph; then the media are summed.
Sources: Whitelam et al., CVPRW 2017 (IJB-B); Maze et al., ICB 2018 (IJB-C); the pooling is that of
InsightFace's `eval_ijbc.py`.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

from .figures import Figure, VerificationReport, rate_figures
from .input_checks import (
    Bools,
    Floats,
    Ids,
    as_embeddings,
    as_ids,
    as_issame,
    as_scores,
    as_targets,
    require_one_kind,
)
from .roc import Roc, TarAtFar, accepted, roc_curve
from .vectors import CHUNK_ROWS, unit

FAR_TARGETS = (1e-6, 1e-5, 1e-4, 1e-3, 1e-2, 1e-1)

_PRODUCT_ROWS = 128
#: Scores are told apart to 1 / _GRID, 1.5e-11, a power of two so that 1 remains 1.
_GRID = 2.0**36
#: A gathered pair costs about as much as this many entries of a matrix product.
_GATHER_COST = 24


@dataclass(frozen=True, eq=False)
class TemplateReport(VerificationReport):
    """What `verify_templates` answers for N pairs among T templates."""

    template_ids: Ids
    """(T,) ascending."""
    template_features: Floats
    """(T, D) of length one."""
    scores: Floats
    """(N,) cosines."""
    issame: Bools
    """(N,) True for a genuine pair."""
    roc: Roc
    """The exact ROC over all pairs."""
    tar_at_far: dict[float, TarAtFar | None]
    """By FAR target; None where there are too few impostor pairs to measure such a FAR."""
    nearest_tar_at_far: dict[float, float]
    """By FAR target, as InsightFace's IJB tables: TAR at the point of scikit-learn's ROC whose FAR
    is nearest the target. It may lie above the target, and it is given however few the pairs."""

    def figures(self) -> list[Figure]:
        return [
            Figure("templates", "templates", len(self.template_ids)),
            *self.pair_counts(),
            Figure("auc", "AUC", self.auc),
            Figure("eer", "EER", self.eer),
            *rate_figures("tar_at_far", "TAR@FAR", self.tar_at_far, "impostor pairs"),
            *(
                Figure(f"nearest_tar_at_far_{target:g}", f"TAR@nearest FAR={target:g}", tar)
                for target, tar in self.nearest_tar_at_far.items()
            ),
        ]


def verify_templates(
    features: ArrayLike,
    templates: ArrayLike,
    medias: ArrayLike,
    p1: ArrayLike,
    p2: ArrayLike,
    labels: ArrayLike,
    *,
    flipped: ArrayLike | None = None,
    detector_scores: ArrayLike | None = None,
    norm_weighting: bool = True,
    far_targets: Sequence[float] = FAR_TARGETS,
) -> TemplateReport:
    """Pool images to templates and verify pairs of templates.

    Args:
        features: (images, D); see `pool_templates` for this and all that concerns images.
        templates: (images,) ids of the template each image belongs to; gaps are allowed.
        medias: (images,) ids of the photograph or video each image is or comes from.
        p1, p2: (N,) template ids of the pairs.
        labels: (N,) 1 or True where both templates are of one person.
        far_targets: the FARs at which TAR is reported.

    Raises:
        ValueError: features that are NaN, infinite or zero; lengths that differ; a pair of a
            template that has no image; a template whose images cancel out; no genuine or no
            impostor pair; a FAR outside 0..1.

    Beyond its input it needs memory for the float64 template features and about ten numbers a pair.
    """
    targets = as_targets(far_targets)
    issame = as_issame(labels, np.size(labels), "labels")
    first, second = as_ids(p1, len(issame), "p1", "labels"), as_ids(p2, len(issame), "p2", "labels")
    template_features, template_ids = pool_templates(
        features,
        templates,
        medias,
        flipped=flipped,
        detector_scores=detector_scores,
        norm_weighting=norm_weighting,
    )
    scores = score_pairs(
        template_features, rows_of(first, template_ids, "p1"), rows_of(second, template_ids, "p2")
    )
    # Cuts off what arithmetic leaves of ties, without another sort of millions.
    scores = np.rint(scores * _GRID) / _GRID
    roc = roc_curve(scores, issame)
    return TemplateReport(
        template_ids=template_ids,
        template_features=template_features,
        scores=scores,
        issame=issame,
        roc=roc,
        tar_at_far={target: roc.tar_at_far(target) for target in targets},
        nearest_tar_at_far=_nearest_tar_at_far(roc, targets),
    )


def pool_templates(
    features: ArrayLike,
    templates: ArrayLike,
    medias: ArrayLike,
    *,
    flipped: ArrayLike | None = None,
    detector_scores: ArrayLike | None = None,
    norm_weighting: bool = True,
) -> tuple[Floats, Ids]:
    """The sum of each template's media means, at length one.

    Args:
        features: (images, D) as the backbone gives them; may be a memory map.
        templates: (images,) template ids.
        medias: (images,) media ids; they count within a template.
        flipped: (images, D) features of the mirrored images, added to `features`: the flip test.
        detector_scores: (images,) weights, the detector's confidence in each face.
        norm_weighting: True leaves an image's weight at the length of its feature, which is small
            for poor images; False gives all images the same.

    Returns:
        (T, D) float64 features and their (T,) template ids, ascending.
    """
    features = as_embeddings(features, "features")
    images = len(features)
    if flipped is not None:
        flipped = as_embeddings(flipped, "flipped")
        if flipped.shape != features.shape:
            raise ValueError(
                f"flipped must be shaped as features, {features.shape}, not {flipped.shape}"
            )
    templates = as_ids(templates, images, "templates", "features")
    medias = as_ids(medias, images, "medias", "features")

    order = np.lexsort((medias, templates))
    new_template = _starts_of_runs(templates[order])
    media = np.cumsum(new_template | _starts_of_runs(medias[order])) - 1
    weights = 1 / np.bincount(media)[media]
    if detector_scores is not None:
        detector_scores = as_scores(detector_scores, "detector_scores")
        if len(detector_scores) != images:
            raise ValueError(
                f"detector_scores must be ({images},), one for each of features, "
                f"not ({len(detector_scores)},)"
            )
        weights *= detector_scores[order]

    owner = np.cumsum(new_template) - 1
    template_ids = templates[order][new_template]
    pooled = np.zeros((len(template_ids), features.shape[1]))
    for begin in range(0, images, CHUNK_ROWS):
        part = slice(begin, begin + CHUNK_ROWS)
        chunk = features[order[part]].astype(np.float64)
        if flipped is not None:
            chunk += flipped[order[part]]
        if not norm_weighting:
            chunk = unit(chunk)
        starts = np.flatnonzero(_starts_of_runs(owner[part]))
        ends = np.append(starts[1:], len(chunk))
        for template, start, end in zip(owner[part][starts], starts, ends, strict=True):
            pooled[template] += weights[begin + start : begin + end] @ chunk[start:end]

    lost = ~pooled.any(axis=1)
    if lost.any():
        raise ValueError(
            f"template {template_ids[lost.argmax()]} has no direction: its images' features, "
            "times their weights, sum to zero"
        )
    return unit(pooled), template_ids


def score_pairs(features: Floats, first: NDArray[np.intp], second: NDArray[np.intp]) -> Floats:
    """Inner products (N,) of rows `first` (N,) and `second` (N,) of `features` (T, D).

    Benchmarks pair each of a few thousand templates with very many others. Where that is so, a
    matrix product and a choice from it costs less than gathering the rows of every pair.
    """
    scores = np.empty(len(first))
    order = np.argsort(first)
    rows = np.unique(first)
    ends = np.searchsorted(first, rows, "right", sorter=order)
    pairs_of = np.split(order, ends[:-1])
    for start in range(0, len(rows), _PRODUCT_ROWS):
        block = slice(start, start + _PRODUCT_ROWS)
        pairs = np.concatenate(pairs_of[block])
        if len(pairs) * _GATHER_COST > len(rows[block]) * len(features):
            product = features[rows[block]] @ features.T
            scores[pairs] = product[np.searchsorted(rows[block], first[pairs]), second[pairs]]
            continue
        for row, pairs in zip(rows[block], pairs_of[block], strict=True):
            for begin in range(0, len(pairs), CHUNK_ROWS):
                chunk = pairs[begin : begin + CHUNK_ROWS]
                scores[chunk] = features[second[chunk]] @ features[row]
    return scores


def _starts_of_runs(values: Ids) -> Bools:
    return np.concatenate([[True], values[1:] != values[:-1]])


def rows_of(ids: Ids, template_ids: Ids, name: str) -> NDArray[np.intp]:
    require_one_kind(ids, template_ids, f"{name} and templates")
    rows = np.minimum(np.searchsorted(template_ids, ids), len(template_ids) - 1)
    missing = template_ids[rows] != ids
    if missing.any():
        raise ValueError(
            f"{name} names template {ids[missing.argmax()]}, which has no image in templates"
        )
    return rows


def _nearest_tar_at_far(roc: Roc, targets: Sequence[float]) -> dict[float, float]:
    """TAR at the nearest FAR among the points that scikit-learn's `roc_curve` keeps.

    Those are the first and the last score, and where the steps from score to score change: of
    several in a straight line with even steps, only the outer ones.
    """
    scores = np.concatenate([roc.genuine, roc.impostor])
    scores.sort(kind="stable")  # Merges the two sorted parts.
    distinct = scores[_starts_of_runs(scores)][::-1]
    counts = [accepted(part, distinct) for part in (roc.impostor, roc.genuine)]
    bend = np.ones(len(distinct), dtype=bool)
    bend[1:-1] = (np.diff(counts[0], 2) != 0) | (np.diff(counts[1], 2) != 0)
    far, tar = (np.append(count[bend][::-1], 0) / count[-1] for count in counts)
    # Loosest first: of two equally near points it is the looser one that is read.
    return {target: float(tar[np.argmin(np.abs(far - target))]) for target in targets}
