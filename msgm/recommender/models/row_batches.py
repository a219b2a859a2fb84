"""Rows of a sparse matrix in batches of nearly equal length, so that their least-squares problems are solved together.

Alternating least squares solves one small problem for each row over the factors of the row's columns. Sorted by length,
rows stack into (n, w, d) arrays with next to no padding; a batch is kept small enough for its factors to stay in the
processor's cache while they are used.
"""

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.sparse import csr_array

CELLS = 4000
"""Of a batch, at most, unless a single row has more; times 64 float32 factors that is a megabyte."""


@dataclass(frozen=True, eq=False)
class Batch:
    """Rows of nearly equal length, padded to the same width.

    Attributes:
        rows: (n,) their numbers.
        cells: (n, w) places of their cells in ``matrix.data``; 0 for padding.
        columns: (n, w) columns of their cells; the number of columns for padding.
    """

    rows: NDArray[np.int64]
    cells: NDArray[np.int64]
    columns: NDArray[np.int64]

    def features(self, padded: NDArray[np.float32]) -> NDArray[np.float32]:
        """Return the (n, w, d) rows of ``padded``, as of ``pad``, that stand for the columns."""
        return np.take(padded, self.columns, axis=0, mode="clip")


def batches(matrix: csr_array) -> list[Batch]:
    """Return all rows that have a cell."""
    lengths = np.diff(matrix.indptr).astype(np.int64)
    order = np.argsort(lengths, kind="stable")
    order = order[np.count_nonzero(lengths == 0) :]
    made, start = [], 0
    while start < len(order):
        # Rows get longer, so the place of the last one that fits is bounded by the first one's length.
        ahead = order[start : start + max(CELLS // int(lengths[order[start]]), 1)]
        fitting = np.count_nonzero(np.arange(1, len(ahead) + 1) * lengths[ahead] <= CELLS)
        rows = ahead[: max(fitting, 1)]
        made.append(_batch(matrix, rows, lengths[rows]))
        start += len(rows)
    return made


def _batch(matrix: csr_array, rows: NDArray[np.int64], lengths: NDArray[np.int64]) -> Batch:
    places = np.arange(lengths[-1])
    padding = places >= lengths[:, None]
    cells = np.where(padding, 0, matrix.indptr[rows].astype(np.int64)[:, None] + places)
    columns = np.where(padding, matrix.shape[1], matrix.indices[cells])
    return Batch(rows, cells, columns)


def pad(table: NDArray[np.floating[Any]]) -> NDArray[np.float32]:
    """Return ``table`` in float32 with a row of zeros below, which padding points to."""
    return np.concatenate([table, np.zeros((1, table.shape[1]))]).astype(np.float32)
