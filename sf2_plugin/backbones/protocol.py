"""What every backbone is to the rest: faces in, embeddings out."""

from collections.abc import Sequence
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from ..data.images import pillow
from ..evaluation import Calibration
from ..evaluation.checks import Pixels


class Backbone(Protocol):
    """Faces in, embeddings out."""

    settings: str
    """What, besides the file's content, decides its embeddings."""
    calibration: Calibration | None
    """The head's own, where the file holds the head."""

    def embed(self, faces: Sequence[Pixels]) -> NDArray[np.float32]:
        """(B, D) embeddings, of any length, of B images uint8 (height, width, 3), RGB."""
        ...


def resized(faces: Sequence[Pixels], height: int, width: int) -> NDArray[np.float32]:
    """(B, 3, height, width) in 0..255, RGB; bilinear where an image has another size."""
    batch = np.empty((len(faces), height, width, 3), np.float32)
    for place, face in zip(batch, faces, strict=True):
        if face.shape[:2] != (height, width):
            Image = pillow()
            face = np.asarray(Image.fromarray(face).resize((width, height), Image.BILINEAR))
        place[:] = face
    return np.ascontiguousarray(batch.transpose(0, 3, 1, 2))
