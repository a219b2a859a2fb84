"""Base of models fitted by alternating least squares: sweeps over both sides, and two ways to forget with them.

A sweep solves every user's row with the items held, then every item's with the users held. After a request, the cells
forgotten are out of every later solve, so that further sweeps minimise the objective of the retained cells alone: exact
once converged, up to the choice among equivalent minima. Sweeps have converged when every row solves its equations
given the other side: after the last sweep the relative residual of these equations is computed for each side over all
its rows, and the larger one is reported.
"""

import math
from abc import abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray
from scipy.sparse import csr_array
from threadpoolctl import ThreadpoolController  # type: ignore[import-untyped]

from msgm.checks import at_least
from msgm.recommender.models.base import Recommender
from msgm.recommender.models.row_batches import Batch, batches
from msgm.recommender.requests import Deletion
from msgm.recommender.sparse import kept
from msgm.seeding import derive_seed
from msgm.solves import Solve

Side = Literal["user", "item"]
Rows = NDArray[np.int64] | slice
EVERY = slice(None)
OTHER: dict[Side, Side] = {"user": "item", "item": "user"}
CONVERGED = 1e-4
"""Relative residual at which sweeps have converged: ten times what single precision leaves."""


@dataclass
class Alternating(Recommender):
    """Alternating least squares.

    Forgetting by ``sweeps`` is exact at convergence, and approximate before. ``local`` re-solves only the rows that
    lost a cell, each against the whole of the other side as it then is, and is approximate: all other rows stay as they
    were. In both, a user or an item that has no cell left gets zeros, as in a fit.

    Attributes:
        factors: d, length of the rows.
        regularisation: lambda.
        sweeps: of a fit.
        forgetting: ``sweeps`` over all rows, or ``local``.
        forget_sweeps: number of sweeps, or of local re-solves, per request.
    """

    factors: int
    regularisation: float
    sweeps: int = 15
    forgetting: Literal["sweeps", "local"] = "sweeps"
    forget_sweeps: int = 1

    def __post_init__(self) -> None:
        at_least(1, self, "model", "factors", "sweeps", "forget_sweeps")

    @abstractmethod
    def tables(self, side: Side) -> tuple[NDArray[np.float32], ...]:
        """Return the fitted tables of a side; their first axis counts users, or items."""

    @abstractmethod
    def solve(self, side: Side, rows: Rows, made: list[Batch], values: NDArray[np.float32]) -> None:
        """Solve ``rows`` of a side, in place; ``made`` are batches of these rows' cells, with ``values``."""

    def sweep(self, cells: csr_array, times: int, users: Rows = EVERY, items: Rows = EVERY) -> None:
        """Solve the given users and then the given items for the (U, I) ``cells``; all of this ``times`` over."""
        halves: list[tuple[Side, Rows, csr_array]] = [("user", users, cells), ("item", items, cells.T.tocsr())]
        prepared = []
        for side, rows, matrix in halves:
            for table in self.tables(side):
                table[np.diff(matrix.indptr) == 0] = 0
            own = matrix if rows is EVERY else matrix[rows]
            prepared.append((side, rows, batches(own), own.data))
        with _blas().limit(limits=1, user_api="blas"):
            for _ in range(times):
                for half in prepared:
                    self.solve(*half)

    @abstractmethod
    def left(self, side: Side, made: list[Batch], values: NDArray[np.float32]) -> tuple[float, float]:
        """Return the squared norms of the residuals of a side's row equations, and of their right-hand sides."""

    def residual(self, cells: csr_array) -> float:
        """Return the relative residual of the rows' equations for the (U, I) ``cells``, of the worse side."""
        found = []
        halves: list[tuple[Side, csr_array]] = [("user", cells), ("item", csr_array(cells.T.tocsr()))]
        for side, matrix in halves:
            left, right = self.left(side, batches(matrix), matrix.data)
            found.append(math.sqrt(left / right) if right else 0.0)
        return max(found)

    def _forget(self, deletion: Deletion) -> tuple[int, str, dict[str, Any]]:
        mask = deletion.mask(self.seen)
        rest = kept(self.seen, ~mask)
        facts: dict[str, Any] = {"forgetting": self.forgetting, "sweeps": self.forget_sweeps}
        if self.forgetting == "sweeps":
            self.sweep(rest, self.forget_sweeps)
            reached = Solve(self.residual(rest), CONVERGED, self.forget_sweeps)
            facts["solve"] = reached.facts()
            return sum(rest.shape), "exact at convergence" if reached.converged else "approximate", facts
        gone = kept(self.seen, mask)
        users, items = np.flatnonzero(np.diff(gone.indptr)), np.unique(gone.indices).astype(np.int64)
        self.sweep(rest, self.forget_sweeps, users, items)
        return len(users) + len(items), "approximate", facts

    def start(self, deviation: float) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
        """Return user factors of zeros, and item factors drawn by the seed with this standard deviation."""
        users, items = self.seen.shape
        draws = np.random.default_rng(derive_seed(self.seed, self.name, "items"))
        drawn = draws.standard_normal((items, self.factors), dtype=np.float32)
        return np.zeros((users, self.factors), dtype=np.float32), np.float32(deviation) * drawn

    def restore(self, arrays: Mapping[str, NDArray[Any]]) -> None:
        for name, values in arrays.items():
            setattr(self, name, np.array(values))


@cache
def _blas() -> ThreadpoolController:
    """Find the BLAS libraries, once: on many small products their threads cost more than they bring."""
    return ThreadpoolController()
