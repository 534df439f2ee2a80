"""What every backbone is to the rest: faces in, embeddings out."""

from collections.abc import Iterable
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from ..data.images import resize
from ..evaluation import Calibration
from ..evaluation.input_checks import Pixels


class Backbone(Protocol):
    """Faces in, embeddings out."""

    settings: str
    """What, besides the file's content, decides its embeddings."""
    calibration: Calibration | None
    """The head's own, where the file holds the head."""
    inputs: dict[str, str]
    """How faces are given to the network, for reports."""

    def embed(self, faces: Iterable[Pixels]) -> NDArray[np.float32]:
        """(B, D) embeddings, of any length, of B images uint8 (height, width, 3), RGB.

        Images are taken one after another, so that no two large ones need be there at once.
        """
        ...


def resized(faces: Iterable[Pixels], height: int, width: int) -> NDArray[np.float32]:
    """(B, 3, height, width) in 0..255, RGB; bilinear where an image has another size."""
    batch = np.stack([resize(face, height, width) for face in faces])
    return np.ascontiguousarray(batch.transpose(0, 3, 1, 2), np.float32)
