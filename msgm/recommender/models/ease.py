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
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray
from scipy.linalg import blas, lapack
from scipy.sparse import csr_array

from msgm.checks import at_least, positive
from msgm.errors import RunError, UserError
from msgm.recommender.models.base import MODELS, Recommender
from msgm.recommender.requests import Deletion
from msgm.recommender.sparse import ones
from msgm.seeding import derive_seed

UPDATE_SHARE = 0.25
"""An update of a rank above this share of the items takes longer than a refit; measured break-even: about 0.4."""
LEAST_PIVOT = 1e-8
"""Below it, leaving rows make up nearly all of some direction of G, and the downdate would lose its digits."""
DRIFT = {"float64": 1e-10, "float32": 1e-3}
"""The largest element of ``G P x - x`` for a probe x that is not answered by a refit."""
PROBES = 8
BLOCK = 512


@MODELS.register("ease")
@dataclass
class EASE(Recommender):
    """EASE^R; every cell counts as 1, ratings included.

    Forgetting is exact up to rounding, or bit-exact where it refits: when the update's rank exceeds a quarter of the
    number of items, when it would be ill-conditioned, or when the drift check finds that rounding has piled up.

    Example:
        >>> model = msgm.recommender.EASE(regularisation=100.0).fit(matrix)
        >>> ids, scores = model.recommend([0, 3], N=5)
        >>> like, similarities = model.similar_items(2, N=3)
        >>> model.forget(users=[3]).exactness
        'exact up to rounding'

    Attributes:
        regularisation: lambda.
        precision: of P. Errors after forgetting are about 1e-15 of P's scale in float64 and 1e-7 in float32.
        max_items: refuse more items: P takes 8 I^2 bytes (3.2 GB at 20,000), a fit about I^3 operations.
    """

    regularisation: float = 500.0
    precision: Literal["float64", "float32"] = "float64"
    max_items: int = 20_000

    def __post_init__(self) -> None:
        positive(self, "model", "regularisation")
        at_least(1, self, "model", "max_items")

    def _fit(self) -> None:
        items = self.seen.shape[1]
        if items > self.max_items:
            gigabytes = items**2 * np.dtype(self.precision).itemsize / 1e9
            raise UserError(
                f"ease keeps an items x items matrix: {items} items take {gigabytes:.1f} GB; model.max_items allows "
                f"{self.max_items}. Raise it, or choose another model, such as als."
            )
        self.inverse = self._inverted(self.seen)

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
        _mirror(inverse)
        return np.asarray(inverse.T)

    def score(self, users: NDArray[np.int64]) -> NDArray[np.floating[Any]]:
        """Return (len(users), I) scores X B, the rows of forgotten users zero."""
        rows = self._ones(self.seen[users])
        return np.asarray(rows.toarray() - (rows @ self.inverse) / np.diagonal(self.inverse))

    def weights(self) -> NDArray[np.floating[Any]]:
        """Return B, (I, I); column j holds what every item adds to the score of item j."""
        weights = -self.inverse / np.diagonal(self.inverse)
        np.fill_diagonal(weights, 0)
        return weights

    def similarities(self, items: NDArray[np.int64]) -> NDArray[np.float64]:
        """Return (len(items), I) partial correlations -P_ij / sqrt(P_ii P_jj), given all other items; 1 of itself."""
        roots = np.sqrt(np.diagonal(self.inverse)).astype(np.float64)
        found = -self.inverse[items] / np.outer(roots[items], roots)
        found[np.arange(len(items)), items] = 1.0
        return np.asarray(found)

    def _forget(self, deletion: Deletion) -> tuple[int, str, dict[str, Any]]:
        rest = deletion.without(self.seen)
        leaving, entering = self._changed_rows(deletion, rest)
        rank = len(deletion.items) + leaving.shape[0] + entering.shape[0]
        items = len(self.inverse)
        if rank > UPDATE_SHARE * items:
            return self._refitted(rest, {"rank": rank})
        if not self._updated(deletion.items, leaving, entering):
            return self._refitted(rest, {"rank": rank, "ill_conditioned": True})
        drift = self._drift(rest)
        if not drift <= DRIFT[self.precision]:
            return self._refitted(rest, {"rank": rank, "drift": drift})
        return items, "exact up to rounding", {"refit": False, "rank": rank, "drift": drift}

    def _refitted(self, rest: csr_array, facts: dict[str, Any]) -> tuple[int, str, dict[str, Any]]:
        self.inverse = self._inverted(rest)
        return len(self.inverse), "bit-exact", {"refit": True} | facts

    def _changed_rows(self, deletion: Deletion, rest: csr_array) -> tuple[csr_array, csr_array]:
        """Return the rows that leave and those that enter once the forgotten items are out of the catalogue."""
        users = np.union1d(deletion.users, deletion.cells[:, 0])
        old = Deletion(items=deletion.items).without(self._ones(self.seen[users]))
        new = self._ones(rest[users])
        changed = np.diff(old.indptr) > np.diff(new.indptr)
        return old[changed], new[changed & (np.diff(new.indptr) > 0)]

    def _updated(self, items: NDArray[np.int64], leaving: csr_array, entering: csr_array) -> bool:
        """Update P in place; return False, with P spoilt, where a factor is too close to singular."""
        if len(items):
            rows = self.inverse[items]
            if not self._add(-1, rows[:, items], rows):
                return False
            self.inverse[items] = 0
            self.inverse[:, items] = 0
            self.inverse[items, items] = 1 / self.regularisation
        for sign, changed in ((1, leaving), (-1, entering)):
            images = changed @ self.inverse
            inner = np.eye(len(images), dtype=self.precision) - sign * (changed @ images.T)
            if not self._add(sign, inner, images, LEAST_PIVOT):
                return False
        return True

    def _add(self, sign: int, inner: NDArray[Any], images: NDArray[Any], least: float = 0.0) -> bool:
        """Add sign * images' inner^{-1} images to P, in place; return False where ``inner`` has a pivot below least."""
        if not len(images):
            return True
        try:
            factor = np.linalg.cholesky(inner)
        except np.linalg.LinAlgError:
            return False
        if np.square(np.diagonal(factor)).min() < least:
            return False
        # BLAS counts columns first: to it, images are their transpose and the symmetric P is itself, without copies.
        target = self.inverse.T
        solve, rank_one, rank_many = blas.get_blas_funcs(("trsm", "ger", "syrk"), (target,))
        scaled = solve(1, factor, images.T, side=1, lower=1, trans_a=1, overwrite_b=1)
        if len(images) == 1:
            rank_one(sign, scaled[:, 0], scaled[:, 0], a=target, overwrite_x=0, overwrite_y=0, overwrite_a=1)
        else:
            rank_many(sign, scaled, beta=1, c=target, lower=0, overwrite_c=1)
            _mirror(target)
        return True

    def _drift(self, rest: csr_array) -> float:
        """Return the largest element of G P x - x, for x of +1 and -1 on a few items drawn at random."""
        draws = np.random.default_rng(derive_seed(self.seed, "ease", "drift", rest.nnz))
        probed = draws.choice(len(self.inverse), min(PROBES, len(self.inverse)), replace=False)
        signs = draws.choice([-1, 1], len(probed)).astype(self.precision)
        image = signs @ self.inverse[probed]
        cells = self._ones(rest)
        residual = cells.T @ (cells @ image) + self.regularisation * image
        residual[probed] -= signs
        return float(np.abs(residual).max())

    def _ones(self, matrix: csr_array) -> csr_array:
        """Return the cells of ``matrix``, each 1, in the precision of P."""
        return ones(matrix, self.precision)

    def arrays(self) -> dict[str, NDArray[Any]]:
        return {"inverse": self.inverse}

    def restore(self, arrays: Mapping[str, NDArray[Any]]) -> None:
        self.inverse = np.require(arrays["inverse"], requirements=["C", "W"])


def _mirror(upper: NDArray[Any]) -> None:
    """Copy the upper triangle of a square matrix onto the lower one, block by block."""
    size = len(upper)
    for start in range(0, size, BLOCK):
        stop = min(start + BLOCK, size)
        corner = upper[start:stop, start:stop]
        corner[:] = np.triu(corner) + np.triu(corner, 1).T
        upper[stop:, start:stop] = upper[start:stop, stop:].T
