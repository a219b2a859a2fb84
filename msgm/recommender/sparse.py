"""The stored entries of a CSR matrix: their rows, some of them, and all of them as ones.

A place is an entry's number in the order of ``matrix.data``.
"""

from typing import Any

import numpy as np
from numpy.typing import DTypeLike, NDArray
from scipy.sparse import csr_array

PIECES = 1000
"""With more pieces than this, a mask is faster than to copy piece by piece."""


def rows_of(matrix: csr_array) -> NDArray[np.int64]:
    """Return the (nnz,) rows of the stored entries, in the order of ``matrix.data``."""
    return np.repeat(np.arange(matrix.shape[0]), np.diff(matrix.indptr))


def kept(matrix: csr_array, keep: NDArray[np.bool_]) -> csr_array:
    """Return the stored entries of ``matrix`` that ``keep`` marks, in the order of ``matrix.data``."""
    starts = np.concatenate([[0], np.cumsum(keep)])[matrix.indptr]
    return csr_array((matrix.data[keep], matrix.indices[keep], starts), matrix.shape)


def dropped(matrix: csr_array, places: NDArray[np.int64]) -> csr_array:
    """Return ``matrix`` less the stored entries at ``places``, which rise; the rest is copied in long pieces."""
    if not len(places):
        return matrix
    rows = np.searchsorted(matrix.indptr, places, side="right") - 1
    lost = np.cumsum(np.bincount(rows + 1, minlength=len(matrix.indptr)))
    data, indices = without(matrix.data, places), without(matrix.indices, places)
    return csr_array((data, indices, matrix.indptr - lost), matrix.shape)


def without(values: NDArray[Any], places: NDArray[np.int64]) -> NDArray[Any]:
    """Return a copy of the (n,) ``values`` less those at ``places``, which rise."""
    ends = np.flatnonzero(np.diff(places) > 1)
    if not len(places) or len(ends) > PIECES:
        return np.delete(values, places)
    starts = [0, *(places[ends] + 1), places[-1] + 1]
    stops = [places[0], *places[ends + 1], len(values)]
    return np.concatenate([values[start:stop] for start, stop in zip(starts, stops, strict=True)])


def places_of_rows(matrix: csr_array, rows: NDArray[np.int64]) -> NDArray[np.int64]:
    """Return the places of the stored entries of ``rows``, row by row."""
    starts = matrix.indptr[rows].astype(np.int64)
    counts = matrix.indptr[rows + 1] - starts
    before = np.cumsum(counts) - counts
    return np.repeat(starts - before, counts) + np.arange(counts.sum())


def ones(matrix: csr_array, dtype: DTypeLike = np.float64) -> csr_array:
    """Return a 1 for every stored entry; the places are shared with ``matrix``."""
    values: NDArray[Any] = np.ones(matrix.nnz, dtype=dtype)
    return csr_array((values, matrix.indices, matrix.indptr), matrix.shape)
