"""1:1 verification of pairs by the protocol of Labeled Faces in the Wild.

The best threshold of nine folds is applied to the tenth, ten times over (Huang et al., 2007).
Two answers are given. The exact one looks at every threshold there is. The other, under the names
`grid_*`, is the one that InsightFace's tables hold: squared distances of unit embeddings against
a fixed grid of thresholds.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import ArrayLike

from .figures import Figure, VerificationReport, rate_figures
from .input_checks import Bools, Floats, as_embeddings, as_issame, as_scores, as_targets
from .roc import Roc, TarAtFar, best_threshold, roc_curve
from .vectors import CHUNK_ROWS, merge_ties, tie_tolerance, unit

FAR_TARGETS = (1e-3, 1e-2, 1e-1)

_ACCURACY_GRID = np.arange(0, 4, 0.01)
_VAL_GRID = np.arange(0, 4, 0.001)
_VAL_FAR = 1e-3


@dataclass(frozen=True, eq=False)
class PairReport(VerificationReport):
    """What `verify_pairs` and `verify_scores` answer for N pairs in F folds."""

    scores: Floats
    """(N,) higher for more alike; cosines where the report comes from embeddings."""
    issame: Bools
    """(N,) True for a genuine pair."""
    accuracy: Floats
    """(F,) share of a fold's pairs decided rightly by the best threshold of the other folds."""
    thresholds: Floats
    """(F,) those thresholds, on `scores`: a pair is accepted at or above."""
    roc: Roc
    """The exact ROC over all pairs."""
    tar_at_far: dict[float, TarAtFar | None]
    """By FAR target; None where there are too few impostor pairs to measure such a FAR."""
    grid_accuracy: Floats | None = None
    """(F,) as `accuracy`, by the smallest best threshold of the grid. The `grid_*` figures are
    what arcface_torch's `eval/verification.py` answers; None where the scores are no cosines."""
    grid_tpr: Floats | None = None
    """(400,) mean over the folds at squared distances below 0, 0.01 ... 3.99."""
    grid_fpr: Floats | None = None
    """(400,) likewise."""
    grid_val: float | None = None
    """TAR at FAR 0.001, mean over the folds: the threshold is interpolated on a grid of 0.001
    over the other folds, at the last of several grid points of one FAR."""
    grid_val_std: float | None = None
    """Its deviation over the folds."""
    grid_val_far: float | None = None
    """The mean FAR that those thresholds give."""

    @property
    def accuracy_mean(self) -> float:
        return float(self.accuracy.mean())

    @property
    def accuracy_std(self) -> float:
        """Over the folds, divided by F as the field does."""
        return float(self.accuracy.std())

    def figures(self) -> list[Figure]:
        figures = [
            *self.pair_counts(),
            Figure("accuracy_mean", "accuracy", self.accuracy_mean),
            Figure("accuracy_std", "accuracy std", self.accuracy_std),
            Figure("eer", "EER", self.eer),
            *rate_figures("tar_at_far", "TAR@FAR", self.tar_at_far, "impostor pairs"),
            Figure("auc", "AUC", self.auc),
            Figure("threshold_mean", "threshold", float(self.thresholds.mean())),
        ]
        if self.grid_accuracy is not None:
            mean, deviation = float(self.grid_accuracy.mean()), float(self.grid_accuracy.std())
            figures += [
                Figure("grid_accuracy_mean", "grid accuracy", mean),
                Figure("grid_accuracy_std", "grid accuracy std", deviation),
                Figure("grid_val", "grid TAR@FAR=0.001", self.grid_val),
                Figure("grid_val_std", "grid TAR std", self.grid_val_std),
                Figure("grid_val_far", "grid FAR", self.grid_val_far),
            ]
        return figures


def verify_pairs(
    embeddings: ArrayLike,
    issame: ArrayLike,
    folds: int = 10,
    far_targets: Sequence[float] = FAR_TARGETS,
) -> PairReport:
    """Verify pairs of faces from their embeddings.

    Args:
        embeddings: (2N, D), rows 2i and 2i+1 a pair; of any length, the cosine is what counts.
        issame: (N,), True where both faces are of one person.
        folds: the pairs are cut into this many runs, in order.
        far_targets: the FARs at which TAR is reported.

    Raises:
        ValueError: embeddings that are NaN, infinite or zero; lengths that differ; no genuine or
            no impostor pair, in all or in one fold; a FAR outside 0..1.
    """
    embeddings = as_embeddings(embeddings)
    if len(embeddings) % 2:
        raise ValueError(
            f"embeddings must have two rows a pair, an even number, not {len(embeddings)}"
        )
    issame = as_issame(issame, len(embeddings) // 2)
    scores = merge_ties(pair_cosines(embeddings), tie_tolerance(embeddings))
    return verify_scores(scores, issame, folds, far_targets)


def check_pairs(
    name: str, issame: ArrayLike, folds: int = 10, far_targets: Sequence[float] = FAR_TARGETS
) -> None:
    """Refuse what `verify_pairs` would refuse of a pair set, before its faces are embedded.

    Args:
        name: the set's, for the error.
        issame, folds, far_targets: as for `verify_pairs`.

    Raises:
        ValueError: as `verify_pairs`.
    """
    as_targets(far_targets)
    try:
        _fold_of(as_issame(issame, len(np.asarray(issame))), folds)
    except ValueError as error:
        raise ValueError(f"pair set {name}: {error}") from None


def verify_scores(
    scores: ArrayLike,
    issame: ArrayLike,
    folds: int = 10,
    far_targets: Sequence[float] = FAR_TARGETS,
) -> PairReport:
    """Verify pairs from their scores (N,), higher for more alike; else as `verify_pairs`.

    Scores need not be cosines; where they all lie in -1..1 they are taken for cosines by the
    `grid_*` part of the report, which is left out where they do not.
    """
    scores = as_scores(scores)
    issame = as_issame(issame, len(scores))
    targets = as_targets(far_targets)
    fold_of = _fold_of(issame, folds)
    roc = roc_curve(scores, issame)
    thresholds = _fold_thresholds(scores, issame, fold_of, folds)
    right = (scores >= thresholds[fold_of]) == issame
    looks_like_cosine = np.abs(scores).max() <= 1 + 1e-6
    return PairReport(
        scores=scores,
        issame=issame,
        accuracy=np.bincount(fold_of, weights=right) / np.bincount(fold_of),
        thresholds=thresholds,
        roc=roc,
        tar_at_far={target: roc.tar_at_far(target) for target in targets},
        **(_grid_answers(scores, issame, fold_of, folds) if looks_like_cosine else {}),
    )


@dataclass(frozen=True, eq=False)
class CommonThreshold:
    """One threshold for several sets: see `best_common_threshold`."""

    threshold: float
    accuracy: Floats
    """(sets,) by that threshold."""
    own_accuracy: Floats
    """(sets,) by each set's own best threshold, which no common one can exceed."""

    @property
    def accuracy_mean(self) -> float:
        return float(self.accuracy.mean())


def best_common_threshold(reports: Sequence[PairReport]) -> CommonThreshold:
    """The one threshold of best mean accuracy over several sets, every set weighing the same.

    SphereFace2 is trained for a threshold that holds everywhere: what a set loses by it, against
    a threshold of its own, tells how far that holds. Nothing is held out here, in either.
    """
    if not reports:
        raise ValueError("reports must hold at least one report")
    rocs = [report.roc for report in reports]
    threshold = best_threshold(rocs)
    return CommonThreshold(
        threshold=threshold,
        accuracy=np.array([roc.accuracy(threshold) for roc in rocs]),
        own_accuracy=np.array([roc.accuracy(best_threshold([roc])) for roc in rocs]),
    )


def pair_cosines(embeddings: np.ndarray) -> Floats:
    """Cosines of rows 2i and 2i+1, from their distance: exact for equal faces, never above 1."""
    cosines = np.empty(len(embeddings) // 2)
    for start in range(0, len(cosines), CHUNK_ROWS):
        chunk = unit(embeddings[2 * start : 2 * (start + CHUNK_ROWS)])
        difference = chunk[0::2] - chunk[1::2]
        cosines[start : start + CHUNK_ROWS] = 1 - np.einsum("ij,ij->i", difference, difference) / 2
    return np.maximum(cosines, -1.0, out=cosines)


def _fold_of(issame: Bools, folds: int) -> np.ndarray:
    """(N,) the fold of each pair: runs of equal length, the first ones a pair longer."""
    pairs = len(issame)
    if not 2 <= folds <= pairs:
        raise ValueError(f"folds must be between 2 and the number of pairs, {pairs}, not {folds}")
    lengths = np.full(folds, pairs // folds)
    lengths[: pairs % folds] += 1
    fold_of = np.repeat(np.arange(folds), lengths)
    genuine = np.bincount(fold_of, weights=issame)
    one_sided = (genuine == 0) | (genuine == lengths)
    if one_sided.any():
        fold = int(one_sided.argmax())
        start = int(lengths[:fold].sum())
        kind = "impostor" if genuine[fold] == 0 else "genuine"
        raise ValueError(
            f"fold {fold + 1} of {folds} (pairs {start} to {start + int(lengths[fold]) - 1}) has "
            f"only {kind} pairs: mix the order of the pairs, or take fewer folds"
        )
    return fold_of


def _fold_thresholds(scores: Floats, issame: Bools, fold_of: np.ndarray, folds: int) -> Floats:
    """(F,) the best threshold of all other folds, from one sort of all scores."""
    order = np.argsort(scores)
    genuine, impostor = order[issame[order]], order[~issame[order]]
    thresholds = np.empty(folds)
    for fold in range(folds):
        train = [part[fold_of[part] != fold] for part in (genuine, impostor)]
        thresholds[fold] = best_threshold([Roc(*(scores[part] for part in train))])
    return thresholds


def _grid_answers(scores: Floats, issame: Bools, fold_of: np.ndarray, folds: int) -> dict[str, Any]:
    squared_distance = np.maximum(2 - 2 * scores, 0)

    def accepts(grid: Floats, kind: Bools) -> np.ndarray:
        """(F, thresholds) pairs of a kind in each fold whose distance is below each threshold."""
        cells = len(grid) + 1
        below = np.searchsorted(grid, squared_distance[kind], "right")
        counts = np.bincount(fold_of[kind] * cells + below, minlength=folds * cells)
        return counts.reshape(folds, cells).cumsum(axis=1)[:, :-1]

    genuine = np.bincount(fold_of, weights=issame)[:, None]
    impostor = np.bincount(fold_of, weights=~issame)[:, None]

    true_accepts = accepts(_ACCURACY_GRID, issame)
    false_accepts = accepts(_ACCURACY_GRID, ~issame)
    right = true_accepts + impostor - false_accepts
    best = np.argmax(right.sum(axis=0) - right, axis=1)

    val_accepts = accepts(_VAL_GRID, ~issame)
    train_far = (val_accepts.sum(axis=0) - val_accepts) / (impostor.sum() - impostor)
    val, val_far = np.empty(folds), np.empty(folds)
    for fold in range(folds):
        reached = train_far[fold].max() >= _VAL_FAR
        threshold = np.interp(_VAL_FAR, train_far[fold], _VAL_GRID) if reached else 0.0
        below = squared_distance[fold_of == fold] < threshold
        same = issame[fold_of == fold]
        val[fold], val_far[fold] = below[same].mean(), below[~same].mean()

    return {
        "grid_accuracy": right[np.arange(folds), best] / (genuine + impostor)[:, 0],
        "grid_tpr": (true_accepts / genuine).mean(axis=0),
        "grid_fpr": (false_accepts / impostor).mean(axis=0),
        "grid_val": float(val.mean()),
        "grid_val_std": float(val.std()),
        "grid_val_far": float(val_far.mean()),
    }
