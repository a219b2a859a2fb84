"""A symmetric matrix kept as a base and a few signed factors, which are merged into it now and then.

    M = base + sum over k of sign_k f_k f_k'

A term of rank one is then added in n operations, where to write it into all of M takes n^2. Rows and products of M are
read through the factors. Once there are more than a bound, one symmetric product merges all of them, which takes less
time than to write them one by one.
"""

import copy
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.linalg import blas
from scipy.sparse import csr_array

Matrix = NDArray[np.floating[Any]]

MOST = 256
"""Factors to keep apart: more make each reading slower, fewer make merging more frequent."""
BLOCK = 512


class LowRankSum:
    """A symmetric (n, n) matrix M, whose ``base`` it owns and changes.

    Attributes:
        base: (n, n) symmetric, in C order.
        diagonal: (n,) of M.
    """

    def __init__(self, base: Matrix) -> None:
        self.base = base
        self.diagonal = np.diagonal(base).copy()
        self._room = np.empty((0, len(base)), dtype=base.dtype)
        self._signs: list[int] = []
        self._borrowed = False

    def fork(self) -> "LowRankSum":
        """Return a copy that shares the base and copies it before it writes to it."""
        other = copy.copy(self)
        other.diagonal, other._room, other._signs = self.diagonal.copy(), self.factors.copy(), list(self._signs)
        other._borrowed = True
        return other

    def _own(self) -> None:
        """Copy a base that is shared."""
        if self._borrowed:
            self.base, self._borrowed = self.base.copy(), False

    @property
    def factors(self) -> Matrix:
        """(r, n) factors that are not merged yet."""
        return self._room[: len(self._signs)]

    def rows(self, numbers: NDArray[np.int64]) -> Matrix:
        """Return (m, n) rows of M."""
        found: Matrix = self.base[numbers]
        if self._signs:
            found += self._signed(self.factors[:, numbers]) @ self.factors
        return found

    def product(self, rows: csr_array) -> Matrix:
        """Return (m, n) ``rows`` M."""
        found: Matrix = np.asarray(rows @ self.base)
        if self._signs:
            columns = np.unique(rows.indices)
            found += self._signed(self.factors[:, columns] @ rows.toarray()[:, columns].T) @ self.factors
        return found

    def _signed(self, coefficients: Matrix) -> Matrix:
        """Return the transpose of (r, m) coefficients of the factors, with their signs."""
        return np.asarray((coefficients * np.array(self._signs, dtype=self.base.dtype)[:, None]).T)

    def add(self, sign: int, factors: Matrix) -> None:
        """Add sign * F'F for the (k, n) ``factors`` F."""
        rank = len(self._signs)
        if rank + len(factors) > len(self._room):
            room = np.empty((max(rank + len(factors), 2 * rank), len(self.base)), dtype=self.base.dtype)
            room[:rank] = self.factors
            self._room = room
        self._room[rank : rank + len(factors)] = factors
        self._signs += [sign] * len(factors)
        self.diagonal += sign * np.einsum("kn,kn->n", factors, factors)

    def clear(self, numbers: NDArray[np.int64], value: float) -> None:
        """Make rows and columns zero, but for ``value`` on the diagonal."""
        self._own()
        self.base[numbers] = 0
        self.base[:, numbers] = 0
        self.base[numbers, numbers] = value
        self.factors[:, numbers] = 0
        self.diagonal[numbers] = value

    def merge(self) -> None:
        """Write all factors into the base, which stays symmetric bit by bit."""
        if not self._signs:
            return
        self._own()
        # BLAS counts columns first: to it the factors are their transpose and the symmetric base is itself, uncopied.
        target, signs = self.base.T, np.array(self._signs)
        (rank_many,) = blas.get_blas_funcs(("syrk",), (target,))
        for sign in (1, -1):
            factors = self.factors[signs == sign]
            if len(factors):
                rank_many(sign, factors.T, beta=1, c=target, lower=0, overwrite_c=1)
        mirror(target)
        self.diagonal = np.diagonal(self.base).copy()
        self._room, self._signs = self._room[:0].copy(), []

    def dense(self) -> Matrix:
        """Return M, which is the base where no factor is kept apart, and else a copy."""
        if not self._signs:
            return self.base
        merged = LowRankSum(self.base.copy())
        merged._room, merged._signs = self.factors, self._signs
        merged.merge()
        return merged.base


def mirror(upper: Matrix) -> None:
    """Copy the upper triangle of a square matrix onto the lower one, block by block."""
    size = len(upper)
    for start in range(0, size, BLOCK):
        stop = min(start + BLOCK, size)
        corner = upper[start:stop, start:stop]
        corner[:] = np.triu(corner) + np.triu(corner, 1).T
        upper[stop:, start:stop] = upper[start:stop, stop:].T
