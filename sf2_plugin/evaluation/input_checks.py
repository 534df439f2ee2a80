"""What every protocol asks of its input, each with one error that says what was given."""

from collections.abc import Sequence

import numpy as np
from numpy.typing import ArrayLike, NDArray

Floats = NDArray[np.float64]
Bools = NDArray[np.bool_]
Ids = NDArray[np.int64]
Pixels = NDArray[np.uint8]

_CHUNK_ROWS = 4096


class WrongType(TypeError, ValueError):
    """An array of another type than is wanted, which is a fault of the input."""


def as_embeddings(embeddings: ArrayLike, name: str = "embeddings") -> NDArray[np.floating]:
    """A (rows, dimensions) array of finite numbers, no row all zero; floats are not copied."""
    array = np.asarray(embeddings)
    if array.ndim != 2 or 0 in array.shape:
        raise ValueError(f"{name} must be (rows, dimensions), both at least 1, not {array.shape}")
    if array.dtype.kind in "iu":
        array = array.astype(np.float64)
    if array.dtype.kind != "f":
        raise WrongType(f"{name} must be real numbers, not {array.dtype}")
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
        raise WrongType(f"{name} must be real numbers, not {array.dtype}")
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
    """A (length,) array of identifiers: strings as they are, or integers.

    Those are int64, or Python's own where int64 does not hold them all.
    """
    # NumPy would make one kind of several: text of numbers, floats of large integers.
    array = np.asarray(ids, dtype=object if isinstance(ids, (list, tuple)) else None)
    if array.shape != (length,):
        raise ValueError(f"{name} must be ({length},), one for each of {of}, not {array.shape}")
    if array.dtype.kind == "O":
        array = _of_one_kind(array, name)
    if array.dtype.kind == "U":
        return array
    if array.dtype.kind not in "iuO":
        raise WrongType(f"{name} must be integers or strings, not {array.dtype}")
    if array.dtype.kind != "i" and length and int(array.max()) > np.iinfo(np.int64).max:
        return array.astype(object)
    if array.dtype.kind == "O" and length and int(array.min()) < np.iinfo(np.int64).min:
        return array
    return array.astype(np.int64, copy=False)


def _of_one_kind(ids: NDArray, name: str) -> NDArray:
    """Python's objects as an array of text, or of Python's integers."""
    kinds = {type(each) for each in ids}
    if all(issubclass(kind, str) for kind in kinds):
        return ids.astype(str)
    if all(issubclass(kind, (int, np.integer)) and kind is not bool for kind in kinds):
        return np.array([int(each) for each in ids], dtype=object)
    given = ", ".join(sorted(kind.__name__ for kind in kinds))
    raise WrongType(f"{name} must be integers or strings, all of one kind, not {given}")


def require_one_kind(first: NDArray, second: NDArray, names: str) -> None:
    """Ids of two arrays can be compared: both are integers, or both are text."""
    if (first.dtype.kind == "U") != (second.dtype.kind == "U"):
        raise WrongType(f"{names} must be of one kind, not {first.dtype} and {second.dtype}")


def as_targets(targets: Sequence[float], name: str = "far_targets") -> tuple[float, ...]:
    """Rates between 0 and 1, both left out."""
    rates = tuple(float(rate) for rate in targets)
    if not all(0 < rate < 1 for rate in rates):
        raise ValueError(f"{name} must lie between 0 and 1, both left out, not {rates}")
    return rates
