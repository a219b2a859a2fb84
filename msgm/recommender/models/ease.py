r"""EASE^R: a linear item-item model with a closed form, and its exact downdate.

With X the (U, I) matrix of cells (1 where there is one), ``G = X'X + lambda I`` and ``P = G^{-1}``,

    B_ij = -P_ij / P_jj  (i != j),   B_jj = 0,   scores = X B

minimises ``|X - X B|^2 + lambda |B|^2`` under a zero diagonal (Steck, "Embarrassingly Shallow Autoencoders for Sparse
Data", WWW 2019, arXiv 1905.03375, Eq. 8).

Forgetting changes G by a matrix of low rank, and P follows exactly (Woodbury):

- rows W leave:  S = I - W P W',  P += (L^{-1} W P)' (L^{-1} W P)  with S = L L';
- rows W enter:  S = I + W P W',  P -= (L^{-1} W P)' (L^{-1} W P);
- items F leave: P -= (L^{-1} P_F.)' (L^{-1} P_F.)  with P_FF = L L' (Schur complement), then P_F. = P_.F = 0 but for
  P_jj = 1 / lambda, which is what a fit to empty columns gives; numbers of items stay as they are.

A user is a row that leaves; a user of whom single cells are forgotten leaves with the old row and enters with the new
one. S of leaving rows has no eigenvalue below ``lambda / (lambda + |W|^2)``.

``L^{-1} W P`` needs only the rows of P of the items in W. It is kept beside P as factors (``low_rank``), through which
scores are read as well; so one user costs the length of the user's rows, and writing all of P is paid once in 256.

Errors are watched by a probe w of random signs, one for each item. ``X'X w`` follows every request in whole numbers,
and ``e_j' P (G w) - w_j`` sums the errors of column j of ``G P`` with random signs: its root mean square is their norm,
and column j of P is off by at most ``1 / lambda`` times that norm. Items j are drawn anew at each request.
"""

import copy
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar, Literal, Self

import numpy as np
from numpy.typing import NDArray
from scipy.linalg import blas, lapack
from scipy.sparse import csr_array

from msgm.checks import at_least, positive
from msgm.errors import RunError, UserError
from msgm.memory import available, gigabytes
from msgm.recommender.models.base import MODELS, Recommender
from msgm.recommender.models.low_rank import BLOCK, MOST, LowRankSum, mirror
from msgm.recommender.requests import Deletion
from msgm.recommender.sparse import ones
from msgm.seeding import derive_seed

UPDATE_SHARE = 0.25
"""An update of a rank above this share of the items takes longer than a refit; measured break-even: about 0.4."""
LEAST_PIVOT = 1e-8
"""Below it, leaving rows make up nearly all of some direction of G, and the downdate would lose its digits."""
DRIFT = {"float64": 1e-10, "float32": 1e-3}
"""The largest drift that is not answered by a refit: what the probe finds wrong in P, in units of ``1 / lambda``."""
PROBES = 8
"""Items whose columns are probed at each request."""


@MODELS.register("ease")
@dataclass
class EASE(Recommender):
    """EASE^R; every cell counts as 1, ratings included.

    Forgetting is exact up to rounding, or bit-exact where it refits: when the update's rank exceeds a quarter of the
    number of items, when it would be ill-conditioned, or when the drift check finds that rounding has piled up. The
    drift stands in the answer's facts.

    Example:
        >>> model = msgm.recommender.EASE(regularisation=100.0).fit(matrix)
        >>> ids, scores = model.recommend([0, 3], N=5)
        >>> like, similarities = model.similar_items(2, N=3)
        >>> model.forget(users=[3]).exactness
        'exact up to rounding'

    Attributes:
        regularisation: lambda.
        precision: of P. float32 halves memory and time; a drift above 1e-3, in float64 above 1e-10, leads to a refit.
        max_items: refuse more items, as a fit takes about I^3 operations. Fewer are refused, too, where X'X and P, of
            8 I^2 bytes each (3.2 GB at 20,000; half of it in float32), do not fit into the memory that is free. A fit
            writes P over X'X; saving, and copies that forget, take the second one.
    """

    regularisation: float = 500.0
    precision: Literal["float64", "float32"] = "float64"
    max_items: int = 20_000

    exact: ClassVar[bool] = True

    def __post_init__(self) -> None:
        positive(self, "model", "regularisation")
        at_least(1, self, "model", "max_items")

    def _fit(self) -> None:
        self._refuse_too_many(self.seen.shape[1])
        self._solve(self.seen)

    def _refuse_too_many(self, items: int) -> None:
        """Refuse items whose matrices would not fit into memory, before any of them is made."""
        size, free = items**2 * np.dtype(self.precision).itemsize, available()
        if items <= self.max_items and 2 * size <= free:
            return
        allowed = f" model.max_items allows {self.max_items} items." if items > self.max_items else ""
        raise UserError(
            f"ease keeps items x items matrices: of {items} items X'X takes {gigabytes(size)} and its inverse as much, "
            f"{gigabytes(2 * size)} in all, and {gigabytes(free)} of memory are free.{allowed} Choose another "
            "model, such as als, bpr or item-knn, or read fewer items with data.min_count."
        )

    def _solve(self, matrix: csr_array) -> None:
        """Invert anew for ``matrix``."""
        self.parts = LowRankSum(self._inverted(matrix))
        self._probe(matrix)

    @property
    def inverse(self) -> NDArray[np.floating[Any]]:
        """P, (I, I); a copy where factors are kept apart."""
        return self.parts.dense()

    def _inverted(self, matrix: csr_array) -> NDArray[np.floating[Any]]:
        """Return P of ``matrix``, (I, I), symmetric bit by bit."""
        rows = self._ones(matrix)
        gram = np.empty((matrix.shape[1],) * 2, dtype=self.precision)
        by_item = rows.T.tocsr()
        for start in range(0, len(gram), BLOCK):
            gram[start : start + BLOCK] = (by_item[start : start + BLOCK] @ rows).toarray()
        gram[np.diag_indices_from(gram)] += self.regularisation
        factorise, invert = lapack.get_lapack_funcs(("potrf", "potri"), (gram,))
        factor, failed = factorise(gram.T, lower=0, overwrite_a=1, clean=0)
        if failed:
            raise RunError(f"ease: X'X + {self.regularisation} I has no {self.precision} Cholesky factor.")
        inverse = invert(factor, lower=0, overwrite_c=1)[0]
        mirror(inverse)
        return np.asarray(inverse.T)

    def score(self, users: NDArray[np.int64]) -> NDArray[np.floating[Any]]:
        """Return (len(users), I) scores X B, the rows of forgotten users zero."""
        return self.score_rows(self.seen[users])

    def score_rows(self, rows: csr_array) -> NDArray[np.floating[Any]]:
        cells = self._ones(rows)
        return np.asarray(cells.toarray() - self.parts.product(cells) / self.parts.diagonal)

    def weights(self) -> NDArray[np.floating[Any]]:
        """Return B, (I, I); column j holds what every item adds to the score of item j."""
        weights = -self.inverse / self.parts.diagonal
        np.fill_diagonal(weights, 0)
        return weights

    def similarities(self, items: NDArray[np.int64]) -> NDArray[np.float64]:
        """Return (len(items), I) partial correlations -P_ij / sqrt(P_ii P_jj), given all other items; 1 of itself."""
        roots = np.sqrt(self.parts.diagonal).astype(np.float64)
        found = -self.parts.rows(items) / np.outer(roots[items], roots)
        found[np.arange(len(items)), items] = 1.0
        return np.asarray(found)

    def _forget(self, deletion: Deletion) -> tuple[int, str, dict[str, Any]]:
        leaving, entering = self._changed_rows(deletion)
        rank = len(deletion.items) + leaving.shape[0] + entering.shape[0]
        items = self.seen.shape[1]
        if rank > UPDATE_SHARE * items:
            return self._refitted(deletion, {"rank": rank})
        if not self._updated(deletion.items, leaving, entering):
            return self._refitted(deletion, {"rank": rank, "ill_conditioned": True})
        if len(deletion.items):
            self._probe(deletion.without(self.seen))
        else:
            self.image += entering.T @ (entering @ self.signs) - leaving.T @ (leaving @ self.signs)
        drift = self._drift()
        if not drift <= DRIFT[self.precision]:
            return self._refitted(deletion, {"rank": rank, "drift": drift})
        if len(self.parts.factors) > MOST:
            self.parts.merge()
        return items, "exact up to rounding", {"refit": False, "rank": rank, "drift": drift}

    def fork(self) -> Self:
        """Return a copy that shares P until it writes to it; this model is not to forget before the copy is dropped."""
        other = copy.copy(self)
        other.parts, other.image = self.parts.fork(), self.image.copy()
        other.gone_users, other.gone_items = self.gone_users.copy(), self.gone_items.copy()
        return other

    def _refitted(self, deletion: Deletion, facts: dict[str, Any]) -> tuple[int, str, dict[str, Any]]:
        self._solve(deletion.without(self.seen))
        return self.seen.shape[1], "bit-exact", {"refit": True} | facts

    def _changed_rows(self, deletion: Deletion) -> tuple[csr_array, csr_array]:
        """Return the rows that leave and those that enter once the forgotten items are out of the catalogue."""
        users = np.union1d(deletion.users, deletion.cells[:, 0])
        before = self._ones(self.seen[users])
        old = Deletion(items=deletion.items).without(before)
        new = deletion.among(users).without(before)
        left = np.diff(new.indptr)
        changed = np.diff(old.indptr) > left
        return old[np.flatnonzero(changed)], new[np.flatnonzero(changed & (left > 0))]

    def _updated(self, items: NDArray[np.int64], leaving: csr_array, entering: csr_array) -> bool:
        """Update P; return False, with P spoilt, where a factor is too close to singular."""
        if len(items):
            rows = self.parts.rows(items)
            if not self._add(-1, rows[:, items], rows):
                return False
            self.parts.clear(items, 1 / self.regularisation)
        for sign, changed in ((1, leaving), (-1, entering)):
            if not changed.shape[0]:
                continue
            images = self.parts.product(changed)
            inner = np.eye(len(images), dtype=self.precision) - sign * (changed @ images.T)
            if not self._add(sign, inner, images, LEAST_PIVOT):
                return False
        return True

    def _add(self, sign: int, inner: NDArray[Any], images: NDArray[Any], least: float = 0.0) -> bool:
        """Add sign * images' inner^{-1} images to P; return False where ``inner`` has a pivot below least."""
        try:
            factor = np.linalg.cholesky(inner)
        except np.linalg.LinAlgError:
            return False
        if np.square(np.diagonal(factor)).min() < least:
            return False
        # BLAS counts columns first: to it, images are their transpose.
        (solve,) = blas.get_blas_funcs(("trsm",), (images,))
        self.parts.add(sign, solve(1, factor, images.T, side=1, lower=1, trans_a=1, overwrite_b=1).T)
        return True

    def _probe(self, matrix: csr_array) -> None:
        """Draw the probe w, and take X'X w of ``matrix``, in whole numbers."""
        draws = np.random.default_rng(derive_seed(self.seed, "ease", "probe"))
        self.signs = draws.choice([-1.0, 1.0], matrix.shape[1])
        cells = ones(matrix)
        self.image = np.asarray(cells.T @ (cells @ self.signs))

    def _drift(self) -> float:
        """Return the largest element of P G w - w on a few items drawn at random."""
        draws = np.random.default_rng(derive_seed(self.seed, "ease", "drift", self.seen.nnz))
        probed = draws.choice(len(self.signs), min(PROBES, len(self.signs)), replace=False)
        found = self.parts.rows(probed) @ (self.image + self.regularisation * self.signs)
        return float(np.abs(found - self.signs[probed]).max())

    def _ones(self, matrix: csr_array) -> csr_array:
        """Return the cells of ``matrix``, each 1, in the precision of P."""
        return ones(matrix, self.precision)

    def arrays(self) -> dict[str, NDArray[Any]]:
        self.parts.merge()  # from P and a factor apart the row of a forgotten user could be worked out
        return {"inverse": self.parts.base}

    def restore(self, arrays: Mapping[str, NDArray[Any]]) -> None:
        self.parts = LowRankSum(np.require(arrays["inverse"], requirements=["C", "W"]))
        self._probe(self.seen)
