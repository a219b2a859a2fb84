r"""Balanced k-means by an ascending greedy assignment (RecEraser: Chen et al., WWW 2022, Algorithms 1 to 3).

A unit x (a user, an item or an interaction) has one point in each of one or several spaces, a cluster j a centroid in
each, and their distance is

    d(x, j) = product over spaces of |p_x - c_j|^2:

one space of users' vectors is the user-based partition (UBP), of items' vectors the item-based one (IBP), both
together, on interactions, the interaction-based one (InBP). A round takes all pairs (x, j) in ASCENDING order of
distance and puts x into j where x has no cluster yet and j has room; then every centroid becomes the mean VECTOR of
its members' points.

The greedy scan, vectorised: while the set of open clusters stands, x goes to its nearest open one. Units sorted by that
distance are admitted up to the first that finds its cluster full; that cluster closes, the rest look again. So a
round of assignment takes at most as many passes as there are clusters.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.sparse import csr_array

SLACK = 1.2
"""Capacity of a cluster in shares of an equal one."""
ROUNDS = 50


@dataclass(frozen=True, eq=False)
class Space:
    """Vectors, and which of them each unit has.

    Attributes:
        vectors: (m, d).
        index: (n,) the row of every unit.
    """

    vectors: NDArray[np.float64]
    index: NDArray[np.int64]

    def distances(self, centroids: NDArray[np.float64]) -> NDArray[np.float64]:
        """Return (n, K) squared distances of the units to the centroids."""
        return squared_distances(self.vectors, centroids)[self.index]

    def means(self, labels: NDArray[np.int64], before: NDArray[np.float64]) -> NDArray[np.float64]:
        """Return (K, d) mean vectors of the clusters; an empty cluster's stays as it was ``before``."""
        shape = (len(before), len(self.vectors))
        counts = csr_array((np.ones(len(labels)), (labels, self.index)), shape)
        sizes = counts.sum(axis=1)
        return np.where(sizes[:, None] > 0, counts @ self.vectors / np.maximum(sizes, 1)[:, None], before)


def squared_distances(points: NDArray[np.float64], centroids: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return (n, K) squared Euclidean distances."""
    inner = points @ centroids.T
    return np.maximum((points**2).sum(1)[:, None] + (centroids**2).sum(1) - 2 * inner, 0)


def capacity_of(weights: NDArray[np.float64], shards: int) -> float:
    """Return the capacity of a cluster: SLACK times an equal share, rounded up."""
    return float(np.ceil(SLACK * weights.sum() / shards))


def balanced_clusters(
    spaces: Sequence[Space], weights: NDArray[np.float64], shards: int, rng: np.random.Generator
) -> NDArray[np.int64]:
    """Return (n,) clusters of the units, 0 to ``shards`` - 1.

    Args:
        spaces: one or several.
        weights: (n,) what each unit takes of a cluster's capacity.
        shards: K, at most n.
        rng: draws the units whose points are the first centroids.
    """
    first = rng.choice(len(weights), shards, replace=False)
    centroids = [space.vectors[space.index[first]] for space in spaces]
    labels = np.full(len(weights), -1)
    for _ in range(ROUNDS):
        distances: Any = 1.0
        for space, centres in zip(spaces, centroids, strict=True):
            distances = distances * space.distances(centres)
        before, labels = labels, assign_ascending(distances, weights, capacity_of(weights, shards))
        if (labels == before).all():
            break
        centroids = [space.means(labels, centres) for space, centres in zip(spaces, centroids, strict=True)]
    return labels


def assign_ascending(
    distances: NDArray[np.float64], weights: NDArray[np.float64], capacity: float
) -> NDArray[np.int64]:
    """Return (n,) clusters by the greedy scan of all pairs in ascending order of distance.

    A cluster closes with the first unit that does not fit, so that none holds more than ``capacity``. Units left when
    all are closed, which needs unequal weights, go to the emptiest cluster, the heaviest unit first.

    Args:
        distances: (n, K).
        weights: (n,).
        capacity: of a cluster.
    """
    labels, room = np.full(len(distances), -1), np.full(distances.shape[1], float(capacity))
    is_open, left = np.ones(len(room), dtype=bool), np.arange(len(labels))
    while len(left) and is_open.any():
        candidates = np.flatnonzero(is_open)
        among = distances[np.ix_(left, candidates)]
        place = among.argmin(axis=1)
        order = np.argsort(among[np.arange(len(left)), place], kind="stable")
        left, nearest = left[order], candidates[place[order]]
        stop = _first_refused(nearest, weights[left], room)
        labels[left[:stop]] = nearest[:stop]
        room -= np.bincount(nearest[:stop], weights[left[:stop]], len(room))
        is_open[nearest[stop : stop + 1]] = False
        left = left[stop:]
    for unit in left[np.argsort(-weights[left], kind="stable")]:
        labels[unit] = room.argmax()
        room[labels[unit]] -= weights[unit]
    return labels


def _first_refused(nearest: NDArray[np.int64], weights: NDArray[np.float64], room: NDArray[np.float64]) -> int:
    """Return the place of the first unit that finds no room in its nearest cluster; their number where all do."""
    stop = len(nearest)
    for cluster, space in enumerate(room):
        members = np.flatnonzero(nearest[:stop] == cluster)
        fitting = int(np.searchsorted(np.cumsum(weights[members]), space, side="right"))
        if fitting < len(members):
            stop = int(members[fitting])
    return stop
