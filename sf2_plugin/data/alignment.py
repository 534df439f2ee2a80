"""Faces cut to 112 x 112 by five landmarks, as ArcFace's training sets are."""

import numpy as np
from numpy.typing import ArrayLike, NDArray

from .images import pillow

SIZE = 112
#: Where eyes, nose and corners of the mouth come to lie, x and y (Deng et al., CVPR 2019).
TEMPLATE = np.array(
    [
        [38.2946, 51.6963],
        [73.5318, 51.5014],
        [56.0252, 71.7366],
        [41.5493, 92.3655],
        [70.7299, 92.2041],
    ]
)


def align_face(pixels: NDArray[np.uint8], landmarks: ArrayLike) -> NDArray[np.uint8]:
    """Turn, scale and move a face so that its landmarks (5, 2) come nearest to `TEMPLATE`.

    `pixels` is uint8 (H, W, 3), and so is the answer, (112, 112, 3); what lies outside is black.

    Raises:
        ValueError: landmarks that are not (5, 2), not finite, or all in one place.
    """
    points = np.asarray(landmarks, np.float64)
    if points.shape != (5, 2) or not np.isfinite(points).all():
        raise ValueError(f"landmarks must be (5, 2) finite numbers, not {points.tolist()}")
    if not np.ptp(points, axis=0).any():
        raise ValueError("landmarks must not all lie in one place")
    # Least squares in complex numbers: a similarity is z -> a z + b (Umeyama, 1991, in the plane).
    # It is fitted to face -> template, and Pillow wants its inverse.
    face, template = points @ [1, 1j], TEMPLATE @ [1, 1j]
    centred = face - face.mean()
    a = np.vdot(centred, template - template.mean()) / np.vdot(centred, centred).real
    if abs(a) < 1e-9:
        raise ValueError("landmarks are no face's: nothing turns them towards the template")
    b = template.mean() - a * face.mean()
    inverse = 1 / a
    origin = -b / a
    # Pillow counts from a pixel's corner, landmarks from its centre.
    half = 0.5 + 0.5j
    origin += half - inverse * half
    matrix = (inverse.real, -inverse.imag, origin.real, inverse.imag, inverse.real, origin.imag)
    Image = pillow()
    image = Image.fromarray(np.ascontiguousarray(pixels))
    return np.asarray(image.transform((SIZE, SIZE), Image.AFFINE, matrix, Image.BILINEAR))
