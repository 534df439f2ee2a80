"""What a product needs beside the network: probabilities, and thresholds at false accept rates."""

import hashlib
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from ..backbones import Backbone, embed_images, file_digest
from ..data import PairSet, read_pairs
from ..evaluation import Calibration, CalibrationReport, PairReport, evaluate_calibration
from ..evaluation.calibration import refit_pairs
from ..evaluation.pairs import check_pairs, verify_pairs
from ..progress import Progress

FAR_TARGETS = (1e-2, 1e-3, 1e-4, 1e-5, 1e-6)
FOLDS = 10


@dataclass(frozen=True)
class Thresholds:
    """What is known of a model's cosines.

    Attributes:
        calibration: what turns them into probabilities; None where nothing is known.
        source: where that is from.
        pairs: the pair set, as `calibration.json` names it; None without one.
        report: its verification; None without one.
        judged: its calibration, on pairs that the refit has not seen.
    """

    calibration: Calibration | None
    source: str
    pairs: dict[str, Any] | None = None
    report: PairReport | None = None
    judged: dict[str, CalibrationReport] = field(default_factory=dict)

    def at_far(self) -> dict[str, dict[str, Any]]:
        """Of each target FAR, the threshold on the cosine and what it rests on."""
        return {f"{target:g}": self._at(target) for target in FAR_TARGETS}

    def _at(self, target: float) -> dict[str, Any]:
        impostors = len(self.report.roc.impostor) if self.report else 0
        rate = self.report.tar_at_far[target] if self.report else None
        if rate is None:
            note = (
                f"not measurable: {impostors} impostor pairs, at least {1 / target:.0f} are wanted"
            )
            return {"threshold": None, "impostor_pairs": impostors, "note": note}
        values = {
            "threshold": rate.threshold,
            "impostor_pairs": impostors,
            "false_accepts": round(rate.far * impostors),
            **{name: getattr(rate, name) for name in ("far", "far_low", "far_high")},
            "tar": rate.tar,
            "tar_low": rate.low,
            "tar_high": rate.high,
        }
        if self.calibration:
            values["probability"] = float(self.calibration.probability([rate.threshold])[0])
        return values

    def as_dict(self) -> dict[str, Any]:
        """What `calibration.json` holds."""
        known = self.calibration
        names = ("scale", "t", "bias", "fitted_pairs")
        return {
            **{name: getattr(known, name) if known else None for name in names},
            "source": self.source,
            "thresholds": self.at_far(),
            "pairs": self.pairs,
            "figures": self.figures(),
        }

    def figures(self) -> dict[str, Any]:
        """Of the pair set: its verification, and its calibration before and after the refit."""
        figures: dict[str, Any] = self.report.as_dict() if self.report else {}
        if self.judged:
            figures["calibration"] = {name: each.as_dict() for name, each in self.judged.items()}
        return figures


def read_pair_set(path: Path, root: Path | None = None) -> PairSet:
    """A pair set that can be measured, before anything is embedded."""
    pairs = read_pairs(path, root=root)
    check_pairs(pairs.name, pairs.issame, FOLDS)
    return pairs


def measure(
    backbone: Backbone,
    known: Calibration,
    source: str,
    pairs: PairSet,
    path: Path,
    progress: Progress | None = None,
) -> Thresholds:
    """Refit a calibration on the first half of a pair set's folds, judge it on the second, as `sf2
    eval pairs --calibration` does; and measure thresholds on all of it.

    Args:
        backbone: the exported file's own, so that what is measured is what is shipped.
        known: of which the refit keeps t.
        source: where that is from; empty where no more than t is known.
    """
    embed = partial(embed_images, backbone, flip_test=False, progress=progress)
    embeddings = pairs.embeddings(embed)
    report = verify_pairs(embeddings, pairs.issame, FOLDS, FAR_TARGETS)
    fitted = refit_pairs(len(pairs.issame), FOLDS)
    scores, issame = report.scores, report.issame
    calibrations = {source: known} if source else {}
    try:
        calibrations["refit"] = known.refit(scores[:fitted], issame[:fitted])
        origin = f"refit on {fitted} pairs of {path.name}"
    except ValueError as error:  # What was known is kept and judged all the same.
        origin = f"{source or 'no head is known'}, and not refitted: {error}"
    judged = {
        name: evaluate_calibration(each, scores[fitted:], issame[fitted:])
        for name, each in calibrations.items()
    }
    facts = {
        "name": path.name,
        "sha256": file_digest(path),
        "content_sha256": _content_digest(pairs),
        "genuine": int(np.count_nonzero(pairs.issame)),
        "impostor": int(np.count_nonzero(~pairs.issame)),
        "distinct_images": len(set(pairs.images)),
    }
    after = next(reversed(calibrations.values()), None)
    return Thresholds(after, origin, facts, report, judged)


def _content_digest(pairs: PairSet) -> str:
    """SHA-256 over the images and flags, in order: a list names files whose content may change."""
    digest = hashlib.sha256()
    for image in pairs.images:
        content = image if isinstance(image, bytes) else Path(image).read_bytes()
        digest.update(hashlib.sha256(content).digest())
    digest.update(pairs.issame.astype(np.uint8).tobytes())
    return digest.hexdigest()
