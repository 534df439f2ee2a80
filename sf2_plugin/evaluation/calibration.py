r"""Probabilities of "same person", and how far they can be trusted.

SphereFace2 learns binary decisions with one scale and one bias for all classes, so that its head
turns a cosine into log-odds, scale * g(cosine) + bias; a softmax head has nothing of the kind. The
log-odds are taken at even odds of a genuine and an impostor pair, where they equal the log of the
likelihood ratio, llr. Every figure below weighs the two kinds of pairs by the `prior`, not by how
many of each a benchmark happens to hold.

- Reliability curve and expected calibration error (ECE): in bins of predicted probability, the
  share that is genuine, and the mean difference of the two (Naeini et al., AAAI 2015).
- Cllr, in bits: [mean log2(1 + 1/lr) over genuine + mean log2(1 + lr) over impostor pairs] / 2.
  A system that always answers one half costs 1. Its minimum is that of the best monotonic map of
  the scores; the difference is what calibration loses (Bruemmer and du Preez, 2006).
- DCF, the detection cost at the threshold that the log-odds themselves prescribe for a prior, over
  the cost of deciding blindly; its minimum is that of the best threshold (NIST SRE).
"""

import dataclasses
import json
import math
import os
import warnings
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import ArrayLike

from ..atomic import atomic_file
from ..reading import reading
from ..requirements import require
from .figures import Figure, Report
from .input_checks import Floats, Ids, as_issame, as_scores, as_targets
from .roc import Roc, roc_curve

#: Bound of scale, t and bias: nothing that was trained or fitted comes near.
_MOST = 1e6
#: A probability that moves by less over all pairs tells nothing; by less than the second, little.
_FLAT, _NEARLY_FLAT = 0.05, 0.2


def g(cosines: Floats, t: float) -> Floats:
    """Similarity adjustment of the head, 2((z + 1)/2)^t - 1, on (N,) cosines.

    Rounding may leave a cosine just below -1, where a fractional power is not a real number.
    """
    return 2 * np.maximum((cosines + 1) / 2, 0) ** t - 1


@dataclass(frozen=True)
class Calibration:
    """log-odds(cosine) = scale * g(cosine; t) + bias, at even odds.

    Raises:
        ValueError: a scale that is not positive, t below 1, a number beyond a million or none.
    """

    scale: float
    t: float
    bias: float
    fitted_pairs: int = 0
    """How many pairs scale and bias were refitted on; 0 where they are the head's own."""

    def __post_init__(self) -> None:
        for name, lowest, highest in (
            ("scale", 0, _MOST),
            ("t", 1, _MOST),
            ("bias", -_MOST, _MOST),
            ("fitted_pairs", 0, math.inf),
        ):
            value = getattr(self, name)
            number = isinstance(value, (int, float)) and not isinstance(value, bool)
            if not (number and lowest <= value <= highest):
                raise ValueError(
                    f"{name} must be a number from {lowest:g} to {highest:g}, not {value!r:.40}"
                )
        if self.scale == 0:
            raise ValueError("scale must be above 0")
        if self.fitted_pairs != int(min(self.fitted_pairs, 2**53)):
            raise ValueError(f"fitted_pairs must be a whole number, not {self.fitted_pairs!r:.40}")

    @classmethod
    def from_head(cls, head: Any) -> "Calibration":
        """The head's own scale, t and bias; `head` is a `SphereFace2` or a sharded one."""
        return cls(scale=head.recipe.scale, t=head.recipe.t, bias=float(head.bias.detach()))

    def log_odds(self, cosines: ArrayLike) -> Floats:
        """(N,) log-odds of (N,) cosines."""
        return self.scale * g(as_scores(cosines, "cosines"), self.t) + self.bias

    def probability(self, cosines: ArrayLike, prior: float = 0.5) -> Floats:
        """(N,) probability that a pair is of one person, where a share `prior` of pairs is."""
        return _sigmoid(self.log_odds(cosines) + _logit(prior))

    def refit(self, cosines: ArrayLike, issame: ArrayLike) -> "Calibration":
        """Scale and bias anew, on a development set that shares nobody with the evaluation's.

        Logistic regression on g(cosine), genuine and impostor pairs weighing the same in all. The
        targets fall short of 0 and 1 by what so few pairs cannot tell (Platt, 1999), so that pairs
        without a single error do not make the scale infinite.

        Raises:
            ValueError: NaN cosines, lengths that differ, no genuine or no impostor pair, or pairs
                of which the genuine score no higher, or hardly, than the others.

        Warns where no genuine pair scores below an impostor pair, for then nothing but their
        number says how steep the probability is.
        """
        cosines = as_scores(cosines, "cosines")
        issame = as_issame(issame, len(cosines))
        sklearn = require("sklearn.linear_model", "eval", purpose="a refit needs scikit-learn")
        genuine = np.count_nonzero(issame)
        impostor = len(issame) - genuine
        target = np.where(issame, (genuine + 1) / (genuine + 2), 1 / (impostor + 2))
        weight = np.where(issame, 0.5 / genuine, 0.5 / impostor) * len(issame)
        adjusted = np.tile(g(cosines, self.t), 2)[:, None]
        # A pair with the target p counts p times as genuine and 1 - p times as impostor.
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # What it did not find is refused below.
            model = sklearn.LogisticRegression(C=np.inf, solver="newton-cholesky", tol=1e-10).fit(
                adjusted,
                np.repeat([True, False], len(issame)),
                np.concatenate([weight * target, weight * (1 - target)]),
            )
        scale, bias = float(model.coef_[0, 0]), float(model.intercept_[0])
        means = (
            f"the cosines' means are {cosines[issame].mean():.4f} and {cosines[~issame].mean():.4f}"
        )
        if not scale > 0:
            raise ValueError(
                "genuine pairs score no higher than impostor pairs: there is nothing to calibrate "
                f"(slope {scale:.4g}; {means})"
            )
        refitted = Calibration(scale, self.t, bias, fitted_pairs=len(issame))
        lowest, highest = refitted.probability([cosines.min(), cosines.max()])
        if highest - lowest < _FLAT:
            raise ValueError(
                "genuine pairs score hardly higher than impostor pairs: over all pairs the "
                f"probability would move from {lowest:.3f} to {highest:.3f} (slope {scale:.4g}; "
                f"{means})"
            )
        if cosines[issame].min() > cosines[~issame].max():
            warnings.warn(
                f"genuine pairs (cosine {cosines[issame].min():.4f} and more) and impostor pairs "
                f"({cosines[~issame].max():.4f} and less) do not overlap: how steep the refitted "
                f"probability is (scale {scale:.4g}) follows from their number alone",
                stacklevel=2,
            )
        return refitted

    def save(self, path: str | os.PathLike[str]) -> None:
        """Write JSON; see `calibration_path` for where a model's is looked for."""
        with atomic_file(os.fspath(path), "w") as file:
            json.dump(dataclasses.asdict(self), file, indent=2)
            file.write("\n")

    @classmethod
    def load(cls, path: str | os.PathLike[str]) -> "Calibration":
        """Read what `save` wrote; a ValueError names the file and what is wrong with it."""
        with reading(path, "a calibration"):
            values = json.loads(Path(path).read_text(encoding="utf-8"))
            if not isinstance(values, dict):
                raise ValueError("it must hold an object")
            return cls(**values)


def calibration_path(model: str | os.PathLike[str]) -> Path:
    """Where a model's calibration lies: beside it, `NAME.calibration.json`."""
    model = Path(model)
    return model.with_name(f"{model.name}.calibration.json")


def refit_pairs(pairs: int, folds: int) -> int:
    """How many of a set's pairs, from the first, a refit takes: the first half of the folds.

    The others are for judging it.
    """
    return int(np.array_split(np.arange(pairs), folds)[folds // 2][0])


@dataclass(frozen=True, eq=False)
class CalibrationReport(Report):
    """What `evaluate_calibration` answers; the module says what the figures mean."""

    calibration: Calibration
    prior: float
    ece: float
    cllr: float
    min_cllr: float
    dcf_prior: float
    dcf: float
    min_dcf: float
    predicted: Floats
    """(B,) mean predicted probability in each bin that holds a pair, ascending."""
    observed: Floats
    """(B,) share of genuine pairs in it, at `prior`."""
    counts: Ids
    """(B,) pairs in it."""
    doubts: tuple[str, ...] = ()
    """Why these probabilities are not to be used, with the figures that show it."""

    def figures(self) -> list[Figure]:
        calibration = self.calibration
        own = "" if calibration.fitted_pairs else "(the head's own scale and bias)"
        return [
            Figure("scale", "scale", calibration.scale),
            Figure("t", "t", calibration.t),
            Figure("bias", "bias", calibration.bias),
            Figure("fitted_pairs", "refit on pairs", calibration.fitted_pairs, note=own),
            Figure("prior", "prior", self.prior),
            Figure("ece", "ECE", self.ece),
            Figure("cllr", "Cllr", self.cllr),
            Figure("min_cllr", "Cllr at best", self.min_cllr),
            Figure("dcf_prior", "DCF's prior", self.dcf_prior),
            Figure("dcf", "DCF", self.dcf),
            Figure("min_dcf", "DCF at best", self.min_dcf),
        ]


def evaluate_calibration(
    calibration: Calibration,
    cosines: ArrayLike,
    issame: ArrayLike,
    *,
    prior: float = 0.5,
    dcf_prior: float = 0.01,
    bins: int = 15,
) -> CalibrationReport:
    """Judge a calibration's probabilities on pairs.

    Args:
        calibration: what turns cosines into log-odds.
        cosines: (N,).
        issame: (N,), True for a genuine pair.
        prior: the share of genuine pairs at which probabilities are compared with what happens.
        dcf_prior: the share of genuine pairs for the detection cost; an error of either kind
            costs the same.
        bins: of equal width in probability, for the reliability curve and the ECE.

    Raises:
        ValueError: NaN cosines, lengths that differ, no genuine or no impostor pair, a prior
            outside 0..1, fewer than one bin.
    """
    if bins < 1:
        raise ValueError(f"bins must be at least 1, not {bins}")
    prior, dcf_prior = as_targets([prior, dcf_prior], "prior and dcf_prior")
    log_odds = calibration.log_odds(cosines)
    issame = as_issame(issame, len(log_odds))
    roc = roc_curve(log_odds, issame)

    probability = _sigmoid(log_odds + _logit(prior))
    weight = np.where(issame, prior / len(roc.genuine), (1 - prior) / len(roc.impostor))
    bin_of = np.minimum((probability * bins).astype(np.int64), bins - 1)
    mass = np.bincount(bin_of, weight, bins)
    held = mass > 0
    predicted = np.bincount(bin_of, weight * probability, bins)[held] / mass[held]
    observed = np.bincount(bin_of, weight * issame, bins)[held] / mass[held]

    cllr = _cllr(roc)
    far, tar = roc.rates(-_logit(dcf_prior))
    return CalibrationReport(
        calibration=calibration,
        prior=prior,
        ece=float(np.sum(mass[held] * np.abs(predicted - observed))),
        cllr=cllr,
        min_cllr=_min_cllr(roc),
        dcf_prior=dcf_prior,
        dcf=float(_dcf(far, tar, dcf_prior)),
        min_dcf=float(np.min(_dcf(roc.far, roc.tar, dcf_prior))),
        predicted=predicted,
        observed=observed,
        counts=np.bincount(bin_of, minlength=bins)[held],
        doubts=_doubts(as_scores(cosines), _sigmoid(log_odds), cllr),
    )


def _doubts(cosines: Floats, probability: Floats, cllr: float) -> tuple[str, ...]:
    doubts = []
    lowest, highest = float(probability.min()), float(probability.max())
    if highest - lowest < _NEARLY_FLAT:
        doubts.append(
            f"the probability hardly moves with the cosine: from {lowest:.3f} to {highest:.3f} "
            f"over cosines from {cosines.min():.3f} to {cosines.max():.3f}"
        )
    if cllr > 1:
        doubts.append(f"Cllr is {cllr:.3f}, and always to answer one half would cost 1")
    return tuple(doubts)


def _cllr(roc: Roc) -> float:
    genuine = np.logaddexp(0, -roc.genuine).mean()
    impostor = np.logaddexp(0, roc.impostor).mean()
    return float((genuine + impostor) / (2 * math.log(2)))


def _min_cllr(roc: Roc) -> float:
    """Pool adjacent violators over the steps of the ROC, which are its runs of equal outcome."""
    sklearn = require("sklearn.isotonic", "eval", purpose="min Cllr needs scikit-learn")
    genuine, impostor = np.diff(roc.tar)[::-1], np.diff(roc.far)[::-1]
    mass = genuine + impostor
    posterior = sklearn.isotonic_regression(genuine / mass, sample_weight=mass)
    # Where the posterior is 0 or 1 there is no pair of the other kind, and 0 log 0 is 0.
    bits = genuine * np.log2(np.where(genuine > 0, posterior, 1))
    bits += impostor * np.log2(np.where(impostor > 0, 1 - posterior, 1))
    return float(-bits.sum() / 2)


def _dcf(far: Any, tar: Any, prior: float) -> Any:
    return (prior * (1 - tar) + (1 - prior) * far) / min(prior, 1 - prior)


def _logit(share: float) -> float:
    (share,) = as_targets([share], "prior")
    return math.log(share) - math.log1p(-share)


def _sigmoid(x: Floats) -> Floats:
    return np.exp(-np.logaddexp(0, -x))
