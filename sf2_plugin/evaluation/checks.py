"""What every protocol asks of its input, each with one error that says what was given."""

from collections.abc import Sequence

import numpy as np
from numpy.typing import ArrayLike, NDArray

Floats = NDArray[np.float64]
Bools = NDArray[np.bool_]
Ids = NDArray[np.int64]
Pixels = NDArray[np.uint8]

_CHUNK_ROWS = 4096


def as_embeddings(embeddings: ArrayLike, name: str = "embeddings") -> NDArray[np.floating]:
    """A (rows, dimensions) array of finite numbers, no row all zero; floats are not copied."""
    array = np.asarray(embeddings)
    if array.ndim != 2 or 0 in array.shape:
        raise ValueError(f"{name} must be (rows, dimensions), both at least 1, not {array.shape}")
    if array.dtype.kind in "iu":
        array = array.astype(np.float64)
    if array.dtype.kind != "f":
        raise TypeError(f"{name} must be real numbers, not {array.dtype}")
    for start in range(0, len(array), _CHUNK_ROWS):
        chunk = array[start : start + _CHUNK_ROWS]
        _refuse_rows(~np.isfinite(chunk).all(axis=1), start, f"{name} must be finite: NaN or inf")
        _refuse_rows(~chunk.any(axis=1), start, f"{name} must have a direction: all zero")
    return array


def _refuse_rows(bad: "np.ndarray | np.bool_", start: int, message: str) -> None:
    if bad.any():
        raise ValueError(f"{message} in row {start + int(bad.argmax())}")


def as_scores(scores: ArrayLike, name: str = "scores") -> Floats:
    """A (N,) float64 array of finite numbers."""
    array = np.asarray(scores)
    if array.dtype.kind not in "iuf":
        raise TypeError(f"{name} must be real numbers, not {array.dtype}")
    if array.ndim != 1:
        raise ValueError(f"{name} must be one-dimensional, not of shape {array.shape}")
    array = array.astype(np.float64, copy=False)
    finite = np.isfinite(array)
    if not finite.all():
        raise ValueError(
            f"{name} must be finite: {np.count_nonzero(~finite)} of {len(array)} are NaN or inf, "
            f"the first at {int(finite.argmin())}"
        )
    return array


def as_issame(issame: ArrayLike, pairs: int, name: str = "issame") -> Bools:
    """A (pairs,) bool array, True for a genuine pair, with at least one pair of either kind."""
    array = np.asarray(issame)
    if array.shape != (pairs,):
        raise ValueError(f"{name} must be ({pairs},), one a pair, not {array.shape}")
    if array.dtype.kind != "b":
        if not np.isin(array, (0, 1)).all():
            raise ValueError(f"{name} must hold True or False, or 1 and 0")
        array = array.astype(np.bool_)
    genuine = np.count_nonzero(array)
    if genuine in (0, pairs):
        kind = "genuine" if genuine == 0 else "impostor"
        raise ValueError(f"{name} has no {kind} pair among its {pairs}: both kinds are needed")
    return array


def as_ids(ids: ArrayLike, length: int, name: str, of: str) -> NDArray:
    """A (length,) array of identifiers: int64, or strings as they are."""
    array = np.asarray(ids)
    if array.shape != (length,):
        raise ValueError(f"{name} must be ({length},), one for each of {of}, not {array.shape}")
    if array.dtype.kind not in "iuU":
        raise TypeError(f"{name} must be integers or strings, not {array.dtype}")
    return array if array.dtype.kind == "U" else array.astype(np.int64, copy=False)


def as_targets(targets: Sequence[float], name: str = "far_targets") -> tuple[float, ...]:
    """Rates between 0 and 1, both left out."""
    rates = tuple(float(rate) for rate in targets)
    if not all(0 < rate < 1 for rate in rates):
        raise ValueError(f"{name} must lie between 0 and 1, both left out, not {rates}")
    return rates
