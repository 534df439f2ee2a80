"""Directions of embeddings, in float64 and a chunk at a time."""

import numpy as np

from ._checks import Floats

#: Rows in work at once: large enough for BLAS, small enough to stay in the cache at 512 dimensions.
CHUNK_ROWS = 1024


def unit(rows: np.ndarray) -> Floats:
    """A copy of `rows` (n, D) at length one; a row of any finite length but zero."""
    rows = rows.astype(np.float64)
    # The largest entry is divided out first: a square can leave the range of float64.
    rows /= np.abs(rows).max(axis=1, keepdims=True)
    rows /= np.sqrt(np.einsum("ij,ij->i", rows, rows))[:, None]
    return rows
