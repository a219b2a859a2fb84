r"""Stereotypicality obfuscation: before training, take the items most typical of his class out of a user's profile.

With p_ci the share of class c's users who have item i, smoothed as (n_ci + 1) / (n_c + 2), the typicality of item i for
class c is

    t_ci = log p_ci - log (mean of p_bi over the other classes b),

and of every user's items those with the largest t are taken out or weighed down, up to a share of the profile, and
only where t > 0. Any model is then fitted to what is left. After the idea of obfuscation by stereotypicality (Escobedo
et al., "Making Alice Appear Like Bob", RecSys 2024); deviations: the log-ratio in place of their score, nothing is
added to a profile, and several attributes add up.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.sparse import csr_array

from msgm.checks import below_one
from msgm.errors import UserError
from msgm.recommender.attributes.labels import Labels, encode
from msgm.recommender.requests import kept


@dataclass(frozen=True)
class Obfuscation:
    """How much to obfuscate.

    Attributes:
        share: of a user's cells, at most, [0, 1), rounded down.
        weight: what values of chosen cells are multiplied by, [0, 1); 0 takes the cells out. Models that count every
            cell as 1 do not see weights: for them it must be 0.
    """

    share: float = 0.2
    weight: float = 0.0

    def __post_init__(self) -> None:
        below_one(self, "obfuscation", "share", "weight")

    def apply(self, matrix: csr_array, attributes: Mapping[str, NDArray[np.str_]]) -> csr_array:
        """Return another (U, I) matrix; profiles of users without a value are as before, and nobody's gets empty.

        Raises:
            UserError: no attribute, one with fewer than two values, or of another number of users.
        """
        labels = encode(attributes)
        for each in labels:
            if len(each.codes) != matrix.shape[0]:
                raise UserError(f"attribute {each.name!r} has {len(each.codes)} users; the data {matrix.shape[0]}.")
        rows = np.repeat(np.arange(matrix.shape[0]), np.diff(matrix.indptr))
        typical = sum(_of_cells(matrix, rows, each) for each in labels)
        chosen = _largest(rows, np.asarray(typical), np.floor(self.share * np.diff(matrix.indptr)))
        if not self.weight:
            return kept(matrix, ~chosen)
        values = np.where(chosen, self.weight * matrix.data, matrix.data).astype(matrix.data.dtype)
        return csr_array((values, matrix.indices.copy(), matrix.indptr.copy()), matrix.shape)


def typicality(matrix: csr_array, labels: Labels) -> NDArray[np.float64]:
    """Return (C, I) typicality of every item for every class, in nats; above 0 is more common there than elsewhere."""
    seen = csr_array((np.ones(matrix.nnz), matrix.indices, matrix.indptr), matrix.shape)
    indicators = labels.one_hot()
    shares = ((seen.T @ indicators).T + 1) / (indicators.sum(0)[:, None] + 2)
    others = (shares.sum(0) - shares) / (len(labels.values) - 1)
    return np.asarray(np.log(shares) - np.log(others))


def _of_cells(matrix: csr_array, rows: NDArray[np.int64], labels: Labels) -> NDArray[np.float64]:
    """Return the typicality of every stored cell for its user's class; 0 where the class is not known."""
    known = labels.codes[rows] >= 0
    return np.where(known, typicality(matrix, labels)[labels.codes[rows], matrix.indices], 0)


def _largest(rows: NDArray[np.int64], typical: NDArray[np.float64], counts: NDArray[Any]) -> NDArray[np.bool_]:
    """Return which cells are among the ``counts`` most typical of their row, and typical at all."""
    order = np.lexsort((-typical, rows))
    first = np.searchsorted(rows, rows)
    rank = np.empty(len(rows), dtype=np.int64)
    rank[order] = np.arange(len(rows))
    return (rank - first < counts[rows]) & (typical > 0)
