"""Verification, identification and calibration figures: numpy arrays in, frozen reports out."""

from .identification import IdentificationReport, identify
from .pairs import (
    CommonThreshold,
    PairReport,
    best_common_threshold,
    verify_pairs,
    verify_scores,
)
from .roc import Roc, TarAtFar, roc_curve
from .templates import TemplateReport, pool_templates, verify_templates

__all__ = [
    "CommonThreshold",
    "IdentificationReport",
    "PairReport",
    "Roc",
    "TarAtFar",
    "TemplateReport",
    "best_common_threshold",
    "identify",
    "pool_templates",
    "roc_curve",
    "verify_pairs",
    "verify_scores",
    "verify_templates",
]
