"""`sf2 data pack` and `unpack`: folders of people to InsightFace's records, and back."""

import argparse
from pathlib import Path

from ..datasets.pack import pack_folder, unpack_records
from ..progress import progress_bar
from .data import print_figures


def add_pack_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "faces", type=Path, metavar="FACES", help="a folder of PERSON/*.jpg, all of one size"
    )
    parser.add_argument(
        "--out", type=Path, required=True, metavar="DIR", help="for train.rec and its companions"
    )
    parser.add_argument("--json", action="store_true", help="print as JSON")
    parser.set_defaults(run=pack)


def add_unpack_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "records", type=Path, metavar="DIR", help="a folder with train.rec and train.idx"
    )
    parser.add_argument("--out", type=Path, required=True, metavar="DIR", help="new or empty")
    parser.add_argument("--json", action="store_true", help="print as JSON")
    parser.set_defaults(run=unpack)


def pack(given: argparse.Namespace) -> None:
    _print(given, *pack_folder(given.faces, given.out, progress=progress_bar("packing")))


def unpack(given: argparse.Namespace) -> None:
    _print(given, *unpack_records(given.records, given.out, progress=progress_bar("unpacking")))


def _print(given: argparse.Namespace, images: int, people: int) -> None:
    figures = {"images": images, "people": people}
    text = f"{given.out}: {images} images of {people} people"
    print_figures(figures, text, given.json)
