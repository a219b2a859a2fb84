r"""Base of models fitted by alternating least squares: sweeps over both sides, and two ways to forget with them.

A sweep solves every user's row with the items held, then every item's with the users held. After a request, the cells
forgotten are out of every later solve, so that further sweeps minimise the objective of the retained cells alone: exact
once converged, up to the choice among equivalent minima. Sweeps have converged when every row solves its equations
given the other side: in the end the relative residual of these equations is computed for each side, over at most
``SAMPLE`` rows drawn at random, and the larger one is reported.

The first sweep takes out what the forgotten cells had added to their own rows. What these rows had taught all others
goes slowly: near a minimum a sweep multiplies what is left by a matrix with eigenvalues up to nearly 1. So sweeps end
with one more solve of the users, and both sides then take the rest of a geometric series (Aitken's extrapolation):

    P <- P + rho / (1 - rho) dP,   Q <- Q + rho / (1 - rho) dQ,   rho = |dP|^2 / |dQ|^2,

with dP and dQ the last steps of users and items. Their lengths are taken by the second derivative of the objective in
the rows of their side, in so far as the rows share it; with all of it, rho is the Rayleigh quotient of a sweep's matrix
at dQ: the factor by which another sweep would shrink this step.
"""

import math
from abc import abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from typing import Any, Literal, NamedTuple

import numpy as np
from numpy.typing import NDArray
from scipy.sparse import csr_array
from threadpoolctl import ThreadpoolController  # type: ignore[import-untyped]

from msgm.checks import at_least
from msgm.errors import UserError
from msgm.recommender.models.base import Recommender
from msgm.recommender.models.row_batches import Batch, batches
from msgm.recommender.requests import Deletion
from msgm.seeding import derive_seed
from msgm.solves import Solve

Side = Literal["user", "item"]
Rows = NDArray[np.int64] | slice
EVERY = slice(None)
OTHER: dict[Side, Side] = {"user": "item", "item": "user"}
CONVERGED = 1e-4
"""Relative residual at which sweeps have converged: ten times what single precision leaves."""
SAMPLE = 300
"""Rows of a side that the residual is computed over, at most."""
SLOWEST = 0.9
"""The largest rho that is extrapolated by: a larger one would be mostly rounding."""


class Half(NamedTuple):
    """Half a sweep: the rows of a side to solve, their (n, m) cells, and these in batches."""

    side: Side
    rows: Rows
    cells: csr_array
    made: list[Batch]


@dataclass
class Alternating(Recommender):
    """Alternating least squares.

    Forgetting by ``sweeps``, of which a last solve of the users and an extrapolation are part, is exact at convergence,
    and approximate before. ``local`` re-solves only the rows that lost a cell, each against the whole of the other side
    as it then is, and is approximate: all other rows stay as they were. In both, a user or an item that has no cell
    left gets zeros, as in a fit.

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
    forget_sweeps: int = 2

    def __post_init__(self) -> None:
        at_least(1, self, "model", "factors", "sweeps", "forget_sweeps")

    @abstractmethod
    def tables(self, side: Side) -> tuple[NDArray[np.float32], ...]:
        """Return the fitted tables of a side; their first axis counts users, or items."""

    @abstractmethod
    def solve(self, half: Half, warm: bool) -> None:
        """Solve the rows of a half sweep, in place; ``warm`` if they stand near their solution."""

    @abstractmethod
    def length(self, half: Half, steps: NDArray[np.float64]) -> float:
        """Return the sum over rows of d' H d, with H what rows share of the objective's second derivative.

        Args:
            half: the rows.
            steps: (n, w) their steps d: those of the side's tables, side by side.
        """

    def halves(self, cells: csr_array, users: Rows = EVERY, items: Rows = EVERY) -> tuple[Half, Half]:
        """Return the halves of a sweep over the given users and items for the (U, I) ``cells``.

        Rows of users and items without a cell become zero.
        """
        sides: list[tuple[Side, Rows, csr_array]] = [("user", users, cells), ("item", items, cells.T.tocsr())]
        made = []
        for side, rows, matrix in sides:
            for table in self.tables(side):
                table[np.diff(matrix.indptr) == 0] = 0
            own = matrix if rows is EVERY else matrix[rows]
            made.append(Half(side, rows, own, batches(own)))
        return made[0], made[1]

    def sweep(self, halves: tuple[Half, Half], times: int, warm: bool = False) -> None:
        """Solve the users and then the items, ``times`` over."""
        with _blas().limit(limits=1, user_api="blas"):
            for _ in range(times):
                for half in halves:
                    self.solve(half, warm)

    def refine(self, halves: tuple[Half, Half], times: int) -> float:
        """Sweep ``times`` over all rows, solve the users once more and extrapolate; return rho."""
        users, items = halves
        self.sweep(halves, times - 1, warm=True)
        with _blas().limit(limits=1, user_api="blas"):
            self.solve(users, warm=True)
            of_items, before = self._stepped(items)
            of_users, after = self._stepped(users)
        rate = min(after / before, SLOWEST) if before else 0.0
        moved: list[tuple[Side, list[NDArray[np.float32]]]] = [("user", of_users), ("item", of_items)]
        for side, steps in moved:
            for table, step in zip(self.tables(side), steps, strict=True):
                table += np.float32(rate / (1 - rate)) * step
        return rate

    def _stepped(self, half: Half) -> tuple[list[NDArray[np.float32]], float]:
        """Solve half a sweep over all rows; return the steps of the side's tables, and their squared length."""
        before = [table.copy() for table in self.tables(half.side)]
        self.solve(half, warm=True)
        steps = [table - old for table, old in zip(self.tables(half.side), before, strict=True)]
        return steps, self.length(half, np.column_stack(steps).astype(np.float64))

    @abstractmethod
    def left(self, half: Half) -> tuple[float, float]:
        """Return the squared norms of the residuals of the rows' equations, and of their right-hand sides."""

    def residual(self, halves: tuple[Half, Half]) -> float:
        """Return the relative residual of the equations of all rows, or of some drawn at random, of the worse side."""
        draws, found = np.random.default_rng(derive_seed(self.seed, self.name, "residual")), []
        for side, _, cells, _ in halves:
            rows = np.sort(draws.choice(cells.shape[0], min(SAMPLE, cells.shape[0]), replace=False))
            left, right = self.left(Half(side, rows, cells[rows], batches(cells[rows])))
            found.append(math.sqrt(left / right) if right else 0.0)
        return max(found)

    def _forget(self, deletion: Deletion) -> tuple[int, str, dict[str, Any]]:
        rest = deletion.without(self.seen)
        facts: dict[str, Any] = {"forgetting": self.forgetting, "sweeps": self.forget_sweeps}
        if self.forgetting == "sweeps":
            halves = self.halves(rest)
            facts["rate"] = self.refine(halves, self.forget_sweeps)
            reached = Solve(self.residual(halves), CONVERGED, self.forget_sweeps)
            facts["solve"] = reached.facts()
            return sum(rest.shape), "exact at convergence" if reached.converged else "approximate", facts
        gone = deletion.only(self.seen)
        users, items = np.flatnonzero(np.diff(gone.indptr)), np.unique(gone.indices).astype(np.int64)
        self.sweep(self.halves(rest, users, items), self.forget_sweeps, warm=True)
        return len(users) + len(items), "approximate", facts

    def placebo(self, deletion: Deletion) -> None:
        if self.forgetting == "local":
            raise UserError(
                f"{self.name} cannot tell what a withdrawal would change while model.forgetting is local: other rows "
                "stay as they were, and how far off that is, nothing tells short of a refit. Use sweeps."
            )
        self.refine(self.halves(self.seen), self.forget_sweeps)

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
