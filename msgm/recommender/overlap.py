r"""How much two lists of items have in common: the Jaccard index, and rank-biased overlap.

    jaccard     |L n M| / |L u M|
    rbo         (1 - p) / (1 - p^k) * sum over d = 1..k of p^(d-1) |L_1:d n M_1:d| / d

Rank-biased overlap is that of Webber, Moffat and Zobel (ACM TOIS 2010), cut at depth k and scaled so that equal lists
give 1, which the paper's is not. Lists in which items are tied are compared by ``msgm.recommender.ties``.
"""

import numpy as np
from numpy.typing import NDArray


def jaccard(one: NDArray[np.int64], other: NDArray[np.int64]) -> float:
    """Return the mean Jaccard index of the rows of two (n, k) arrays of items, 0 to 1; -1 is no item."""
    return float(agreements(one, other)[0].mean())


def rbo(one: NDArray[np.int64], other: NDArray[np.int64], persistence: float) -> float:
    """Return the mean rank-biased overlap of the rows of two (n, k) arrays of items, 0 to 1; -1 is no item."""
    return float(weighted(agreements(one, other)[1], persistence).mean())


def agreements(one: NDArray[np.int64], other: NDArray[np.int64]) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Return (n,) Jaccard indices and (n, k) shares in common by depth of two (n, k) arrays of items, -1 for none."""
    depth = np.arange(one.shape[1])
    same = (one[:, :, None] == other[:, None, :]) & (one[:, :, None] >= 0)
    shared = same.cumsum(axis=1).cumsum(axis=2)[:, depth, depth]
    sizes = [(lists >= 0).cumsum(axis=1) for lists in (one, other)]
    union = sizes[0][:, -1] + sizes[1][:, -1] - shared[:, -1]
    return np.where(union > 0, shared[:, -1] / np.maximum(union, 1), 1.0), shared / np.maximum(np.maximum(*sizes), 1)


def weighted(agreement: NDArray[np.float64], persistence: float) -> NDArray[np.float64]:
    """Return (n,) overlaps of (n, k) shares in common by depth."""
    weights = persistence ** np.arange(agreement.shape[1])
    return np.asarray(agreement @ weights / weights.sum())
