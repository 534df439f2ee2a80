"""`sf2 data audit`: labels that look wrong."""

import argparse
from pathlib import Path
from typing import Any

import numpy as np

from ..data import FaceFolder, read_face_folder
from ..datasets.audit import LabelAudit, audit_labels
from ..evaluation import Calibration, calibration_path
from ..progress import progress_bar
from .data import SHOWN, embed_folder, print_figures
from .models import Model, add_backbone_options, read_models


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "models",
        nargs=1,
        metavar="MODEL",
        help="as of sf2 eval pairs, best not trained on these labels; or .npy (images, D), in the "
        "order of the paths",
    )
    parser.add_argument("faces", type=Path, metavar="FACES", help="a folder of PERSON/*.jpg")
    parser.add_argument(
        "--probability",
        type=float,
        default=0.5,
        metavar="P",
        help="list labels that are wrong with at least this probability (default: %(default)s)",
    )
    add_backbone_options(parser)
    parser.add_argument("--json", action="store_true", help="print as JSON, with the whole list")
    parser.set_defaults(run=run)


def run(given: argparse.Namespace) -> None:
    if not 0 < given.probability <= 1:
        raise ValueError(f"--probability must lie above 0 and up to 1, got {given.probability}")
    (model,) = read_models(given)
    faces = read_face_folder(given.faces)
    labels = np.array([label for _, label in faces.samples])
    embeddings = embed_folder(model, faces)
    calibration = _calibration(model)
    audit = audit_labels(embeddings, labels, calibration, progress=progress_bar("comparing"))
    figures = audit.as_dict(given.probability)
    figures["people"] = len(faces.class_names)
    figures["labels"] = _labels(audit, given, faces, calibration)
    print_figures(figures, _text(figures, calibration), given.json)


def _calibration(model: Model) -> Calibration | None:
    """One that was fitted lies beside the model; else the head's own, where the file holds it."""
    stored = calibration_path(model.path)
    if stored.is_file():
        return Calibration.load(stored)
    return None if model.is_saved else model.backbone.calibration


def _labels(
    audit: LabelAudit, given: argparse.Namespace, faces: FaceFolder, calibration: Calibration | None
) -> list[dict[str, Any]]:
    chosen = audit.listed(given.probability)
    labels = [
        {
            "image": faces.samples[i][0].relative_to(given.faces).as_posix(),
            "wrong": float(audit.wrong[i]),
            "person": faces.class_names[faces.samples[i][1]],
            "looks_like": faces.class_names[audit.nearest[i]],
            "cosine_person": float(audit.own[i]),
            "cosine_looks_like": float(audit.other[i]),
        }
        for i in chosen
    ]
    if calibration:
        for name in ("person", "looks_like"):
            cosines = np.array([label[f"cosine_{name}"] for label in labels], np.float64)
            probabilities = calibration.probability(cosines).tolist() if labels else []
            for label, probability in zip(labels, probabilities, strict=True):
                label[f"probability_{name}"] = probability
    return labels


def _text(figures: dict[str, Any], calibration: Calibration | None) -> str:
    lines = [
        f"{figures['images']} images of {figures['people']} people; "
        f"{figures['judged']} labels judged, {100 * figures['wrong_share']:.1f} % of them wrong by "
        "estimate"
    ]
    if figures["listed"]:
        right = figures["expected_precision"]
        lines.append(f"{figures['listed']} listed, {100 * right:.0f} % of them wrong by estimate")
    of = "probability" if calibration else "cosine"
    for label in figures["labels"][:SHOWN]:
        own, other = label[f"{of}_person"], label[f"{of}_looks_like"]
        lines.append(
            f"  {label['image']}: wrong with {label['wrong']:.2f}; looks like "
            f"{label['looks_like']} ({of} {other:.2g}, its own {own:.2g})"
        )
    if len(figures["labels"]) > SHOWN:
        lines.append(f"  ... and {len(figures['labels']) - SHOWN} more (--json lists all)")
    return "\n".join(lines)
