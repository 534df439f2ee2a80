"""Verification, identification and calibration figures: numpy arrays in, frozen reports out."""

from .calibration import (
    Calibration,
    CalibrationReport,
    calibration_path,
    evaluate_calibration,
)
from .identification import IdentificationReport, identify
from .ijb import (
    IjbImages,
    IjbPairs,
    IjbSubjects,
    read_ijb_galleries,
    read_ijb_images,
    read_ijb_pairs,
    read_ijb_probes,
)
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
    "Calibration",
    "CalibrationReport",
    "CommonThreshold",
    "IdentificationReport",
    "IjbImages",
    "IjbPairs",
    "IjbSubjects",
    "PairReport",
    "Roc",
    "TarAtFar",
    "TemplateReport",
    "best_common_threshold",
    "calibration_path",
    "evaluate_calibration",
    "identify",
    "pool_templates",
    "read_ijb_galleries",
    "read_ijb_images",
    "read_ijb_pairs",
    "read_ijb_probes",
    "roc_curve",
    "verify_pairs",
    "verify_scores",
    "verify_templates",
]
