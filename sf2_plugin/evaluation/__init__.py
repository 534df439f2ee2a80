"""Verification, identification and calibration figures: numpy arrays in, frozen reports out."""

from .pairs import (
    CommonThreshold,
    PairReport,
    best_common_threshold,
    verify_pairs,
    verify_scores,
)
from .roc import Roc, TarAtFar, roc_curve

__all__ = [
    "CommonThreshold",
    "PairReport",
    "Roc",
    "TarAtFar",
    "best_common_threshold",
    "roc_curve",
    "verify_pairs",
    "verify_scores",
]
