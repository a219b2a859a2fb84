"""Ranking quality against explicit loops and scikit-learn; ideal lists; what is no candidate."""

import numpy as np
import pytest
from sklearn.metrics import ndcg_score

from msgm.errors import UserError
from msgm.recommender.metrics import METRICS
from msgm.recommender.metrics.ranking import candidates, ranking
from msgm.recommender.models.estimator import top
from msgm.recommender.requests import Deletion
from tests.recommender.metrics.worlds import given, split_of, tiny_case

RNG = np.random.default_rng(0)


def random_parts(users=30, items=25):
    draw = RNG.random((users, items))
    return RNG.normal(size=(users, items)), draw < 0.2, (draw > 0.2) & (draw < 0.45)


def by_hand(scores, train, test, k):
    """Recall, NDCG and hit of one user, one step at a time."""
    order = [item for item in np.argsort(-scores) if not train[item]][:k]
    positives = int(test.sum())
    gain = sum(1 / np.log2(place + 2) for place, item in enumerate(order) if test[item])
    ideal = sum(1 / np.log2(place + 2) for place in range(min(k, positives)))
    found = sum(bool(test[item]) for item in order)
    return found / positives, gain / ideal, float(found > 0)


@pytest.mark.parametrize("k", [1, 5, 10])
def test_equals_explicit_loops(k):
    scores, train, test = random_parts()
    split = split_of(train, test)
    found = ranking(given(scores), split.train, split.test, k)
    wanted = [by_hand(scores[u], train[u], test[u], k) for u in found.users]
    np.testing.assert_allclose(np.stack([found.recall, found.ndcg, found.hit], axis=1), wanted, atol=1e-12)


@pytest.mark.parametrize("k", [3, 10])
def test_ndcg_equals_sklearns(k):
    scores, train, test = random_parts()
    scores = np.where(train, -100.0, scores)
    split = split_of(train, test)
    found = ranking(given(scores), split.train, split.test, k)
    wanted = [ndcg_score(test[[u]], scores[[u]], k=k) for u in found.users]
    np.testing.assert_allclose(found.ndcg, wanted, atol=1e-12)


@pytest.mark.parametrize("positives", [1, 2, 9, 10, 11, 20])
def test_the_ideal_list_has_ndcg_1_for_any_number_of_positives(positives):
    test = np.zeros((1, 30))
    test[0, -positives:] = 1
    split = split_of(np.eye(1, 30), test)
    found = ranking(given(test), split.train, split.test, 10)
    assert found.ndcg == pytest.approx([1.0])


def test_the_hit_rate_is_no_recall():
    test = [[0, 1, 1, 1, 1, 0]]
    split = split_of([[1, 0, 0, 0, 0, 0]], test)
    found = ranking(given([[0, 9, 0, 0, 0, 8]]), split.train, split.test, 2)
    assert (found.hit[0], found.recall[0]) == (1.0, 0.25)


def test_training_items_are_no_candidates_even_of_negative_scores():
    split = split_of([[1, 1, 0, 0]], [[0, 0, 0, 1]])
    found = ranking(given([[5.0, 4.0, -3.0, -2.0]]), split.train, split.test, 1)
    assert found.ndcg[0] == 1


def test_padding_of_short_lists_hits_nothing():
    split = split_of([[1, 1, 0]], [[0, 0, 1]])
    lists = top(candidates(np.array([[3.0, 2.0, 1.0]]), split.train), 3)
    assert lists.tolist() == [[2, -1, -1]]
    found = ranking(given([[3.0, 2.0, 1.0]]), split.train, split.test, 3)
    assert found.recall[0] == 1
    assert found.ndcg[0] == 1


def test_forgotten_users_items_and_cells_do_not_count():
    train = [[1, 1, 0, 0], [1, 0, 0, 0], [1, 0, 0, 0]]
    test = [[0, 0, 1, 0], [0, 0, 1, 1], [0, 1, 0, 0]]
    scores = [[0, 9, 5, 0], [0, 0, 5, 9], [0, 0, 9, 9]]
    deletion = Deletion(users=np.array([2]), items=np.array([3]), cells=np.array([[0, 1]]))
    case = tiny_case(given(scores), split_of(train, test), deletion)
    # User 0 does not see the forgotten cell's item 1 again, user 1 not the forgotten item 3, and user 2 is gone.
    found = METRICS.build({"name": "ranking", "k": 1}).measure(case)
    assert found == {"recall": 1.0, "ndcg": 1.0, "hit_rate": 1.0, "ndcg_of_kind": 1.0}


@pytest.mark.parametrize(
    ("deletion", "wanted"),
    [
        (Deletion(cells=np.array([[1, 0]])), 1.0),
        (Deletion(items=np.array([1])), 0.0),
        (Deletion(items=np.array([0])), 0.5),
        (Deletion(users=np.array([1])), None),
    ],
)
def test_utility_for_the_forgotten_kind_is_that_of_the_users_who_lose_cells(deletion, wanted):
    train, test = [[1, 1, 0, 0], [1, 0, 0, 0], [0, 0, 1, 1]], [[0, 0, 1, 0], [0, 0, 1, 0], [1, 0, 0, 0]]
    case = tiny_case(given([[0, 0, 1, 9], [0, 0, 9, 1], [1, 0, 9, 9]]), split_of(train, test), deletion)
    assert METRICS.build({"name": "ranking", "k": 1}).measure(case)["ndcg_of_kind"] == wanted


def test_without_a_held_out_cell_there_is_no_number():
    case = tiny_case(given([[1, 2]]), split_of([[1, 0]], [[0, 0]]), Deletion())
    assert set(METRICS.build({"name": "ranking"}).measure(case).values()) == {None}


def test_k_is_at_least_one():
    with pytest.raises(UserError, match="k must be at least 1, got 0"):
        METRICS.build({"name": "ranking", "k": 0})
