import copy

import numpy as np
import pytest
from scipy.sparse import csr_array

from msgm.errors import UserError
from msgm.recommender.models import MODELS, load_recommender
from msgm.recommender.models import ease as module
from msgm.recommender.models.ease import EASE
from msgm.recommender.requests import Deletion
from tests.recommender.models.cells import cells, one_of_each


def fitted(matrix=None, **settings):
    return MODELS.build({"name": "ease", "regularisation": 5.0, **settings}).fit(cells() if matrix is None else matrix)


def refitted(model):
    """The reference: a model of its own, fitted to the cells that are left."""
    return MODELS.build(model.settings()).fit(model.seen)


def worst(one, two):
    return np.abs(one - two).max()


def test_the_fit_solves_the_constrained_ridge_regression():
    model = fitted()
    x, weights = model.seen.toarray().astype(np.float64), model.weights()
    assert (np.diagonal(weights) == 0).all()
    # Stationary but for the multipliers of the zero diagonal.
    gradient = x.T @ (x @ weights - x) + 5.0 * weights
    np.fill_diagonal(gradient, 0)
    assert np.abs(gradient).max() < 1e-9
    assert worst(model.score(np.array([3, 1])), (x @ weights)[[3, 1]]) < 1e-12


def test_ratings_count_as_ones():
    rated = cells()
    rated.data[:] = np.random.default_rng(0).integers(1, 6, rated.nnz)
    assert (fitted(rated).inverse == fitted().inverse).all()


def test_200_requests_in_a_row_equal_a_refit(monkeypatch):
    model, rng = fitted(cells(users=900)), np.random.default_rng(1)
    monkeypatch.setattr(module, "MOST", 16)
    labels = []
    for step in range(200):
        kind = 1 if step % 20 == 0 else 2 * (step % 2)  # ten items, else users and cells in turn
        labels.append(model.forget(one_of_each(model, rng)[kind]).exactness)
        if step % 40 == 39:
            reference = refitted(model)
            assert worst(model.inverse, reference.inverse) <= 1e-10
            assert worst(model.weights(), reference.weights()) <= 1e-10
            assert worst(model.score(np.arange(900)), reference.score(np.arange(900))) <= 1e-10
    assert set(labels) == {"exact up to rounding"}


@pytest.mark.parametrize("kind", range(4))
def test_every_kind_of_request_equals_a_refit(kind):
    model = fitted()
    before = model.inverse.copy()
    answer = model.forget(one_of_each(model, np.random.default_rng(kind))[kind])
    assert answer.exactness == "exact up to rounding"
    assert worst(model.inverse, before) > 1e-6
    assert worst(model.inverse, refitted(model).inverse) < 1e-13


def test_parts_of_a_request_may_overlap():
    model = fitted()
    pairs = [[5, 0], [6, 0], [7, 0], [7, int(model.seen[[7]].indices[1])]]
    answer = model.forget(Deletion(users=np.array([5, 8]), items=np.array([0]), cells=np.array(pairs)))
    assert answer.exactness == "exact up to rounding"
    assert worst(model.inverse, refitted(model).inverse) < 1e-13


def test_a_batch_and_a_stream_agree():
    batch, stream = fitted(), fitted()
    users = np.array([3, 17, 40, 41])
    batch.forget(Deletion(users=users))
    for user in users:
        stream.forget(Deletion(users=np.array([user])))
    assert worst(batch.inverse, stream.inverse) < 1e-13


def test_one_user_adds_a_factor_and_leaves_the_base_alone():
    model = fitted()
    base = model.parts.base.copy()
    model.forget(Deletion(users=np.array([5])))
    assert (model.parts.base == base).all()
    assert len(model.parts.factors) == 1
    assert worst(model.inverse, base) > 1e-6


def test_factors_are_merged_beyond_their_bound(monkeypatch):
    monkeypatch.setattr(module, "MOST", 4)
    model, ranks = fitted(), []
    for user in range(7):
        model.forget(Deletion(users=np.array([user])))
        ranks.append(len(model.parts.factors))
    assert ranks == [1, 2, 3, 4, 0, 1, 2]
    assert worst(model.inverse, refitted(model).inverse) < 1e-13


def test_lists_and_neighbours_are_served_through_factors():
    model, rng = fitted(), np.random.default_rng(3)
    for kind in range(4):
        model.forget(one_of_each(model, rng)[kind])
    reference = refitted(model)
    assert len(model.parts.factors) > 4
    assert worst(model.score(np.arange(120)), reference.score(np.arange(120))) < 1e-12
    assert worst(model.similarities(np.arange(60)), reference.similarities(np.arange(60))) < 1e-12
    assert worst(model.weights(), reference.weights()) < 1e-12


def test_a_saved_model_holds_no_factor_of_a_forgotten_user():
    model = fitted()
    model.forget(Deletion(users=np.array([5])))
    merged = model.inverse
    assert (model.arrays()["inverse"] == merged).all()
    assert len(model.parts.factors) == 0


def test_a_large_request_is_answered_by_a_refit():
    model = fitted()
    small, large = Deletion(users=np.arange(15)), Deletion(users=np.arange(16))  # a quarter of 60 items is 15
    assert copy.deepcopy(model).forget(small).exactness == "exact up to rounding"
    answer = model.forget(large)
    assert (answer.exactness, answer.facts["refit"], answer.facts["rank"]) == ("bit-exact", True, 16)
    assert (model.inverse == refitted(model).inverse).all()


def test_drift_is_found_and_answered_by_a_refit():
    model = fitted()
    model.parts.base += 1e-7
    answer = model.forget(Deletion(users=np.array([5])))
    assert answer.exactness == "bit-exact"
    assert answer.facts["drift"] > 1e-10
    assert (model.inverse == refitted(model).inverse).all()


def test_a_nearly_singular_downdate_is_answered_by_a_refit():
    matrix = cells(users=400).toarray()
    matrix[:, 7] = 0
    matrix[9, 7] = 1  # the only cell of its item, so that 1 - x'Px is about lambda
    model = fitted(csr_array(matrix), regularisation=1e-9)
    answer = model.forget(Deletion(users=np.array([9])))
    assert answer.exactness == "bit-exact"
    assert answer.facts["ill_conditioned"]
    assert (model.inverse == refitted(model).inverse).all()


def test_the_forgotten_are_served_nothing_and_to_nobody():
    model = fitted()
    model.forget(Deletion(users=np.array([5]), items=np.array([0, 3])))
    assert (model.score(np.array([5])) == 0).all()
    assert (model.score(np.arange(120))[:, [0, 3]] == 0).all()
    assert not np.isin(model.listed(np.arange(5), 60), [0, 3]).any()
    with pytest.raises(UserError, match="user number 5 was forgotten"):
        model.listed(np.array([4, 5]), 3)


def test_a_user_without_cells_and_an_item_without_cells_are_forgotten_too():
    matrix = cells().toarray()
    matrix[8] = 0
    matrix[:, 9] = 0
    model = fitted(csr_array(matrix))
    model.forget(Deletion(users=np.array([8]), items=np.array([9])))
    assert worst(model.inverse, refitted(model).inverse) < 1e-14


def test_a_refused_request_changes_nothing():
    model = fitted()
    before = model.inverse.copy()
    unseen = np.argwhere(model.seen.toarray() == 0)[:1]
    with pytest.raises(UserError, match="nothing is left"):
        model.forget(Deletion(users=np.arange(120)))
    with pytest.raises(UserError, match="never saw"):
        model.forget(Deletion(cells=unseen))
    assert (model.inverse == before).all()


def test_saving_and_loading_is_bit_exact_and_forgetting_goes_on(tmp_path):
    model = fitted()
    model.forget(Deletion(users=np.array([5])))
    model.save(tmp_path)
    loaded = load_recommender(tmp_path)
    assert loaded.settings() == model.settings()
    for one in (model, loaded):
        one.forget(Deletion(users=np.array([6])))
    assert (loaded.inverse == model.inverse).all()
    assert (loaded.score(np.arange(120)) == model.score(np.arange(120))).all()


def test_float32_forgets_within_its_bound():
    model = fitted(precision="float32")
    answers = [model.forget(Deletion(users=np.array([user]))) for user in range(20)]
    assert {answer.exactness for answer in answers} == {"exact up to rounding"}
    assert model.inverse.dtype == np.float32
    assert max(answer.facts["drift"] for answer in answers) < 1e-4
    assert worst(model.inverse, fitted(model.seen).inverse) < answers[-1].facts["drift"] / model.regularisation


def test_float32_is_fitted_anew_when_its_bound_is_passed():
    model = fitted(precision="float32")
    model.parts.base[:] *= np.float32(1.01)
    answer = model.forget(Deletion(users=np.array([5])))
    assert answer.exactness == "bit-exact"
    assert answer.facts["drift"] > 1e-3
    assert (model.inverse == refitted(model).inverse).all()


def test_the_probe_follows_every_request_in_whole_numbers():
    model, rng = fitted(), np.random.default_rng(4)
    for kind in (0, 2, 1, 3, 2, 0):
        model.forget(one_of_each(model, rng)[kind])
    dense = model.seen.toarray().astype(np.float64)
    assert (model.image == dense.T @ (dense @ model.signs)).all()


def test_bad_settings_and_too_many_items_are_refused():
    with pytest.raises(UserError, match=r"model.regularisation must be a positive number, got 0"):
        fitted(regularisation=0.0)
    with pytest.raises(UserError, match=r"of 60 items X'X takes .* model.max_items allows 50 items\. Choose another"):
        fitted(max_items=50)


@pytest.mark.parametrize(("precision", "size", "both"), [("float64", "13.4", "26.9"), ("float32", "6.7", "13.4")])
def test_matrices_that_do_not_fit_are_refused_by_size_before_they_are_made(monkeypatch, precision, size, both):
    def made(*_):
        raise AssertionError("X'X is made")

    monkeypatch.setattr("msgm.recommender.models.ease.EASE._solve", made)
    monkeypatch.setattr("msgm.recommender.models.ease.available", lambda: 2 * 41_000**2 * 4 - 1)
    cells, model = csr_array(([1.0], ([0], [0])), shape=(2, 41_000)), EASE(precision=precision, max_items=50_000)
    sentence = rf"of 41000 items X'X takes {size} GB and its inverse as much, {both} GB in all, and 13\.4 GB of memory"
    with pytest.raises(UserError, match=sentence):
        model.fit(cells)
    monkeypatch.setattr("msgm.recommender.models.ease.available", lambda: 2 * 41_000**2 * 8)
    with pytest.raises(AssertionError, match="X'X is made"):
        model.fit(cells)
