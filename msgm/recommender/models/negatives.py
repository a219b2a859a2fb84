"""Negative sampling: random items that a user has not seen."""

import numpy as np
from numpy.typing import NDArray
from scipy.sparse import csr_array

from msgm.errors import UserError
from msgm.recommender.sparse import rows_of

SLOTS = 8
"""Of the table, for a cell: it takes as many bytes as the codes, or twice as many."""


class Negatives:
    """Uniform draws among the items that a user has no cell of, by rejection of all draws at once.

    A cell (u, i) has the code u I + i; codes of a CSR matrix with sorted columns are sorted, so that a binary search
    tells whether a draw is a cell. Most draws need none: a table of the codes' last bits shows that they are not.

    Args:
        seen: (U, I) the cells that are no negatives.
    """

    def __init__(self, seen: csr_array) -> None:
        self.items = seen.shape[1]
        sizes = np.diff(seen.indptr).astype(np.int64)
        self.full = sizes == self.items
        self.codes = rows_of(seen) * self.items + seen.indices
        size = 1 << (SLOTS * len(self.codes)).bit_length()
        self._bits = np.int64(size - 1)
        self._taken = np.zeros(size, dtype=bool)
        self._taken[self.codes & self._bits] = True

    def known(self, users: NDArray[np.int64], items: NDArray[np.int64]) -> NDArray[np.bool_]:
        """Return which of the (n,) pairs are cells."""
        codes = users * self.items + items
        found = self._taken.take(codes & self._bits)
        unclear = np.flatnonzero(found)
        wanted = codes[unclear]
        places = np.minimum(np.searchsorted(self.codes, wanted), len(self.codes) - 1)
        found[unclear] = self.codes[places] == wanted
        return found

    def draw(self, users: NDArray[np.int64], rng: np.random.Generator) -> NDArray[np.int64]:
        """Return (n,) items, one for each of the (n,) users; fastest where ``users`` are sorted.

        Raises:
            UserError: a user has seen every item.
        """
        if self.full[users].any():
            raise UserError(f"user number {users[self.full[users]][0]} has seen every item: there is no negative.")
        items = rng.integers(self.items, size=len(users))
        open_ = np.flatnonzero(self.known(users, items))
        while len(open_):
            items[open_] = rng.integers(self.items, size=len(open_))
            open_ = open_[self.known(users[open_], items[open_])]
        return items
