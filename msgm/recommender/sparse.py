"""The stored entries of a CSR matrix: their rows, some of them, and all of them as ones."""

from typing import Any

import numpy as np
from numpy.typing import DTypeLike, NDArray
from scipy.sparse import csr_array


def rows_of(matrix: csr_array) -> NDArray[np.int64]:
    """Return the (nnz,) rows of the stored entries, in the order of ``matrix.data``."""
    return np.repeat(np.arange(matrix.shape[0]), np.diff(matrix.indptr))


def kept(matrix: csr_array, keep: NDArray[np.bool_]) -> csr_array:
    """Return the stored entries of ``matrix`` that ``keep`` marks, in the order of ``matrix.data``."""
    starts = np.concatenate([[0], np.cumsum(keep)])[matrix.indptr]
    return csr_array((matrix.data[keep], matrix.indices[keep], starts), matrix.shape)


def ones(matrix: csr_array, dtype: DTypeLike = np.float64) -> csr_array:
    """Return a 1 for every stored entry; the places are shared with ``matrix``."""
    values: NDArray[Any] = np.ones(matrix.nnz, dtype=dtype)
    return csr_array((values, matrix.indices, matrix.indptr), matrix.shape)
