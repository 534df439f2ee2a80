"""Faces cut to 112 x 112 by five landmarks, as ArcFace's training sets are."""

import numpy as np
from numpy.typing import ArrayLike, NDArray

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

    `pixels` is uint8 (H, W, 3), and so is the answer, (112, 112, 3). It is that of InsightFace's
    `face_align.norm_crop` within a grey level: bilinear between pixels, with black around the
    photo. (OpenCV before version 5 rounds the places to 1/32 of a pixel, and differs by that.)

    Raises:
        ValueError: landmarks that are not (5, 2), not finite, or all in one place.
    """
    points = np.asarray(landmarks, np.float64)
    if points.shape != (5, 2) or not np.isfinite(points).all():
        raise ValueError(f"landmarks must be (5, 2) finite numbers, not {points.tolist()}")
    if not np.ptp(points, axis=0).any():
        raise ValueError("landmarks must not all lie in one place")
    # Least squares in complex numbers: a similarity is z -> a z + b (Umeyama, 1991, in the plane).
    # It is fitted to face -> template; where a pixel of the crop comes from is its inverse.
    face, template = points @ [1, 1j], TEMPLATE @ [1, 1j]
    centred = face - face.mean()
    a = np.vdot(centred, template - template.mean()) / np.vdot(centred, centred).real
    if abs(a) < 1e-9:
        raise ValueError("landmarks are no face's: nothing turns them towards the template")
    b = template.mean() - a * face.mean()
    crop = np.arange(SIZE) + 1j * np.arange(SIZE)[:, None]
    return _bilinear(pixels, (crop - b) / a)


def _bilinear(pixels: NDArray[np.uint8], places: NDArray[np.complex128]) -> NDArray[np.uint8]:
    """(h, w, 3) at places (h, w), x + iy from the first pixel's centre; black beyond the edges."""
    height, width = pixels.shape[:2]
    # What lies far outside would not fit an integer.
    x = np.clip(places.real, -1, width)
    y = np.clip(places.imag, -1, height)
    left, top = np.floor(x).astype(np.intp), np.floor(y).astype(np.intp)
    right, below = (x - left)[..., None], (y - top)[..., None]

    def at(row: NDArray[np.intp], column: NDArray[np.intp]) -> NDArray[np.float64]:
        inside = (row >= 0) & (row < height) & (column >= 0) & (column < width)
        found = pixels[np.clip(row, 0, height - 1), np.clip(column, 0, width - 1)]
        return found * inside[..., None].astype(np.float64)

    upper = at(top, left) * (1 - right) + at(top, left + 1) * right
    lower = at(top + 1, left) * (1 - right) + at(top + 1, left + 1) * right
    return np.rint(upper * (1 - below) + lower * below).astype(np.uint8)
