"""`sf2 data`: from a folder of photos to what a host trains on and is verified by."""

import argparse
from collections.abc import Iterable, Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..data import FaceFolder
from ..evaluation.input_checks import as_embeddings
from ..options import add_commands
from ..terminal import json_text, say
from .models import Model

COMMANDS = {
    "align": (".data_align", "cut faces from photos, 112 x 112"),
    "check": (".data_check", "find damaged, tiny and duplicate images, and people in two folders"),
    "audit": (".data_audit", "find labels that look wrong, by a model"),
    "split": (".data_split", "divide people, never their images, into train and val"),
    "pairs": (".data_pairs", "make a pair list and a .bin to verify with"),
    "pack": (
        ".data_pack:add_pack_arguments",
        "write a folder of people as train.rec, train.idx and property",
    ),
    "unpack": (
        ".data_pack:add_unpack_arguments",
        "write train.rec and train.idx as a folder of people",
    ),
}
#: How many names of a kind are printed; --json has them all.
SHOWN = 10


def add_arguments(parser: argparse.ArgumentParser) -> None:
    add_commands(parser, COMMANDS)


def print_figures(figures: Mapping[str, Any], text: str, as_json: bool) -> None:
    say(json_text(figures) if as_json else text)


def listed(what: str, names: Iterable[str]) -> list[str]:
    """Lines: what there is and how many, and the first of them; none where there are none."""
    names = list(names)
    if not names:
        return []
    more = [f"  ... and {len(names) - SHOWN} more (--json lists all)"] * (len(names) > SHOWN)
    return [f"{what}: {len(names)}", *(f"  {name}" for name in names[:SHOWN]), *more]


def embed_folder(model: Model, faces: FaceFolder) -> NDArray[np.floating]:
    """(images, D) by a model; saved embeddings have the images in the folder's order."""
    paths = [path for path, _ in faces.samples]
    if not model.is_saved:
        return model.embed(paths)
    embeddings = as_embeddings(model.array("embeddings"))
    if len(embeddings) != len(paths):
        raise ValueError(
            f"{model.path} has {len(embeddings)} embeddings, and the folder {len(paths)} images"
        )
    return embeddings
