"""What the commands of `sf2 data` share: the print-out, and a folder's embeddings."""

from collections.abc import Iterable, Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..data import FaceFolder
from ..evaluation.input_checks import as_embeddings
from ..terminal import json_text, say
from .models import Model

#: How many names of a kind are printed; --json has them all.
SHOWN = 10


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
