import numpy as np
import pytest
from scipy.sparse import csr_array

from msgm.errors import UserError
from msgm.recommender.models import MODELS, load_recommender
from msgm.recommender.requests import Deletion
from tests.recommender.models.cells import cells
from tests.recommender.models.lists import check_stream, lists_of, plain_lists, same


def fitted(matrix=None, neighbours=7):
    return MODELS.build({"name": "user-knn", "neighbours": neighbours}).fit(cells() if matrix is None else matrix)


def test_lists_are_those_of_the_definition_ties_included():
    twins = cells().toarray()
    twins[20] = twins[50] = twins[10]
    model = fitted(csr_array(twins))
    assert lists_of(model) == plain_lists(twins, 7)
    assert model.lists.ids[10, :2].tolist() == [20, 50]  # equally similar: the lower number first


def test_scores_sum_the_similarities_of_neighbours_who_saw_the_item():
    model = fitted()
    seen = model.seen.toarray().astype(np.float64)
    expected = sum(similarity * seen[user] for user, similarity in lists_of(model)[4])
    assert model.score(np.array([4]))[0] == pytest.approx(expected, abs=1e-12)


@pytest.mark.parametrize("neighbours", [1, 7, 200])
def test_any_stream_leaves_the_lists_of_a_refit(neighbours):
    check_stream(fitted(neighbours=neighbours), 24, neighbours)


def test_a_forgotten_user_is_in_no_list_and_is_served_nothing():
    model = fitted()
    assert (model.lists.ids == 5).any()
    model.forget(Deletion(users=np.array([5])))
    assert not (model.lists.ids == 5).any()
    assert (model.lists.ids[5] == -1).all()
    assert (model.score(np.array([5])) == 0).all()
    with pytest.raises(UserError, match="user number 5 was forgotten"):
        model.listed(np.array([5]), 3)


def test_a_forgotten_item_scores_nothing():
    model = fitted()
    model.forget(Deletion(items=np.array([0])))
    assert (model.score(np.arange(120))[:, 0] == 0).all()
    assert not (model.listed(np.arange(120), 60) == 0).any()


def test_a_batch_and_a_stream_agree_bit_by_bit():
    batch, stream = fitted(), fitted()
    batch.forget(Deletion(users=np.array([3, 17, 40])))
    for user in (3, 17, 40):
        stream.forget(Deletion(users=np.array([user])))
    assert same(batch, stream)


def test_saving_and_loading_is_bit_exact_and_forgetting_goes_on(tmp_path):
    model = fitted()
    model.save(tmp_path)
    loaded = load_recommender(tmp_path)
    for one in (model, loaded):
        one.forget(Deletion(cells=np.array([[6, 0]])))
    assert same(model, loaded)


def test_no_neighbour_is_refused():
    with pytest.raises(UserError, match=r"model.neighbours must be at least 1, got 0"):
        fitted(neighbours=0)
