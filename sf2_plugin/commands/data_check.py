"""`sf2 data check`: what is wrong with a folder of people."""

import argparse
from pathlib import Path

from ..datasets.check import CheckReport, check_folder, describe
from ..options import count
from ..progress import progress_bar
from .data import listed, print_figures

FOUND = 1
#: In which images that look the same may differ.
MOST_BITS = 64


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("faces", type=Path, metavar="FACES", help="a folder of PERSON/*.jpg")
    parser.add_argument(
        "--min-size",
        type=count,
        default=64,
        metavar="PIXELS",
        help="an image with a shorter side is tiny (default: %(default)s)",
    )
    parser.add_argument(
        "--distance",
        type=int,
        default=16,
        metavar="BITS",
        help="of 256, in which images that look the same may differ (default: %(default)s)",
    )
    parser.add_argument("--json", action="store_true", help="print as JSON")
    parser.epilog = "The exit status is 1 where something is found."
    parser.set_defaults(run=run)


def run(given: argparse.Namespace) -> int:
    if not 0 <= given.distance <= MOST_BITS:
        raise ValueError(f"--distance must lie between 0 and {MOST_BITS}, got {given.distance}")
    report = check_folder(
        given.faces,
        min_size=given.min_size,
        distance=given.distance,
        progress=progress_bar("looking"),
    )
    print_figures(vars(report), _text(report), given.json)
    return 0 if report.is_clean else FOUND


def _text(report: CheckReport) -> str:
    lines = [f"{report.images} images of {report.people} people"]
    if len(report.sizes) > 1:
        ((size, most),) = report.sizes.most_common(1)
        lines.append(f"of {len(report.sizes)} sizes, most of {size}: {most}")
    for kind, names in describe(report):
        lines += listed(kind, names)
    return "\n".join([*lines, "nothing found"] if report.is_clean else lines)
