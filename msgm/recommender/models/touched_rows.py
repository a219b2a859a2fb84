r"""Steps of Adagrad on the rows of a table that a batch touches, without work on the others.

With g the gradient of a row and s the sum of g^2 so far, element by element (Duchi, Hazan and Singer, JMLR 2011),

    s += g^2,   theta += eta g / sqrt(s),

which leaves a row as it is whose gradient is zero.
"""

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float32]
Numbers = NDArray[np.int64]


class TouchedRows:
    """The rows of a table that a batch names, any number of times each.

    Args:
        numbers: (n,) rows that the batch names, in its order.
        size: rows of the table.

    Attributes:
        rows: (k,) the rows, rising; all, where more than a quarter is named, for that is faster than to pick.
        places: (n,) of the ``numbers`` among ``rows``.
        counts: (k,) how often each is named.
    """

    def __init__(self, numbers: Numbers, size: int) -> None:
        named = np.bincount(numbers, minlength=size)
        there = named > 0
        self.rows: slice | Numbers = slice(None)
        self.places, self.counts = numbers, named
        if 4 * np.count_nonzero(there) <= size:
            self.rows = np.flatnonzero(there)
            self.places, self.counts = (np.cumsum(there) - 1)[numbers], named[self.rows]

    def of(self, table: Floats) -> Floats:
        """Return the rows of ``table``: a copy, or the table itself where it is all of them."""
        return table if isinstance(self.rows, slice) else table.take(self.rows, axis=0)  # faster than an index

    def sums(self, vectors: Floats, which: Numbers, weights: Floats) -> Floats:
        """Return (k, d) sums, at each row, of weights * vectors[which] over the places that name it.

        Args:
            vectors: (m, d).
            which: (n,) the vector of each place.
            weights: (n,) of each place.
        """
        import torch
        from torch.nn.functional import embedding_bag

        order = np.argsort(self.places.astype(np.min_scalar_type(len(self.counts))), kind="stable")  # a radix sort
        bags = torch.from_numpy(which[order]), torch.from_numpy(vectors)
        starts, shares = torch.from_numpy(np.cumsum(self.counts) - self.counts), torch.from_numpy(weights[order])
        return np.asarray(embedding_bag(*bags, starts, mode="sum", per_sample_weights=shares))

    def ascend(self, table: Floats, squares: Floats, slopes: Floats, rate: float) -> None:
        """Take a step of Adagrad, in place, up the (k, ...) ``slopes`` of the rows; ``squares`` are its sums."""
        import torch

        values, sums = self.of(table), self.of(squares)
        up, moved, summed = (torch.from_numpy(each) for each in (slopes, values, sums))
        summed.addcmul_(up, up)
        moved.addcmul_(up, summed.rsqrt(), value=rate)
        if not isinstance(self.rows, slice):
            table[self.rows], squares[self.rows] = values, sums

    def shrink(self, slopes: Floats, values: Floats, rate: float) -> None:
        """Take rate * values off the (k, d) ``slopes``, once for each time that a row is named."""
        import torch

        counts = torch.from_numpy(self.counts.astype(np.float32))
        torch.from_numpy(slopes).addcmul_(counts[:, None], torch.from_numpy(values), value=-rate)
