"""Lists of the K nearest rows of a binary matrix by cosine, and their exact repair when cells are forgotten.

With C_ij the number of columns that rows i and j share and n_i the number of row i,

    s_ij = C_ij / sqrt(n_i n_j)

is computed from integers in one way everywhere, so that lists repaired and lists built anew agree bit by bit. Rows that
share nothing are no neighbours; of equal similarities the lower number comes first.

Let T be the rows that lose cells. Lists of T are built anew. In any other list only the similarities to T change: they
can fall (C_ij falls) and can rise (n_i falls), so T is taken out and offered again. What was neither listed nor in T
ranks below the old last entry; where the new last entry ranks below it too, such a row may have to move up, and the
list is built anew. (After Schelter et al., "Forget Me Now: Fast and Exact Unlearning in Neighborhood-based
Recommendation", SIGIR 2023, who forget one cell at a time; here any number of cells is one repair.)
"""

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.sparse import csc_array, csr_array

from msgm.recommender.models.estimator import top
from msgm.recommender.sparse import ones

BLOCK_CELLS = 4_000_000
"""Similarities that are held at a time."""
REBUILD_SHARE = 0.5
"""To repair more rows than this share takes longer than to build all lists anew."""


@dataclass
class Neighbours:
    """Lists of every row, best first.

    Attributes:
        ids: (n, K) numbers of rows; -1 where there are fewer than K.
        similarities: (n, K) in (0, 1]; -inf where there are fewer than K.
    """

    ids: NDArray[np.int64]
    similarities: NDArray[np.float64]

    @classmethod
    def of(cls, matrix: csr_array, k: int) -> "Neighbours":
        """Return the lists of all rows of ``matrix``, of which only the places of its cells count."""
        shape = (matrix.shape[0], k)
        made = cls(np.full(shape, -1, dtype=np.int64), np.full(shape, -np.inf))
        made._build(_Cosine(matrix), np.arange(len(made.ids)))
        return made

    def repair(self, rest: csr_array | csc_array, touched: NDArray[np.int64]) -> int:
        """Make the lists those of ``rest``, which has lost cells in the rows ``touched`` alone.

        Returns:
            the number of lists that were written.
        """
        cosine = _Cosine(rest)
        if len(touched) > REBUILD_SHARE * len(self.ids):
            self._build(cosine, np.arange(len(self.ids)))
            return len(self.ids)
        last_ids, last = self.ids[:, -1].copy(), self.similarities[:, -1].copy()
        written = self._withdraw(touched)
        written[touched] = True
        for block in _blocks(touched, len(self.ids)):
            similarities = cosine.rows(block)
            self._put(block, similarities)
            similarities[:, touched] = -np.inf
            written[self._offer(block, similarities)] = True
        new_last = self.similarities[:, -1]
        below = (new_last < last) | ((new_last == last) & (self.ids[:, -1] > last_ids))
        below[touched] = False  # they are built already
        self._build(cosine, np.flatnonzero(below & (last_ids >= 0)))
        return int(written.sum())

    def matrix(self, rows: NDArray[np.int64], width: int | None = None) -> csr_array:
        """Return the lists of ``rows`` as a (len(rows), n) matrix of similarities; n is ``width``, if it is given."""
        ids = self.ids[rows]
        there = ids >= 0
        starts = np.concatenate([[0], np.cumsum(there.sum(axis=1))])
        return csr_array((self.similarities[rows][there], ids[there], starts), (len(rows), width or len(self.ids)))

    def _build(self, cosine: "_Cosine", rows: NDArray[np.int64]) -> None:
        for block in _blocks(rows, len(self.ids)):
            self._put(block, cosine.rows(block))

    def _put(self, rows: NDArray[np.int64], similarities: NDArray[np.float64]) -> None:
        self.ids[rows], self.similarities[rows] = _best(similarities, self.ids.shape[1])

    def _withdraw(self, gone: NDArray[np.int64]) -> NDArray[np.bool_]:
        """Take ``gone`` out of all lists; return the (n,) mask of the lists that held any."""
        is_gone = np.zeros(len(self.ids) + 1, dtype=bool)  # the last is for places that hold none, -1
        is_gone[gone] = True
        listed = is_gone[self.ids]
        holed = np.asarray(listed.any(axis=1))
        rows, listed = np.flatnonzero(holed), listed[holed]
        order = np.argsort(listed, axis=1, kind="stable")
        ids, similarities = np.where(listed, -1, self.ids[rows]), np.where(listed, -np.inf, self.similarities[rows])
        self.ids[rows] = np.take_along_axis(ids, order, axis=1)
        self.similarities[rows] = np.take_along_axis(similarities, order, axis=1)
        return holed

    def _offer(self, ids: NDArray[np.int64], similarities: NDArray[np.float64]) -> NDArray[np.int64]:
        """Merge candidates into the lists where they belong; return the numbers of these lists.

        Args:
            ids: (m,) candidates, in rising order.
            similarities: (m, n) of them to all rows.
        """
        first = similarities.argmax(axis=0)
        most, last = similarities.max(axis=0), self.similarities[:, -1]
        rows = np.flatnonzero((most > last) | ((most == last) & (ids[first] < self.ids[:, -1])))
        offered = similarities[:, rows].T
        offered_ids = np.broadcast_to(ids, offered.shape)
        if len(ids) > self.ids.shape[1]:
            places, offered = _best(offered, self.ids.shape[1])
            offered_ids = ids[places]
        self._keep(rows, np.hstack([self.ids[rows], offered_ids]), np.hstack([self.similarities[rows], offered]))
        return rows

    def _keep(self, rows: NDArray[np.int64], ids: NDArray[np.int64], similarities: NDArray[np.float64]) -> None:
        """Keep the K best of the candidates of each row, equal ones by rising id."""
        order = np.lexsort((ids, -similarities), axis=1)[:, : self.ids.shape[1]]
        self.ids[rows] = np.take_along_axis(ids, order, axis=1)
        self.similarities[rows] = np.take_along_axis(similarities, order, axis=1)


def nearest(rows: csr_array, matrix: csr_array, k: int) -> csr_array:
    """Return the (n, m) similarities of n rows to their k nearest of the m rows of ``matrix``, among which none is."""
    shared = (ones(rows, np.int32) @ ones(matrix, np.int32).T).toarray()
    similarities = _similarities(shared, np.diff(rows.indptr), np.diff(matrix.indptr))
    return Neighbours(*_best(similarities, k)).matrix(np.arange(len(shared)), matrix.shape[0])


class _Cosine:
    """Similarities between the rows of a binary matrix, in CSR form or, where few rows are asked about, in CSC form."""

    def __init__(self, matrix: csr_array | csc_array) -> None:
        self.matrix = matrix
        self.transposed = ones(matrix.T.tocsr(), np.int32)
        self.sizes = np.bincount(self.transposed.indices, minlength=matrix.shape[0])

    def rows(self, rows: NDArray[np.int64]) -> NDArray[np.float64]:
        """Return (len(rows), n) similarities; -inf to the row itself and where nothing is shared."""
        shared = (ones(self.matrix[rows].tocsr(), np.int32) @ self.transposed).toarray()
        shared[np.arange(len(rows)), rows] = 0
        return _similarities(shared, self.sizes[rows], self.sizes)


def _similarities(shared: NDArray[np.int32], ours: NDArray[np.int64], theirs: NDArray[np.int64]) -> NDArray[np.float64]:
    """Return (n, m) cosines of n and m rows of these sizes that share so many cells; -inf where they share none."""
    scale = np.sqrt(np.maximum(ours.astype(np.int64)[:, None] * theirs, 1))
    return np.where(shared > 0, shared / scale, -np.inf)


def _best(similarities: NDArray[np.float64], k: int) -> tuple[NDArray[np.int64], NDArray[np.float64]]:
    """Return (n, k) places of the largest values, the lower first of equal ones, and the values; -1 and -inf fill."""
    places = top(similarities, k)
    values = np.take_along_axis(similarities, np.maximum(places, 0), axis=1)
    return places, np.where(places >= 0, values, -np.inf)


def _blocks(rows: NDArray[np.int64], width: int) -> Iterator[NDArray[np.int64]]:
    size = max(BLOCK_CELLS // width, 1)
    return (rows[start : start + size] for start in range(0, len(rows), size))
