"""`sf2 data split`: people to train on and people to verify with."""

import argparse
from pathlib import Path

from ..datasets.split import write_split
from ..options import count
from ..progress import progress_bar
from .data import print_figures


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("faces", type=Path, metavar="FACES", help="a folder of PERSON/*.jpg")
    parser.add_argument(
        "--out", type=Path, required=True, metavar="DIR", help="new or empty, for train/ and val/"
    )
    parser.add_argument(
        "--test",
        type=_people,
        default=0.1,
        metavar="N",
        help="people for val/: their number, or a share below 1 (default: %(default)s)",
    )
    parser.add_argument(
        "--min-images",
        type=count,
        default=2,
        metavar="N",
        help="of whoever has fewer, all go to train/ (default: %(default)s)",
    )
    parser.add_argument("--seed", type=int, default=0, help="another one, other people")
    parser.add_argument("--copy", action="store_true", help="copy images, else linked hard")
    parser.add_argument(
        "--names",
        nargs=2,
        default=["train", "val"],
        metavar=("TRAIN", "VAL"),
        help="of the two folders; the hosts' configs expect train and val",
    )
    parser.add_argument("--json", action="store_true", help="print as JSON")
    parser.set_defaults(run=run)


def run(given: argparse.Namespace) -> None:
    first, second = given.names
    report = write_split(
        given.faces,
        given.out,
        given.test,
        names=(first, second),
        seed=given.seed,
        min_images=given.min_images,
        copy=given.copy,
        progress=progress_bar("copying" if given.copy else "linking"),
    )
    text = "\n".join(
        f"{given.out / name}: {report.people[name]} people, {report.images[name]} images"
        for name in given.names
    )
    print_figures(vars(report), text, given.json)


def _people(text: str) -> float | int:
    """Argument type: a number of people, or a share of them between 0 and 1."""
    try:
        value = float(text)
    except ValueError:
        value = 0.0
    if 0 < value < 1 or (value >= 1 and value.is_integer()):
        return value if value < 1 else int(value)
    raise argparse.ArgumentTypeError(
        f"must be a number of people, or a share of them between 0 and 1, got {text!r}"
    )
