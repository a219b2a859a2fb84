"""Ascending greedy assignment against a scan of all pairs, capacities, vector centroids."""

import numpy as np
import pytest

from msgm.recommender.sharding.balanced import Space, assign_ascending, balanced_clusters, squared_distances


def scan(distances, capacity, descending=False):
    """The greedy assignment as an explicit loop over all pairs."""
    order = np.argsort(-distances if descending else distances, axis=None, kind="stable")
    labels, sizes = np.full(len(distances), -1), np.zeros(distances.shape[1])
    for unit, cluster in zip(*np.unravel_index(order, distances.shape), strict=True):
        if labels[unit] < 0 and sizes[cluster] < capacity:
            labels[unit] = cluster
            sizes[cluster] += 1
    return labels


def inertia(points, labels):
    return sum(((points[labels == k] - points[labels == k].mean(axis=0)) ** 2).sum() for k in np.unique(labels))


@pytest.fixture
def points():
    rng = np.random.default_rng(0)
    centres = rng.normal(0, 3, (6, 4))
    return centres[rng.choice(6, 300, p=[0.4, 0.2, 0.1, 0.1, 0.1, 0.1])] + rng.normal(0, 1, (300, 4))


@pytest.mark.parametrize("capacity", [50, 60, 100])
def test_passes_over_open_clusters_are_the_scan_of_all_pairs(points, capacity):
    distances = squared_distances(points, points[:6])
    assert (assign_ascending(distances, np.ones(300), capacity) == scan(distances, capacity)).all()


def test_squared_distances_are_those_of_a_loop(points):
    expected = [[((x - c) ** 2).sum() for c in points[:3]] for x in points[:20]]
    assert squared_distances(points[:20], points[:3]) == pytest.approx(np.array(expected), abs=1e-9)


def test_every_unit_has_a_cluster_and_none_is_above_capacity(points):
    rng = np.random.default_rng(1)
    labels = balanced_clusters([Space(points, np.arange(300))], np.ones(300), 6, rng)
    sizes = np.bincount(labels, minlength=6)
    assert sizes.sum() == 300
    assert labels.min() >= 0
    assert sizes.max() <= 60


def test_weights_count_against_the_capacity():
    rng = np.random.default_rng(0)
    weights = rng.integers(1, 20, 400).astype(float)
    labels = assign_ascending(rng.random((400, 5)) * [0.1, 1, 1, 1, 1], weights, 1.2 * weights.sum() / 5)
    assert labels.min() >= 0
    assert np.bincount(labels, weights, 5).max() <= 1.2 * weights.sum() / 5


def test_units_that_fit_nowhere_go_to_the_emptiest_cluster():
    labels = assign_ascending(np.array([[0.0, 1.0], [0.1, 1.0], [0.2, 1.0]]), np.array([3.0, 3.0, 3.0]), 4.0)
    assert sorted(np.bincount(labels)) == [1, 2]
    labels = assign_ascending(np.array([[0.0, 1.0], [0.0, 1.0]]), np.array([9.0, 9.0]), 4.0)
    assert sorted(labels) == [0, 1]


def test_ascending_beats_descending_and_random(points):
    centroids = points[np.random.default_rng(3).choice(300, 6, replace=False)]
    ascending, descending = centroids, centroids
    for _ in range(20):
        one = assign_ascending(squared_distances(points, ascending), np.ones(300), 60)
        two = scan(squared_distances(points, descending), 60, descending=True)
        ascending, descending = (np.stack([points[x == k].mean(0) for k in range(6)]) for x in (one, two))
    random = np.random.default_rng(4).permutation(300) % 6
    assert inertia(points, one) < 0.9 * inertia(points, two)
    assert inertia(points, one) < 0.9 * inertia(points, random)


def test_centroids_are_vectors_and_empty_clusters_keep_theirs(points):
    space, labels = Space(points, np.arange(300)), np.arange(300) % 2
    before = np.full((3, 4), 7.0)
    means = space.means(labels, before)
    assert means[:2] == pytest.approx(np.stack([points[::2].mean(axis=0), points[1::2].mean(axis=0)]))
    assert (means[2] == 7).all()


def test_distances_in_two_spaces_are_products():
    users, items = np.array([[0.0], [10.0]]), np.array([[0.0], [10.0]])
    spaces = [Space(users, np.array([0, 0, 1, 1])), Space(items, np.array([0, 1, 0, 1]))]
    centroids = np.array([[1.0], [8.0]])
    product = spaces[0].distances(centroids) * spaces[1].distances(centroids)
    expected = [[(u - c) ** 2 * (i - c) ** 2 for c in (1, 8)] for u in (0, 10) for i in (0, 10)]
    assert product == pytest.approx(np.array(expected))
