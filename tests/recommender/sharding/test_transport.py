"""Marginals and optimality of the entropic plan; balance of the clusters."""

import numpy as np
import pytest
from scipy.optimize import linprog

from msgm.recommender.sharding.transport import sinkhorn, transport_clusters


def test_marginals_of_the_plan():
    rng = np.random.default_rng(0)
    sources = rng.random(200)
    plan, _ = sinkhorn(rng.random((200, 7)), sources / sources.sum(), 0.02, np.zeros(7), tolerance=1e-8)
    assert plan.sum(axis=1) == pytest.approx(sources / sources.sum(), abs=1e-14)
    assert plan.sum(axis=0) == pytest.approx(np.full(7, 1 / 7), rel=1e-7)
    assert (plan >= 0).all()


def test_small_epsilon_comes_to_the_linear_programme():
    costs = np.random.default_rng(1).random((12, 3))
    rows = np.kron(np.eye(12), np.ones(3))
    columns = np.kron(np.ones(12), np.eye(3))
    bounds = np.concatenate([np.full(12, 1 / 12), np.full(3, 1 / 3)])
    best = linprog(costs.ravel(), A_eq=np.vstack([rows, columns]), b_eq=bounds).fun
    plan, _ = sinkhorn(costs, np.full(12, 1 / 12), 0.005, np.zeros(3), tolerance=1e-6)
    assert best - 1e-6 <= (plan * costs).sum() <= best + 0.005


def test_large_costs_leave_no_row_empty():
    costs = 1e6 * np.random.default_rng(2).random((50, 4))
    plan, _ = sinkhorn(costs, np.full(50, 0.02), 1.0, np.zeros(4))
    assert np.isfinite(plan).all()
    assert plan.sum(axis=1) == pytest.approx(np.full(50, 0.02))


@pytest.mark.parametrize("weighted", [False, True])
def test_clusters_are_balanced_by_the_masses(weighted):
    rng = np.random.default_rng(3)
    points = rng.normal(0, 1, (1000, 5)) + 4 * np.eye(5)[rng.choice(5, 1000, p=[0.6, 0.1, 0.1, 0.1, 0.1])]
    weights = rng.pareto(3, 1000) + 1 if weighted else np.ones(1000)
    labels, solve = transport_clusters(points, weights, 5, rng)
    assert solve.converged
    loads = np.bincount(labels, weights, 5) / weights.sum()
    assert loads.min() > 0.16
    assert loads.max() < 0.24


def test_users_without_mass_have_a_cluster_too():
    weights = np.ones(60)
    weights[:5] = 0
    points = np.random.default_rng(4).normal(size=(60, 3))
    labels, _ = transport_clusters(points, weights, 4, np.random.default_rng(5))
    assert set(labels) == {0, 1, 2, 3}


def test_a_plan_that_is_not_balanced_in_time_is_told(monkeypatch):
    monkeypatch.setattr("msgm.recommender.sharding.transport.STEPS", 1)
    points = np.random.default_rng(0).normal(size=(100, 3)) + 5 * (np.arange(100) < 90)[:, None]
    _, solve = transport_clusters(points, np.ones(100), 4, np.random.default_rng(1))
    assert not solve.converged
    assert solve.residual > 0.01
