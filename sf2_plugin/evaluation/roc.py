"""The exact ROC of a set of scores, and every figure that is read off it.

A pair is accepted where `score >= threshold`. FAR is the share of impostor pairs accepted, TAR
the share of genuine pairs accepted. Nothing here is binned, sampled or interpolated over a grid.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
from numpy.typing import ArrayLike, NDArray

from .input_checks import Floats, as_issame, as_scores, as_targets

_Z_95 = 1.959963984540054


@dataclass(frozen=True)
class TarAtFar:
    """TAR at the loosest threshold whose measured FAR does not exceed a target.

    `low` and `high` bound `tar`, `far_low` and `far_high` bound `far`: Wilson's 95 % intervals,
    each for independent pairs and for this threshold. Few accepted impostors show in the second.
    """

    tar: float
    low: float
    high: float
    far: float
    far_low: float
    far_high: float
    threshold: float


@dataclass(frozen=True, eq=False)
class Roc:
    """The ROC of `genuine` (G,) and `impostor` (I,) scores, both ascending; see `roc_curve`."""

    genuine: Floats
    impostor: Floats

    @cached_property
    def _vertices(self) -> tuple[Floats, NDArray[np.int64], NDArray[np.int64]]:
        """Thresholds, false accepts and true accepts at the corners, strictest first.

        Between two neighbouring scores of the smaller class only the other class changes, on a
        straight line, so that the corners lie at (>=) and just above (>) the smaller class alone.
        """
        smaller = min(self.genuine, self.impostor, key=len)
        at = np.unique(smaller)[::-1]
        thresholds = np.stack([np.nextafter(at, np.inf), at], axis=1).ravel()
        thresholds = np.concatenate([[np.inf], thresholds, [-np.inf]])
        false_accepts = accepted(self.impostor, thresholds)
        true_accepts = accepted(self.genuine, thresholds)
        moved = (np.diff(false_accepts) != 0) | (np.diff(true_accepts) != 0)
        kept = np.concatenate([[True], moved])
        return thresholds[kept], false_accepts[kept], true_accepts[kept]

    @property
    def thresholds(self) -> Floats:
        """(K,) descending from inf to at most the lowest score; may end in -inf."""
        return self._vertices[0]

    @cached_property
    def far(self) -> Floats:
        """(K,) ascending from 0 to 1, at `thresholds`."""
        return self._vertices[1] / len(self.impostor)

    @cached_property
    def tar(self) -> Floats:
        """(K,) ascending from 0 to 1, at `thresholds`."""
        return self._vertices[2] / len(self.genuine)

    @cached_property
    def auc(self) -> float:
        """The chance that a genuine pair outscores an impostor pair, a tie counting one half."""
        _, false_accepts, true_accepts = self._vertices
        twice = np.diff(false_accepts) * (true_accepts[1:] + true_accepts[:-1])
        return int(twice.sum()) / (2 * len(self.genuine) * len(self.impostor))

    @cached_property
    def eer(self) -> float:
        """Where FAR and the share of genuine pairs refused are equal, on the curve's line."""
        gap = self.far - (1 - self.tar)
        i = self._eer_corner
        share = -gap[i - 1] / (gap[i] - gap[i - 1])
        return float(self.far[i - 1] + share * (self.far[i] - self.far[i - 1]))

    @property
    def eer_threshold(self) -> float:
        """Of the corners, the strictest whose FAR is not below the share of genuine refused."""
        return float(self.thresholds[self._eer_corner])

    @cached_property
    def _eer_corner(self) -> int:
        _, false_accepts, true_accepts = self._vertices
        refused = len(self.genuine) - true_accepts
        # Whole numbers: 1 / 3 is below 1 - 2 / 3.
        above = false_accepts * len(self.genuine) >= refused * len(self.impostor)
        return int(np.argmax(above))

    def rates(self, threshold: float) -> tuple[float, float]:
        """(FAR, TAR) at one threshold."""
        far = accepted(self.impostor, threshold) / len(self.impostor)
        return float(far), float(accepted(self.genuine, threshold) / len(self.genuine))

    def accuracy(self, threshold: float) -> float:
        """The share of all pairs that one threshold decides rightly."""
        return float(_accuracy(self, np.array([threshold]))[0])

    def tar_at_far(self, target: float) -> TarAtFar | None:
        """TAR where FAR is at most `target`; None where `target` times I is less than one pair."""
        (target,) = as_targets([target])
        impostors = len(self.impostor)
        # 0.29 * 100 is 28.999999999999996: rounding must not cost a whole pair.
        allowed = int(np.floor(target * impostors * (1 + 4 * np.finfo(float).eps)))
        if allowed < 1:
            return None
        refused = self.impostor[max(impostors - 1 - allowed, 0)]
        above = [part[np.searchsorted(part, refused, "right") :][:1] for part in self._parts]
        threshold = _between(refused, float(np.min(np.concatenate(above), initial=np.inf)))
        false_accepts = int(accepted(self.impostor, threshold))
        true_accepts = int(accepted(self.genuine, threshold))
        tar_low, tar_high = wilson_interval(true_accepts, len(self.genuine))
        far_low, far_high = wilson_interval(false_accepts, impostors)
        return TarAtFar(
            tar=true_accepts / len(self.genuine),
            low=tar_low,
            high=tar_high,
            far=false_accepts / impostors,
            far_low=far_low,
            far_high=far_high,
            threshold=threshold,
        )

    @property
    def _parts(self) -> tuple[Floats, Floats]:
        return self.genuine, self.impostor


def roc_curve(scores: ArrayLike, issame: ArrayLike) -> Roc:
    """The exact ROC of `scores` (N,), higher for more alike, and `issame` (N,).

    Raises ValueError for NaN or infinite scores, for lengths that differ, and where there is no
    genuine or no impostor pair. Needs two sorts and memory for one copy of the scores.
    """
    scores = as_scores(scores)
    issame = as_issame(issame, len(scores))
    return Roc(np.sort(scores[issame]), np.sort(scores[~issame]))


def accepted(ascending: Floats, threshold: float | Floats) -> NDArray[np.int64]:
    """How many of `ascending` are at or above each threshold."""
    return len(ascending) - np.searchsorted(ascending, threshold, "left")


def best_threshold(rocs: Sequence[Roc]) -> float:
    """The threshold of best accuracy, averaged over the sets; the strictest of several.

    It lies in the middle of the gap between the scores on its either side. Raising a threshold
    past impostors can only help, so that the strictest best one ends at a genuine score, or
    above them all; no other needs a look.
    """
    candidates = np.append(np.unique(np.concatenate([roc.genuine for roc in rocs])), np.inf)
    accuracy = np.mean([_accuracy(roc, candidates) for roc in rocs], axis=0)
    # Means over sets that are equal may differ in their last bits.
    best = accuracy >= accuracy.max() - 4 * np.finfo(float).eps
    upper = candidates[np.flatnonzero(best)[-1]]
    below = [
        part[: np.searchsorted(part, upper, "left")][-1:] for roc in rocs for part in roc._parts
    ]
    return _between(float(np.max(np.concatenate(below), initial=-np.inf)), float(upper))


def _accuracy(roc: Roc, thresholds: Floats) -> Floats:
    refused = len(roc.impostor) - accepted(roc.impostor, thresholds)
    pairs = len(roc.genuine) + len(roc.impostor)
    return (accepted(roc.genuine, thresholds) + refused) / pairs


def _between(lower: float, upper: float) -> float:
    """A finite t with lower < t <= upper, in the middle where both are finite."""
    if not np.isfinite(lower):
        return upper
    if not np.isfinite(upper):
        return float(np.nextafter(lower, np.inf))
    return max(float(lower + (upper - lower) / 2), float(np.nextafter(lower, np.inf)))


def wilson_interval(successes: int, trials: int) -> tuple[float, float]:
    """Wilson's 95 % interval of a share (Wilson, 1927), inside 0..1 and never of zero width."""
    share, squared = successes / trials, _Z_95**2 / trials
    middle = (share + squared / 2) / (1 + squared)
    half = np.sqrt(share * (1 - share) * squared + squared**2 / 4) / (1 + squared)
    # At a share of 0 or 1 an end is the share itself, which rounding would miss.
    return float(np.clip(middle - half, 0.0, share)), float(np.clip(middle + half, share, 1.0))
