"""Directions of embeddings, in float64 and a chunk at a time."""

import numpy as np

from .checks import Floats

#: Rows in work at once: large enough for BLAS, small enough to stay in the cache at 512 dimensions.
CHUNK_ROWS = 512


def unit(rows: np.ndarray) -> Floats:
    """A copy of `rows` (n, D) at length one; a row of zeros stays zero."""
    rows = rows.astype(np.float64)
    with np.errstate(over="ignore"):
        squared = np.einsum("ij,ij->i", rows, rows)
    # A square may leave the range of float64 where the length itself does not.
    extreme = ~((squared > 1e-280) & (squared < 1e280))
    if extreme.any():
        largest = np.abs(rows[extreme]).max(axis=1, keepdims=True)
        rows[extreme] /= np.where(largest > 0, largest, 1)
        squared[extreme] = np.square(rows[extreme]).sum(axis=1)
    rows /= np.sqrt(np.where(squared > 0, squared, 1))[:, None]
    return rows
