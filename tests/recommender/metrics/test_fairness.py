"""Gaps: who the active are, differences of means, and groups too small to compare."""

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
    assert np.flatnonzero(most_active(counts, 0.2)).tolist() == [2, 4]
    assert np.flatnonzero(most_active(counts, 0.05)).tolist() == [2]


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
        with pytest.raises(UserError, match=r"metrics.active must"):
            METRICS.build({"name": "fairness", "active": share})
