"""Chances and means over all orders of tied items, against every order tried out."""

import math
from itertools import permutations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from msgm.recommender.metrics import METRICS
from msgm.recommender.metrics.distance import View, list_overlaps
from msgm.recommender.metrics.ranking import ranking
from msgm.recommender.models.estimator import top
from msgm.recommender.requests import Deletion
from msgm.recommender.ties import _common, _mean_common, any_of, overlaps, tied_rows
from tests.recommender.metrics import worlds
from tests.recommender.metrics.test_distance import rbo_by_hand

ITEMS = 6
ORDERS = list(permutations(range(ITEMS)))
SCORES = st.lists(st.sampled_from([0.0, 1.0, 2.0, -math.inf]), min_size=ITEMS, max_size=ITEMS)
MASKS = st.lists(st.booleans(), min_size=ITEMS, max_size=ITEMS)


def listed(scores, order, k):
    """The k best items, those of equal scores in this order."""
    offered = [item for item in range(len(scores)) if scores[item] > -math.inf]
    return sorted(offered, key=lambda item: (-scores[item], order[item]))[:k]


def quality(found, test, k):
    """Recall, NDCG and hit of a list."""
    gain = sum(1 / math.log2(place + 2) for place, item in enumerate(found) if test[item])
    ideal = sum(1 / math.log2(place + 2) for place in range(min(k, sum(test))))
    hits = sum(test[item] for item in found)
    return hits / sum(test), gain / ideal, hits > 0


@settings(max_examples=40, deadline=None)
@given(SCORES, MASKS, MASKS, st.integers(1, ITEMS + 1))
def test_ranking_is_the_mean_over_all_orders(scores, train, test, k):
    test = [held and not known for held, known in zip(test, train, strict=True)]
    if not any(test):
        return
    split = worlds.split_of([train], [test])
    found = ranking(worlds.given([scores]), split.train, split.test, k)
    masked = [-math.inf if known else score for score, known in zip(scores, train, strict=True)]
    wanted = np.mean([quality(listed(masked, order, k), test, k) for order in ORDERS], axis=0)
    np.testing.assert_allclose([found.recall[0], found.ndcg[0], found.hit[0]], wanted, atol=1e-12)


@settings(max_examples=40, deadline=None)
@given(SCORES, MASKS, st.integers(1, ITEMS + 1))
def test_exposure_is_the_share_of_orders_whose_list_holds_an_item(scores, items, k):
    items = np.flatnonzero(items)
    wanted = np.mean([bool(set(listed(scores, order, k)) & set(items)) for order in ORDERS])
    assert any_of(np.array([scores]), items, k)[0] == pytest.approx(wanted, abs=1e-12)


@settings(max_examples=60, deadline=None)
@given(SCORES, SCORES, st.integers(1, ITEMS + 1))
def test_overlaps_of_lists_are_means_over_all_orders(one, other, k):
    jaccard, agreement = overlaps(np.array([one]), np.array([other]), k)
    pairs = [(listed(one, order, k), listed(other, order, k)) for order in ORDERS]
    wanted = np.mean([len(set(a) & set(b)) / len(set(a) | set(b)) if a or b else 1 for a, b in pairs])
    assert jaccard[0] == pytest.approx(wanted, abs=1e-12)
    for depth in range(1, k + 1):
        shared = [len(set(a[:depth]) & set(b[:depth])) / max(len(a[:depth]), len(b[:depth]), 1) for a, b in pairs]
        assert agreement[0, depth - 1] == pytest.approx(np.mean(shared), abs=1e-12)


def test_what_two_long_groups_have_in_common_equals_a_simulation():
    x, y, common, m, n = 7, 12, 20, 9, 6
    rng = np.random.default_rng(0)
    found = np.zeros((m + 1, n + 1))
    for _ in range(40_000):
        order = rng.permutation(x + y + common)
        mine, theirs = order[order < x + common], order[order >= x]
        found[(mine[:m] >= x).sum(), (theirs[:n] < x + common).sum()] += 1 / 40_000
    chances = _common(x, y, common, m, n)
    assert chances.sum() == pytest.approx(1, abs=1e-12)
    np.testing.assert_allclose(chances, found, atol=0.012)
    wanted = sum(chances[i, j] * min(i, j) for i in range(m + 1) for j in range(n + 1))
    assert _mean_common(x, y, common, m, n) == pytest.approx(wanted, abs=1e-12)


def test_equal_scores_give_equal_lists_however_tied():
    scores = np.array([[0.0] * 40, [1.0] * 20 + [0.0] * 20])
    jaccard, agreement = overlaps(scores, scores, 10)
    np.testing.assert_allclose(jaccard, 1, atol=1e-12)
    np.testing.assert_allclose(agreement, 1, atol=1e-12)


@settings(max_examples=40, deadline=None)
@given(SCORES, SCORES, st.integers(1, ITEMS))
def test_the_distance_of_lists_is_the_mean_over_all_orders(one, other, k):
    views = [View.of(np.array([scores]), np.array([scores]), k) for scores in (one, other)]
    jaccard, rbo = list_overlaps(*views, 0.9)
    pairs = [(listed(one, order, k), listed(other, order, k)) for order in ORDERS]
    wanted = [len(set(a) & set(b)) / len(set(a) | set(b)) if a or b else 1 for a, b in pairs]
    assert jaccard[0] == pytest.approx(np.mean(wanted), abs=1e-12)
    if len(pairs[0][0]) == len(pairs[0][1]) == k:
        assert rbo[0] == pytest.approx(np.mean([rbo_by_hand(a, b, 0.9) for a, b in pairs]), abs=1e-12)


@settings(max_examples=60, deadline=None)
@given(SCORES, st.integers(1, ITEMS))
def test_lists_hang_on_ties_where_orders_give_several(scores, k):
    several = len({tuple(listed(scores, order, k)) for order in ORDERS}) > 1
    assert tied_rows(np.array([scores]), k).tolist() == [several]


def test_numbers_do_not_depend_on_the_numbering_of_items():
    rng = np.random.default_rng(1)
    scores, train, test = rng.integers(0, 3, (20, 15)).astype(float), rng.random((20, 15)) < 0.2, rng.random((20, 15))
    test = (test < 0.3) & ~train
    order = rng.permutation(15)
    found = []
    for columns in (np.arange(15), order):
        split = worlds.split_of(train[:, columns], test[:, columns])
        one = ranking(worlds.given(scores[:, columns]), split.train, split.test, 5)
        found.append(np.stack([one.recall, one.ndcg, one.hit]))
    np.testing.assert_allclose(found[0], found[1], atol=1e-12)


def test_constant_scores_have_the_numbers_of_random_lists():
    items, k, held_out = 50, 10, 4
    test = np.zeros((1, items))
    test[0, :held_out] = 1
    split = worlds.split_of(np.zeros((1, items)), test)
    found = ranking(worlds.given(np.zeros((1, items))), split.train, split.test, k)
    none = math.prod((items - held_out - i) / (items - i) for i in range(k))
    assert found.recall[0] == pytest.approx(k / items)
    assert found.hit[0] == pytest.approx(1 - none)
    discounts = 1 / np.log2(np.arange(2, k + 2))
    assert found.ndcg[0] == pytest.approx(held_out / items * discounts.sum() / discounts[:held_out].sum())


def test_what_is_served_counts_by_its_chance():
    scores = np.zeros((3, 5))
    model = worlds.given(scores)  # Everybody has seen item 0.
    deletion = Deletion(items=np.array([2]))
    case = worlds.tiny_case(model, worlds.split_of(model.seen.toarray(), np.zeros((3, 5))), deletion)
    found = METRICS.build({"name": "lists", "k": 1}).measure(case)
    assert found["lists_with_forgotten_items"] == pytest.approx(1 / 4)


def test_a_promoted_item_among_ties_is_exposed_by_its_chance():
    train = np.eye(4, 9)
    train[3, 8] = 1
    deletion = Deletion(users=np.array([3]))
    tags = {"promoted": np.arange(9) == 8}
    model = worlds.given(np.zeros((4, 9)), train)
    case = worlds.tiny_case(model, worlds.split_of(train, np.zeros((4, 9))), deletion, tags=tags)
    found = METRICS.build({"name": "backdoor", "k": 2}).measure(case)
    assert found["promoted_exposure"] == pytest.approx(2 / 8)


def test_tied_items_are_shown_in_an_order_of_each_user_that_stays():
    scores, users = np.zeros((3000, 20)), np.arange(3000)
    scores[:, 7] = 1
    lists = top(scores, 3, users)
    assert (lists[:, 0] == 7).all()
    assert np.array_equal(lists[5:6], top(scores[5:6], 3, users[5:6]))
    shares = np.bincount(lists[:, 1:].ravel(), minlength=20) / 3000
    np.testing.assert_allclose(np.delete(shares, 7), 2 / 19, atol=0.025)
    model = worlds.given(np.zeros((3, 6)))
    assert len({tuple(row) for row in model.listed(np.arange(3), 5).tolist()}) == 3
