r"""Clusters by entropic optimal transport (UltraRE: Li et al., NeurIPS 2023, its optimal balanced clustering).

Units carry the masses a, sum 1; each of K clusters is to receive 1 / K. In turns, with D_ij = |x_i - c_j|^2,

    T = argmin <T, D> + epsilon sum T (log T - 1)   such that   T 1 = a,  T' 1 = b = 1 / K,
    cluster of i = argmax_j T_ij = argmax_j g_j - D_ij,   c_j = mean of the members' points.

Sinkhorn in its dual form: for potentials g of the clusters T_ij = a_i softmax_j((g_j - D_ij) / epsilon) has the right
rows, and g_j += epsilon (log b_j - log (T' 1)_j) corrects the columns. The softmax never underflows to a row of zeros.
"""

import numpy as np
from numpy.typing import NDArray
from scipy.special import softmax

from msgm.recommender.sharding.balanced import Space, squared_distances
from msgm.solves import Solve, worst

ROUNDS = 10
SHARPNESS = 0.02
"""epsilon in units of the mean cost."""
TOLERANCE = 0.01
"""Largest relative error of a column of T within the clustering: far below what rounding to the argmax moves."""
STEPS = 1000


def sinkhorn(
    costs: NDArray[np.float64],
    sources: NDArray[np.float64],
    epsilon: float,
    potentials: NDArray[np.float64],
    tolerance: float = TOLERANCE,
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Return the plan and the potentials of its columns.

    Args:
        costs: (n, K).
        sources: (n,) masses of the rows, sum 1; those of the columns are 1 / K.
        epsilon: weight of the entropy, in the costs' unit.
        potentials: (K,) to start from.
        tolerance: relative error of the columns at which to stop, or after STEPS.

    Returns:
        (n, K) plan, its rows exact; (K,) potentials.
    """
    plan, potentials, _ = _balanced(costs, sources, epsilon, potentials, tolerance)
    return plan, potentials


def _balanced(
    costs: NDArray[np.float64],
    sources: NDArray[np.float64],
    epsilon: float,
    potentials: NDArray[np.float64],
    tolerance: float = TOLERANCE,
) -> tuple[NDArray[np.float64], NDArray[np.float64], Solve]:
    """Return the results of ``sinkhorn``, and the largest remaining relative error of a column."""
    target = 1 / costs.shape[1]
    for step in range(1, STEPS + 1):
        plan = sources[:, None] * softmax((potentials - costs) / epsilon, axis=1)
        columns = plan.sum(axis=0)
        reached = Solve(float(np.abs(columns / target - 1).max()), tolerance, step)
        if reached.converged:
            break
        potentials = potentials - epsilon * np.log(np.maximum(columns / target, 1e-300))
    return plan, potentials, reached


def transport_clusters(
    points: NDArray[np.float64], weights: NDArray[np.float64], shards: int, rng: np.random.Generator
) -> tuple[NDArray[np.int64], Solve]:
    """Return (n,) clusters, 0 to ``shards`` - 1, of nearly equal sums of ``weights``, and how well the plan is solved.

    T is rounded to its argmax; the worst solve over the rounds is reported.

    Deviation: the released code solves the exact problem by linear programming, where this is the Sinkhorn iteration
    that the paper names; masses may be in proportion to the interactions, so that the shards' work is balanced.

    Args:
        points: (n, d).
        weights: (n,) masses, not all zero.
        shards: K, at most n.
        rng: draws the first centroids among the points.
    """
    everyone = Space(points, np.arange(len(points)))
    centroids = points[rng.choice(len(points), shards, replace=False)]
    sources, potentials, labels = weights / weights.sum(), np.zeros(shards), np.full(len(points), -1)
    solves = []
    for _ in range(ROUNDS):
        costs = squared_distances(points, centroids)
        _, potentials, reached = _balanced(costs, sources, SHARPNESS * max(costs.mean(), 1e-300), potentials)
        solves.append(reached)
        before, labels = labels, (potentials - costs).argmax(axis=1)
        if (labels == before).all():
            break
        centroids = everyone.means(labels, centroids)
    return labels, worst(solves)
