"""`sf2 data pairs`: pairs to verify with, from a folder of people."""

import argparse
from pathlib import Path

import numpy as np

from ..data import read_face_folder
from ..datasets.pair_choice import check_list, default_list, make_pairs, write_pairs
from ..options import count
from .data import embed_folder, print_figures
from .models import add_backbone_options, read_models
from .output import check_outputs


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("faces", type=Path, metavar="FACES", help="a folder of PERSON/*.jpg")
    parser.add_argument(
        "--list",
        type=Path,
        metavar="FILE",
        help="lines of `path path same` (default: FACES_pairs.txt)",
    )
    parser.add_argument(
        "--bin", type=Path, metavar="FILE", help="with the images (default: FACES.bin)"
    )
    parser.add_argument("--folds", type=count, default=10, metavar="N", help="that share nobody")
    parser.add_argument(
        "--genuine",
        type=count,
        metavar="N",
        help="pairs of one person, in all folds together (default: 300 a fold, or what there is)",
    )
    parser.add_argument(
        "--impostor", type=count, metavar="N", help="pairs of two people (default: as many)"
    )
    parser.add_argument("--seed", type=int, default=0, help="another one, other pairs")
    parser.add_argument(
        "--model",
        dest="models",
        action="append",
        default=[],
        metavar="MODEL",
        help="as of sf2 eval pairs: impostor pairs are those that it takes most for one person; "
        "or .npy (images, D), in the order of the paths",
    )
    parser.add_argument(
        "--hard",
        type=float,
        metavar="SHARE",
        help="of the impostor pairs, to be chosen by the model (default: all)",
    )
    add_backbone_options(parser)
    parser.add_argument("--json", action="store_true", help="print as JSON")
    parser.set_defaults(run=run)


def run(given: argparse.Namespace) -> None:
    if len(given.models) > 1:
        raise ValueError("--model must be given once")
    hard = 1.0 if given.hard is None else given.hard
    if not 0 <= hard <= 1:
        raise ValueError(f"--hard must lie between 0 and 1, got {hard}")
    if given.hard is not None and not given.models:
        raise ValueError("--hard needs --model: it is the share of impostor pairs that one chooses")
    models = read_models(given)
    faces = read_face_folder(given.faces)
    folder = given.faces.resolve()
    # Neither of them named: both, beside the folder.
    both = given.list is None and given.bin is None
    pair_list = default_list(given.faces) if both else given.list
    pair_bin = folder.with_name(f"{folder.name}.bin") if both else given.bin
    if pair_list:
        check_list(pair_list, given.faces)
    written = [path for path in (pair_list, pair_bin) if path]
    check_outputs(written, [given.faces, *(model.path for model in models)])
    labels = np.array([label for _, label in faces.samples])
    pairs = make_pairs(
        labels,
        folds=given.folds,
        genuine=_a_fold("--genuine", given.genuine, given.folds),
        impostor=_a_fold("--impostor", given.impostor, given.folds),
        seed=given.seed,
        embeddings=embed_folder(models[0], faces) if models else None,
        hard=hard,
    )
    write_pairs(given.faces, faces, pairs, pair_list, pair_bin)
    figures = pairs.as_dict(labels)
    chosen = f", {pairs.hard} of them hard" if pairs.hard else ""
    text = (
        f"{' and '.join(map(str, written))}: {figures['genuine']} genuine and "
        f"{figures['impostor']} impostor pairs{chosen}, in {pairs.folds} folds, of "
        f"{figures['people']} people"
    )
    print_figures(figures | {"files": [str(path) for path in written]}, text, given.json)


def _a_fold(option: str, pairs: int | None, folds: int) -> int | None:
    if pairs is not None and pairs % folds:
        raise ValueError(f"{option} must be a multiple of the {folds} folds, got {pairs}")
    return None if pairs is None else pairs // folds
