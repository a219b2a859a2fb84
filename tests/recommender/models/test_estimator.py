"""Recommenders with implicit's and scikit-learn's habits."""

import numpy as np
import pytest
from scipy.sparse import coo_array, csr_array, csr_matrix, random_array
from sklearn.base import clone

from msgm.errors import UserError
from msgm.recommender import ALS, EASE, ItemKNN, MultVAE, Plugged, SessionKNN
from msgm.recommender.models import MODELS
from msgm.recommender.models.estimator import canonical

USERS, ITEMS = 60, 25
MATRIX = csr_matrix(random_array((USERS, ITEMS), density=0.3, rng=np.random.default_rng(0)))
SEEN = MATRIX.toarray() != 0


@pytest.fixture
def model():
    return EASE(regularisation=5.0).fit(MATRIX)


def test_lists_are_the_best_unseen_items_with_their_scores(model):
    ids, scores = model.recommend([4, 9], N=6)
    own = model.score(np.array([4, 9]))
    for row, user in enumerate((4, 9)):
        expected = np.where(SEEN[user], -np.inf, own[row])
        assert ids[row].tolist() == np.argsort(-expected, kind="stable")[:6].tolist()
        assert scores[row] == pytest.approx(np.sort(expected)[::-1][:6])


def test_one_user_gives_flat_arrays(model):
    ids, scores = model.recommend(4, N=6)
    assert ids.shape == scores.shape == (6,)
    both = model.recommend([4], N=6)
    assert np.array_equal(ids, both[0][0])
    assert np.array_equal(scores, both[1][0])
    assert model.recommend(4)[0].shape == (10,)


def test_what_users_have_by_now_is_left_out_in_place_of_what_was_fitted(model):
    rows = csr_matrix(([1.0, 1.0], ([0, 1], [3, 5])), shape=(2, ITEMS))
    ids, scores = model.recommend([4, 9], rows, N=ITEMS)
    assert set(ids[0]) - {-1} == set(range(ITEMS)) - {3}
    assert set(ids[1]) - {-1} == set(range(ITEMS)) - {5}
    assert scores[0, -1] == -np.inf
    everything, _ = model.recommend([4, 9], rows, N=ITEMS, filter_already_liked_items=False)
    assert all(sorted(row) == list(range(ITEMS)) for row in everything.tolist())


def test_the_same_call_on_implicit_gives_arrays_of_the_same_form(model):
    als = pytest.importorskip("implicit.als")
    other = als.AlternatingLeastSquares(factors=4, random_state=0)
    other.fit(MATRIX.astype(np.float32), show_progress=False)
    users, own = np.array([1, 2]), MATRIX[[1, 2]]
    for theirs, ours in (
        (other.recommend(users, own, N=3), model.recommend(users, own, N=3)),
        (other.recommend(1, MATRIX[1], N=3), model.recommend(1, csr_matrix(MATRIX[1]), N=3)),
        (other.similar_items(users, N=3), model.similar_items(users, N=3)),
        (other.similar_items(1, N=3), model.similar_items(1, N=3)),
    ):
        assert [part.shape for part in theirs] == [part.shape for part in ours]
        assert ours[0].dtype.kind == "i"
        assert ours[1].dtype.kind == "f"


def test_similar_items_of_ease_are_partial_correlations(model):
    """Those of the rows of X with lambda pseudo-cells of each item: the inverse of the covariance, normalised."""
    gram = SEEN.astype(float).T @ SEEN + 5.0 * np.eye(ITEMS)
    precision = np.linalg.inv(gram)
    scale = np.sqrt(np.diagonal(precision))
    expected = -precision / np.outer(scale, scale)
    np.fill_diagonal(expected, 1)
    ids, scores = model.similar_items([7, 2], N=5)
    for row, item in enumerate((7, 2)):
        assert ids[row, 0] == item
        assert ids[row].tolist() == np.argsort(-expected[item], kind="stable")[:5].tolist()
        assert scores[row] == pytest.approx(np.sort(expected[item])[::-1][:5])


def test_similar_items_of_factors_are_cosines():
    model = ALS(factors=5, sweeps=3).fit(MATRIX)
    unit = model.item_factors / np.linalg.norm(model.item_factors, axis=1)[:, None]
    ids, scores = model.similar_items(3, N=ITEMS)
    assert scores == pytest.approx((unit @ unit[3])[ids], abs=1e-6)
    assert ids[0] == 3
    assert scores[0] == 1


def test_similar_items_without_vectors_are_cosines_of_columns():
    x = SEEN.astype(float)
    expected = x.T @ x / np.sqrt(np.outer(x.sum(0), x.sum(0)))
    for model in (ItemKNN().fit(MATRIX), MultVAE(epochs=1).fit(MATRIX)):
        ids, scores = model.similar_items(3, N=4)
        assert scores == pytest.approx(np.sort(expected[3])[::-1][:4])
        assert scores == pytest.approx(expected[3][ids])


def test_a_forgotten_item_is_like_no_other(model):
    near = int(model.similar_items(3, N=2)[0][1])
    model.forget(items=[near])
    assert near not in model.similar_items(3, N=ITEMS)[0]
    with pytest.raises(UserError, match=f"item number {near} was forgotten"):
        model.similar_items(near)


FIRST = np.argwhere(SEEN)[:4]
FIRST_CELLS = csr_array((np.ones(4), (FIRST[:, 0], FIRST[:, 1])), shape=(USERS, ITEMS))


@pytest.mark.parametrize(
    "named",
    [
        {"users": 3},
        {"users": np.array([3, 17])},
        {"items": [5]},
        {"interactions": [tuple(pair) for pair in FIRST.tolist()]},
        {"interactions": FIRST_CELLS},
        {"users": [3], "items": [5]},
    ],
)
def test_a_downdate_equals_a_refit(model, named):
    answer, rest = model.forget(**named), SEEN.copy()
    rest[named.get("users", [])] = False
    rest[:, named.get("items", [])] = False
    if "interactions" in named:
        rest[FIRST[:, 0], FIRST[:, 1]] = False
    assert answer.exactness == "exact up to rounding"
    assert np.array_equal(model.seen.toarray() != 0, rest)
    gram = rest.astype(float).T @ rest + 5.0 * np.eye(ITEMS)
    assert np.abs(model.inverse - np.linalg.inv(gram)).max() < 1e-12
    fresh = EASE(regularisation=5.0).fit(rest.astype(float))
    others = np.setdiff1d(np.arange(USERS), named.get("users", []))
    assert np.abs(model.score(others) - fresh.score(others)).max() < 1e-12


def test_a_forgotten_user_is_served_nothing(model):
    model.forget(users=[3])
    with pytest.raises(UserError, match="user number 3 was forgotten and is served nothing"):
        model.recommend([2, 3])


@pytest.mark.parametrize(
    ("do", "sentence"),
    [
        (lambda m: m.forget(), "name what is to be forgotten: users, items or interactions"),
        (lambda m: m.forget(users=[USERS]), f"users: number {USERS} is out of range; there are 0 to {USERS - 1}"),
        (lambda m: m.forget(items=[-1]), "items: number -1 is out of range"),
        (lambda m: m.forget(users=[1.5]), "users: expected whole numbers, got float64"),
        (lambda m: m.forget(interactions=[(0, 1, 2)]), r"interactions: expected pairs \(user, item\)"),
        (lambda m: m.forget(interactions=[(0, ITEMS)]), f"interactions: number {ITEMS} is out of range"),
        (lambda m: m.forget(interactions=[tuple(np.argwhere(SEEN)[0])] * 2), "a pair is given twice"),
        (lambda m: m.forget(interactions=[tuple(np.argwhere(~SEEN)[0])]), "the model never saw"),
        (lambda m: m.forget(users=np.arange(USERS)), "forgets all"),
        (lambda m: m.recommend([USERS]), "users: number 60 is out of range"),
        (lambda m: m.recommend("4"), "users: expected whole numbers"),
        (lambda m: m.recommend(4, N=0), "N must be at least 1, got 0"),
        (lambda m: m.recommend([4], 10), "user_items: expected a sparse matrix of shape .1, 25.*got int"),
        (lambda m: m.recommend([4], MATRIX), r"a row for each user; got csr_matrix of shape \(60, 25\)"),
        (lambda m: m.similar_items(ITEMS), "items: number 25 is out of range"),
        (lambda m: m.fit(np.zeros(3)), "expected a .users, items. matrix, sparse or dense; got ndarray"),
        (lambda m: m.fit(np.full((2, 2), np.nan)), "a value that is not finite"),
        (lambda m: SessionKNN().fit(MATRIX, times=[1]), f"times: expected {MATRIX.nnz}, one for each cell, got 1"),
    ],
)
def test_what_cannot_be_done_is_refused_and_changes_nothing(model, do, sentence):
    before = model.inverse.copy()
    with pytest.raises(UserError, match=sentence):
        do(model)
    assert np.array_equal(model.inverse, before)
    assert model.seen.nnz == MATRIX.nnz


@pytest.mark.parametrize(
    "form", [csr_array, coo_array, csr_matrix.tocsc, csr_matrix.toarray, lambda matrix: (matrix != 0).astype(np.int64)]
)
def test_any_form_of_a_matrix_is_taken(model, form):
    found = canonical(form(MATRIX))
    assert (found.dtype, found.has_sorted_indices) == (np.float32, True)
    assert np.array_equal(found.toarray() != 0, SEEN)
    assert np.array_equal(EASE(regularisation=5.0).fit(form(MATRIX)).inverse, model.inverse)


def test_cells_out_of_order_and_given_twice_are_put_right_and_the_matrix_is_left_alone():
    given = csr_array((np.array([1.0, 2.0, 3.0, 4.0]), np.array([2, 0, 2, 1]), np.array([0, 3, 4])), shape=(2, 3))
    before = given.indices.copy()
    found = canonical(given)
    assert found.toarray().tolist() == [[2, 0, 4], [0, 4, 0]]
    assert found.indices.tolist() == [0, 2, 1]
    assert np.array_equal(given.indices, before)


@pytest.mark.parametrize("name", MODELS.entries)
def test_clone_gives_the_same_model_unfitted(name):
    model = MODELS.build({"name": name})
    again = clone(model)
    assert again is not model
    assert again.settings() == model.settings()


def test_parameters_are_settings_and_count_from_the_next_fit_on(model):
    assert model.get_params() == {"regularisation": 5.0, "precision": "float64", "max_items": 20_000}
    before = model.inverse.copy()
    assert model.set_params(regularisation=50) is model
    assert np.array_equal(model.inverse, before)
    assert np.array_equal(model.fit(MATRIX).inverse, EASE(regularisation=50.0).fit(MATRIX).inverse)


def test_parameters_of_a_model_made_of_another_take_effect():
    model = Plugged().set_params(base={"name": "als", "factors": 3})
    assert model.fit(MATRIX).user_factors.shape == (USERS, 3)


@pytest.mark.parametrize(
    ("params", "sentence"),
    [
        ({"regularization": 1.0}, "model.regularization: unknown setting.*Did you mean 'regularisation'"),
        ({"regularisation": -1.0}, "model.regularisation must be a positive number, got -1.0"),
        ({"precision": "float16"}, "model.precision: expected one of float64, float32"),
    ],
)
def test_wrong_parameters_are_refused_and_change_nothing(model, params, sentence):
    with pytest.raises(UserError, match=sentence):
        model.set_params(max_items=7, **params)
    assert model.max_items == 20_000
