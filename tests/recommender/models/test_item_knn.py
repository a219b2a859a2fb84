import math

import numpy as np
import pytest
from scipy.sparse import csr_array

from msgm.errors import UserError
from msgm.recommender.models import MODELS, load_recommender
from msgm.recommender.requests import Deletion
from tests.recommender.models.cells import cells
from tests.recommender.models.lists import check_stream, lists_of, plain_lists, same


def fitted(matrix=None, neighbours=7):
    return MODELS.build({"name": "item-knn", "neighbours": neighbours}).fit(cells() if matrix is None else matrix)


def test_lists_are_those_of_the_definition_ties_included():
    twins = cells().toarray()
    twins[:, 20] = twins[:, 50] = twins[:, 10]
    model = fitted(csr_array(twins))
    assert lists_of(model) == plain_lists(twins.T, 7)
    assert model.lists.ids[10, :2].tolist() == [20, 50]  # equally similar: the lower number first


def test_scores_sum_the_lists_of_what_the_user_has_seen():
    model = fitted()
    lists, expected = lists_of(model), np.zeros(60)
    for item in model.seen[[4]].indices:
        for neighbour, similarity in lists[item]:
            expected[neighbour] += similarity
    assert model.score(np.array([4]))[0] == pytest.approx(expected, abs=1e-12)


@pytest.mark.parametrize("neighbours", [1, 7, 100])
def test_any_stream_leaves_the_lists_of_a_refit(neighbours):
    check_stream(fitted(neighbours=neighbours), 24, neighbours)


def test_the_lists_are_repaired_in_blocks_as_in_one(monkeypatch):
    monkeypatch.setattr("msgm.recommender.models.neighbours.BLOCK_CELLS", 180)  # three rows at a time
    check_stream(fitted(), 12, 5)


def small():
    """Item 0 shares two of its four users with item 1, which has three, and two with item 2, which has four."""
    rows = [[1, 1, 0], [1, 1, 0], [1, 0, 1], [1, 0, 1], [0, 1, 0], [0, 0, 1], [0, 0, 1]]
    return fitted(csr_array(np.array(rows, dtype=np.float32)), neighbours=1)


def test_a_similarity_that_rises_enters_the_list_of_an_untouched_item():
    model = small()
    assert lists_of(model)[0] == [(1, 2 / math.sqrt(4 * 3))]
    model.forget(Deletion(users=np.array([5, 6])))
    assert lists_of(model)[0] == [(2, 2 / math.sqrt(4 * 2))]


def test_a_similarity_that_falls_makes_room_for_one_that_was_not_listed():
    model = small()
    model.forget(Deletion(cells=np.array([[0, 1]])))
    assert lists_of(model)[0] == [(2, 2 / math.sqrt(4 * 4))]


def test_of_equal_ones_the_lower_number_enters_even_where_it_was_neither_listed_nor_touched():
    # Item 0 shares two of its four users with each other item; items 1 and 2 have four users, item 3 has five.
    users = {0: [0, 1, 2, 3], 1: [0, 1, 4, 5], 2: [0, 1, 6, 7], 3: [0, 1, 8, 9, 10]}
    matrix = np.zeros((11, 4), dtype=np.float32)
    for item, rows in users.items():
        matrix[rows, item] = 1
    model = fitted(csr_array(matrix), neighbours=1)
    assert lists_of(model)[0] == [(1, 0.5)]
    model.forget(Deletion(cells=np.array([[0, 1], [10, 3]])))
    assert lists_of(model)[0] == [(2, 0.5)]


def test_only_concerned_lists_are_written():
    model = small()
    assert model.forget(Deletion(users=np.array([4]))).touched == 2  # item 1 itself, and item 0, which lists it


def test_a_batch_and_a_stream_agree_bit_by_bit():
    batch, stream = fitted(), fitted()
    batch.forget(Deletion(users=np.array([3, 17, 40])))
    for user in (3, 17, 40):
        stream.forget(Deletion(users=np.array([user])))
    assert same(batch, stream)


def test_the_forgotten_are_served_nothing_and_to_nobody():
    model = fitted()
    model.forget(Deletion(users=np.array([5]), items=np.array([0, 3])))
    assert (model.score(np.array([5])) == 0).all()
    assert (model.score(np.arange(120))[:, [0, 3]] == 0).all()
    assert not np.isin(model.lists.ids, [0, 3]).any()
    assert not np.isin(model.listed(np.arange(5), 60), [0, 3]).any()
    with pytest.raises(UserError, match="user number 5 was forgotten"):
        model.listed(np.array([4, 5]), 3)


def test_saving_and_loading_is_bit_exact_and_forgetting_goes_on(tmp_path):
    model = fitted()
    model.save(tmp_path)
    loaded = load_recommender(tmp_path)
    for one in (model, loaded):
        one.forget(Deletion(users=np.array([6])))
    assert same(model, loaded)


def test_no_neighbour_is_refused():
    with pytest.raises(UserError, match=r"model.neighbours must be at least 1, got 0"):
        fitted(neighbours=0)
