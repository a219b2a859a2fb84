"""What is served after forgetting: no forgotten item, no forgotten user."""

import copy

import numpy as np
import pytest

from msgm.recommender.methods import METHODS
from msgm.recommender.metrics import METRICS
from msgm.recommender.requests import Deletion
from tests.recommender.metrics.worlds import given, split_of, tiny_case, trained_case

LISTS = METRICS.build({"name": "lists"})
ITEMS, USERS = "lists_with_forgotten_items", "forgotten_users_served"


@pytest.mark.parametrize(("kind", "number"), [("items", ITEMS), ("users", USERS)])
def test_doing_nothing_serves_and_forgetting_does_not(kind, number):
    case = trained_case("ease", kind, retrains=0)
    assert LISTS.measure(case)[number] > 0.1
    forgotten = METHODS.build({"name": "native"}).unlearn(case.target, case.deletion, 0).model
    case = tiny_case(forgotten, case.split, case.deletion)
    assert LISTS.measure(case) == {ITEMS: None, USERS: None} | {number: 0.0}


def test_the_share_is_that_of_retained_users_lists():
    scores = np.array([[0, 9, 1, 2], [0, 1, 9, 2], [0, 1, 2, 9], [0, 9, 1, 2]])
    model = given(scores)
    deletion = Deletion(users=np.array([3]), items=np.array([1]))
    case = tiny_case(model, split_of(model.seen.toarray(), np.zeros((4, 4))), deletion)
    found = METRICS.build({"name": "lists", "k": 1}).measure(case)
    assert found == {ITEMS: pytest.approx(1 / 3), USERS: 1.0}
    gone = copy.deepcopy(model)
    gone.mark(deletion)
    found = METRICS.build({"name": "lists", "k": 1}).measure(tiny_case(gone, case.split, deletion))
    assert found == {ITEMS: 0.0, USERS: 0.0}


def test_single_cells_have_no_such_number():
    case = trained_case("item-knn", "cells", retrains=0)
    assert LISTS.measure(case) == {ITEMS: None, USERS: None}
