"""`sf2 data align`: faces cut from photos."""

import argparse
from pathlib import Path

from ..backbones import file_digest
from ..datasets.align import FORMATS, LOG, AlignReport, Finder, align_photos
from ..datasets.faces import PICKS, InsightFaceDetector, read_landmarks
from ..options import count
from ..progress import progress_bar
from .data import listed, print_figures


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("photos", type=Path, metavar="PHOTOS", help="a folder, often one a person")
    parser.add_argument(
        "--out",
        type=Path,
        required=True,
        metavar="DIR",
        help=f"for the faces, where their photos are in PHOTOS, and {LOG}; what is done is kept",
    )
    source = parser.add_mutually_exclusive_group(required=True)
    source.add_argument(
        "--detector",
        type=Path,
        metavar="FILE",
        help="an ONNX file or a folder of models that the package insightface opens",
    )
    source.add_argument(
        "--landmarks",
        type=Path,
        metavar="FILE",
        help=f"lines of `path x1 y1 ... x5 y5`, relative to PHOTOS, as text, CSV or a {LOG}",
    )
    parser.add_argument(
        "--pick",
        choices=PICKS,
        default="largest",
        help="of several faces in a photo; `only` takes none (default: %(default)s)",
    )
    parser.add_argument(
        "--format",
        choices=FORMATS,
        default="png",
        help="jpg takes a third of the space and blurs a little (default: %(default)s)",
    )
    detector = parser.add_argument_group("detector")
    detector.add_argument(
        "--size", type=count, metavar="PIXELS", help="side that photos are brought to"
    )
    detector.add_argument("--threshold", type=float, default=0.5, help="least score of a face")
    parser.add_argument("--json", action="store_true", help="print as JSON")
    parser.set_defaults(run=run)


def run(given: argparse.Namespace) -> None:
    if not 0 < given.threshold < 1:
        raise ValueError(f"--threshold must lie between 0 and 1, got {given.threshold}")
    find: Finder
    if given.landmarks:
        find = read_landmarks(given.landmarks)
        settings = f"landmarks {file_digest(given.landmarks)}"
    else:
        find = InsightFaceDetector(given.detector, given.size, given.threshold)
        settings = f"detector {_digest(given.detector)} {given.size} {given.threshold}"
    report = align_photos(
        given.photos,
        given.out,
        find,
        settings=settings,
        pick=given.pick,
        format=given.format,
        progress=progress_bar("aligning"),
    )
    print_figures(vars(report), _text(report, given.pick), given.json)


def _digest(detector: Path) -> str:
    files = sorted(detector.glob("*.onnx")) if detector.is_dir() else [detector]
    return " ".join(map(file_digest, files))


def _text(report: AlignReport, pick: str) -> str:
    kept = f", of which {report.done_before} were done before" if report.done_before else ""
    which = {"only": "left out", "central": "the most central taken"}.get(pick, f"the {pick} taken")
    lines = [f"{report.aligned} faces of {report.photos} photos{kept}"]
    lines += listed(f"photos with several faces, {which}", report.several_faces)
    lines += listed("photos without a face", report.no_face)
    lines += listed("photos that cannot be used", report.damaged.values())
    return "\n".join(lines)
