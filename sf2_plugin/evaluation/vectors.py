"""Directions of embeddings, in float64 and a chunk at a time; and cosines that are ties.

Embeddings of one direction and different length score the same, and rounding parts them in their
last bits. What the embeddings' precision cannot tell apart is therefore made equal, so that a tie
counts as one.
"""

import numpy as np

from .input_checks import Floats

#: Rows in work at once: large enough for BLAS, small enough to stay in the cache at 512 dimensions.
CHUNK_ROWS = 512
_ARITHMETIC = 32 * float(np.finfo(np.float64).eps)


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


def tie_tolerance(*embeddings: np.ndarray) -> float:
    """How far apart two cosines of one direction may come to lie, by the embeddings' rounding.

    Each of D components is rounded by itself, so that cosines differ by the precision over sqrt(D);
    of 1003 copies, by 1.9 times that (D from 2 to 2048). Half precision counts as single: it would
    tie what is far apart. The lower bound is that of arithmetic in float64.
    """
    single = float(np.finfo(np.float32).eps)
    precision = max(min(float(np.finfo(each.dtype).eps), single) for each in embeddings)
    return max(2.5 * precision / embeddings[0].shape[1] ** 0.5, _ARITHMETIC)


def merge_ties(scores: Floats, tolerance: float) -> Floats:
    """Of scores (N,) each within `tolerance` of the next, all become the highest."""
    order = np.argsort(scores)
    ascending = scores[order]
    last = np.append(np.diff(ascending) > tolerance, True)
    if last.all():
        return scores
    ends = np.flatnonzero(last)
    merged = np.empty_like(scores)
    merged[order] = np.repeat(ascending[ends], np.diff(ends, prepend=-1))
    return merged
