import os
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
from scipy.sparse import csr_array

from msgm.errors import UserError
from msgm.recommender.data.base import load_interactions
from msgm.recommender.models import MODELS, load_recommender
from msgm.recommender.requests import Deletion
from tests.recommender.models.cells import cells, one_of_each


def mf(**settings):
    return MODELS.build({"name": "mf", "factors": 4, "regularisation": 0.05, **settings})


def ratings(seed=0):
    """Ratings 1 to 5 by a user's and an item's level and two common directions."""
    matrix, rng = cells(), np.random.default_rng(seed)
    users, items = rng.normal(size=(120, 2)), rng.normal(size=(60, 2))
    rows, columns = matrix.nonzero()
    levels = 0.5 * rng.normal(size=120)[rows] + 0.5 * rng.normal(size=60)[columns]
    values = 3 + levels + (users[rows] * items[columns]).sum(1) + 0.2 * rng.normal(size=matrix.nnz)
    matrix.data[:] = np.clip(np.round(values), 1, 5)
    return matrix


def errors(model, matrix):
    return model.predict(*matrix.nonzero()) - matrix.data


def objective(model, matrix):
    rows, columns = matrix.nonzero()
    products = (model.user_factors[rows] * model.item_factors[columns]).sum(1)
    error = matrix.data - model.mean - model.user_bias[rows] - model.item_bias[columns] - products
    penalty = 0.0
    for bias, factors, numbers in (
        (model.user_bias, model.user_factors, rows),
        (model.item_bias, model.item_factors, columns),
    ):
        penalty += (np.bincount(numbers, minlength=len(bias)) * (bias**2 + (factors**2).sum(1))).sum()
    return (error**2).sum() + model.regularisation * penalty


def test_row_solves_meet_the_normal_equations():
    model = mf().fit(ratings())
    matrix = ratings().T.tocsr()
    features = np.column_stack([np.ones(120), model.user_factors])
    for item in (0, 7, 31):
        users, values = matrix[[item]].indices, matrix[[item]].data
        f = features[users]
        targets = values - model.mean - model.user_bias[users]
        found = np.linalg.solve(f.T @ f + 0.05 * len(users) * np.eye(5), f.T @ targets)
        assert np.abs(found - np.append(model.item_bias[item], model.item_factors[item])).max() < 1e-4


def test_the_objective_falls_with_every_sweep():
    values = [objective(mf(sweeps=sweeps).fit(ratings()), ratings()) for sweeps in (1, 2, 4, 8, 16)]
    assert all(later < earlier for earlier, later in pairwise(values))


def test_held_out_ratings_are_predicted_better_than_by_the_mean():
    matrix = ratings()
    test = np.random.default_rng(1).random(matrix.nnz) < 0.2
    train = csr_array((matrix.data[~test], np.stack(matrix.nonzero())[:, ~test]), matrix.shape)
    model = mf().fit(train)
    found = errors(model, matrix)[test]
    assert np.sqrt((found**2).mean()) < 0.6 * matrix.data[test].std()


def test_predictions_keep_to_the_range_of_ratings_and_scores_rank_beyond_it():
    model = mf().fit(ratings())
    users = np.repeat(np.arange(120), 60)
    predicted = model.predict(users, np.tile(np.arange(60), 120)).reshape(120, 60)
    scores = model.score(np.arange(120))
    assert predicted.min() == 1
    assert predicted.max() == 5
    assert scores.max() > 5
    assert np.abs(predicted - np.clip(scores, 1, 5)).max() < 1e-5


@pytest.mark.parametrize("kind", range(4))
def test_warm_sweeps_go_where_a_fit_to_the_rest_goes(kind):
    model = mf(sweeps=300, forget_sweeps=300).fit(ratings())
    answer = model.forget(one_of_each(model, np.random.default_rng(kind))[kind])
    assert answer.exactness == "exact at convergence"
    refitted = mf(sweeps=300).fit(model.seen)
    assert model.mean == refitted.mean
    assert objective(model, model.seen) == pytest.approx(objective(refitted, model.seen), rel=5e-3)


def test_forgotten_ratings_stop_being_fitted():
    matrix = ratings()
    gone = np.random.default_rng(1).random(matrix.nnz) < 0.1
    deletion = Deletion(cells=np.column_stack(matrix.nonzero())[gone])
    fitted = mf(regularisation=0.1).fit(matrix)
    before = np.square(errors(fitted, matrix)[gone]).mean()
    refitted = mf(regularisation=0.1).fit(deletion.without(matrix))
    reference = np.square(errors(refitted, matrix)[gone]).mean()
    fitted.forget(deletion)
    after = np.square(errors(fitted, matrix)[gone]).mean()
    assert reference > 1.2 * before
    assert abs(after - reference) < 0.2 * (reference - before)


@pytest.mark.parametrize("forgetting", ["sweeps", "local"])
def test_who_has_no_cell_left_has_no_bias_and_no_factors_left(forgetting):
    model = mf(forgetting=forgetting).fit(ratings())
    answer = model.forget(Deletion(users=np.array([5]), items=np.array([3])))
    assert answer.exactness == "approximate"
    assert forgetting == "local" or answer.facts["solve"]["converged"] is False
    assert model.user_bias[5] == model.item_bias[3] == 0
    assert (model.user_factors[5] == 0).all()
    assert (model.item_factors[3] == 0).all()
    assert model.mean == pytest.approx(model.seen.data.mean())


def test_local_forgetting_leaves_all_other_rows():
    model = mf(forgetting="local").fit(ratings())
    before, lost = model.item_factors.copy(), model.seen[[5]].indices
    answer = model.forget(Deletion(users=np.array([5])))
    assert answer.touched == 1 + len(lost)
    assert set(np.flatnonzero((model.item_factors != before).any(1))) == set(lost)


def test_saving_and_loading_is_bit_exact_and_forgetting_goes_on(tmp_path):
    model = mf().fit(ratings())
    model.save(tmp_path)
    loaded = load_recommender(tmp_path)
    for one in (model, loaded):
        one.forget(Deletion(users=np.array([6])))
    assert (loaded.score(np.arange(120)) == model.score(np.arange(120))).all()


def test_the_seed_alone_decides():
    assert (mf().fit(ratings()).item_factors == mf().fit(ratings()).item_factors).all()
    assert (mf().fit(ratings(), seed=1).item_factors != mf().fit(ratings()).item_factors).any()


def test_values_that_are_no_ratings_and_bad_settings_are_refused():
    with pytest.raises(UserError, match="mf predicts ratings, but every value is 1; use a model such as als"):
        mf().fit(cells())
    with pytest.raises(UserError, match="model.regularisation must be a positive number, got 0"):
        mf(regularisation=0)


@pytest.mark.skipif(
    not (Path(os.environ.get("MSGM_DATA", "")) / "ml-100k" / "u.data").is_file(),
    reason="needs ml-100k below the folder that MSGM_DATA names",
)
def test_rmse_on_movielens_100k():
    matrix = load_interactions({"name": "ml-100k", "feedback": "explicit"}).matrix
    test = np.random.default_rng(0).random(matrix.nnz) < 0.2
    train = csr_array((matrix.data[~test], np.stack(matrix.nonzero())[:, ~test]), matrix.shape)
    model = MODELS.build({"name": "mf"}).fit(train)
    rmse = np.sqrt(np.square(errors(model, matrix)[test]).mean())
    assert rmse < 0.935
    assert rmse < matrix.data[test].std() - 0.15
