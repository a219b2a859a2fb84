"""Gaps: who the active are, differences of means, and groups too small to compare."""

from itertools import combinations

import numpy as np
import pytest

from msgm.errors import UserError
from msgm.recommender.metrics import METRICS
from msgm.recommender.metrics.fairness import most_active
from msgm.recommender.requests import Deletion
from tests.recommender.metrics.worlds import given, split_of, tiny_case


def case_of(gender, right, deletion=None, active=()):
    """Users with one held-out item, found at rank 1 where ``right``, else not at all; active ones have two cells."""
    users = len(right)
    train, test = np.zeros((2, users, 5))
    train[:, 0] = 1
    train[list(active), 1] = 1
    test[:, 4] = 1
    scores = np.zeros((users, 5))
    scores[:, 4] = np.where(right, 1, -1)
    attributes = {} if gender is None else {"gender": np.array(gender)}
    return tiny_case(given(scores, train), split_of(train, test), deletion or Deletion(), attributes=attributes)


def fairness(case, **settings):
    return METRICS.build({"name": "fairness", "k": 1, "least": 2} | settings).measure(case)


def test_the_active_are_the_top_share_by_count():
    counts = np.array([5, 0, 9, 1, 9, 3, 2, 2, 2, 2, 2])
    found = most_active(counts, 0.2)
    assert (np.flatnonzero(found.sure).tolist(), np.flatnonzero(found.tied).tolist(), found.places) == ([], [2, 4], 2)
    found = most_active(counts, 0.3)
    assert (np.flatnonzero(found.sure).tolist(), np.flatnonzero(found.tied).tolist(), found.places) == ([2, 4], [0], 1)
    assert most_active(counts, 0.05).places == 1


@pytest.mark.parametrize("size", [1, 2, 3, 4, 5])
def test_of_equally_active_users_each_counts_alike(size):
    """Users 1 to 4 are as active as one another; users 2 and 5 have no held-out item."""
    right, active = np.array([1, 1, 0, 0, 1, 0, 0, 1]), [3, 2, 2, 2, 2, 1, 1, 1]
    train, test = np.zeros((2, 8, 6))
    for user, count in enumerate(active):
        train[user, :count] = 1
        test[user, 5] = user not in (2, 5)
    scores = np.zeros((8, 6))
    scores[:, 5] = np.where(right, 1, -1)
    case = tiny_case(given(scores, train), split_of(train, test), Deletion())
    gaps = []
    for chosen in combinations([1, 2, 3, 4], size - 1):
        first = np.isin(np.arange(8), [0, *chosen]) & test[:, 5].astype(bool)
        others = test[:, 5].astype(bool) & ~first
        gaps.append(right[first].mean() - right[others].mean())
    assert fairness(case, active=size / 8)["active_gap"] == pytest.approx(np.mean(gaps))


def test_gaps_are_differences_of_means():
    case = case_of(list("FFMMMM"), [1, 0, 1, 1, 1, 0], active=[5])
    found = fairness(case, active=0.17)
    assert found["active_gap"] == pytest.approx(0 - 4 / 5)
    assert found["group_gap"] == pytest.approx(3 / 4 - 1 / 2)


def test_forgotten_users_are_in_no_group():
    case = case_of(list("FFMMM"), [1, 1, 1, 1, 0], deletion=Deletion(users=np.array([4])))
    assert fairness(case)["group_gap"] == 0


@pytest.mark.parametrize("gender", [None, ["F"] * 4, list("FFFM"), ["F", "F", "", ""]])
def test_without_two_groups_of_known_users_there_is_no_gap(gender):
    assert fairness(case_of(gender, [1, 0, 1, 0]))["group_gap"] is None


def test_the_share_of_the_active_lies_between_0_and_1():
    for share in (0.0, 1.0):
        with pytest.raises(UserError, match=r"options.fairness.active must"):
            METRICS.build({"name": "fairness", "active": share})
