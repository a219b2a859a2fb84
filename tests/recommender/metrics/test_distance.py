"""Distances: closed forms, and retrained models are one unit from each other."""

from dataclasses import replace

import numpy as np
import pytest

from msgm.errors import UserError
from msgm.recommender.metrics import METRICS
from msgm.recommender.metrics.distance import relative_l2
from msgm.recommender.overlap import jaccard, rbo
from tests.recommender.metrics.worlds import trained_case

DISTANCE = METRICS.build({"name": "distance"})


def rbo_by_hand(one, other, p):
    total = weights = 0.0
    for depth in range(1, len(one) + 1):
        total += p ** (depth - 1) * len(set(one[:depth]) & set(other[:depth])) / depth
        weights += p ** (depth - 1)
    return total / weights


def test_overlaps_equal_explicit_sets():
    rng = np.random.default_rng(0)
    one, other = (np.stack([rng.permutation(8)[:5] for _ in range(20)]) for _ in range(2))
    wanted = np.mean([rbo_by_hand(list(a), list(b), 0.9) for a, b in zip(one, other, strict=True)])
    assert rbo(one, other, 0.9) == pytest.approx(wanted)
    wanted = np.mean([len(set(a) & set(b)) / len(set(a) | set(b)) for a, b in zip(one, other, strict=True)])
    assert jaccard(one, other) == pytest.approx(wanted)


def test_equal_lists_overlap_wholly_and_padding_is_no_item():
    lists = np.array([[3, 1, -1], [2, 0, 1]])
    assert jaccard(lists, lists) == 1
    assert rbo(np.array([[3, 1, 2]]), np.array([[3, 1, 2]]), 0.9) == pytest.approx(1)
    assert jaccard(np.array([[3, -1, -1]]), np.array([[4, -1, -1]])) == 0
    assert rbo(np.array([[1, 2]]), np.array([[2, 1]]), 0.9) == pytest.approx(0.9 / 1.9)


def test_relative_l2():
    assert relative_l2(np.array([[1.0, 2.0]]), np.array([[1.0, 0.0]])) == 2
    assert relative_l2(np.zeros((1, 2)), np.zeros((1, 2))) == 0


def test_a_retrained_model_is_one_unit_from_the_others():
    case = trained_case("bpr", "users", retrains=4, factors=8, epochs=5)
    own = DISTANCE.measure(replace(case, target=case.retrains[0], retrains=case.retrains[1:]))
    for name in ("score", "jaccard", "rbo"):
        assert own[f"{name}_distance_units"] == pytest.approx(1, abs=0.15)


def test_the_original_is_farther_than_a_retrained_model():
    case = trained_case("als", "users", retrains=4, factors=8)
    own = DISTANCE.measure(replace(case, target=case.retrains[0], retrains=case.retrains[1:]))
    far = DISTANCE.measure(replace(case, retrains=case.retrains[1:]))
    assert all(far[name] > 2 * own[name] for name in far)


def test_models_without_a_seed_have_plain_distances_alone():
    case = trained_case("item-knn", "cells", retrains=2)
    found = DISTANCE.measure(replace(case, target=case.retrains[0]))
    assert [found[f"{name}_distance"] for name in ("score", "jaccard", "rbo")] == [0, 0, pytest.approx(0, abs=1e-12)]
    assert found["score_distance_units"] is None
    assert DISTANCE.measure(case)["score_distance"] > 0.01


def test_without_retrained_models_there_is_no_number():
    case = trained_case("item-knn", "cells", retrains=0)
    assert set(DISTANCE.measure(case).values()) == {None}


def test_persistence_is_below_one():
    with pytest.raises(UserError, match=r"options.distance.persistence must lie in \(0, 1\), got 1"):
        METRICS.build({"name": "distance", "persistence": 1.0})
