import copy
import os
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
from scipy.sparse import csr_matrix
from scipy.stats import rankdata

from msgm.errors import UserError
from msgm.recommender.data.base import load_interactions
from msgm.recommender.data.splits import load_split
from msgm.recommender.models import MODELS, load_recommender
from msgm.recommender.models.als import solve_rows
from msgm.recommender.models.row_batches import batches
from msgm.recommender.requests import Deletion
from tests.recommender.models.cells import cells, one_of_each

REGULARISATION, ALPHA = 5.0, 4.0


def als(**settings):
    return MODELS.build({"name": "als", "factors": 8, "regularisation": REGULARISATION, "alpha": ALPHA, **settings})


def dense_solve(matrix, other):
    """The normal equations of every row, in float64."""
    seen, other = matrix.toarray() > 0, other.astype(np.float64)
    weights = 1 + ALPHA * seen
    rows = []
    for weight, cell in zip(weights, seen, strict=True):
        gram = (other * weight[:, None]).T @ other + REGULARISATION * np.eye(other.shape[1])
        rows.append(np.linalg.solve(gram, other.T @ (weight * cell)))
    return np.array(rows)


def objective(model):
    seen = model.seen.toarray() > 0
    p, q = model.user_factors.astype(np.float64), model.item_factors.astype(np.float64)
    error = (1 + ALPHA * seen) * (seen - p @ q.T) ** 2
    return error.sum() + REGULARISATION * ((p**2).sum() + (q**2).sum())


def apart(one, two):
    """Relative distance of all scores."""
    users = np.arange(one.seen.shape[0])
    return np.linalg.norm(one.score(users) - two.score(users)) / np.linalg.norm(two.score(users))


@pytest.mark.parametrize(("steps", "error"), [(1, 0.2), (3, 0.01), (10, 1e-5)])
def test_row_solves_meet_the_normal_equations(steps, error):
    other = np.random.default_rng(1).normal(0, 0.3, (60, 8)).astype(np.float32)
    expected = dense_solve(cells(), other)
    found = solve_rows(batches(cells()), other, np.zeros((120, 8), np.float32), REGULARISATION, ALPHA, steps)
    assert np.linalg.norm(found - expected) < error * np.linalg.norm(expected)


def test_a_row_at_its_solution_stays_there():
    other = np.random.default_rng(1).normal(0, 0.3, (60, 8)).astype(np.float32)
    expected = dense_solve(cells(), other).astype(np.float32)
    found = solve_rows(batches(cells()), other, expected, REGULARISATION, ALPHA, 3)
    assert np.abs(found - expected).max() < 1e-5


def test_the_objective_falls_with_every_sweep():
    values = [objective(als(sweeps=sweeps).fit(cells())) for sweeps in (1, 2, 4, 8, 16)]
    assert all(later < earlier for earlier, later in pairwise(values))


def test_ratings_count_as_ones_and_the_seed_alone_decides():
    rated = cells()
    rated.data[:] = np.random.default_rng(0).integers(1, 6, rated.nnz)
    assert (als().fit(rated).item_factors == als().fit(cells()).item_factors).all()
    assert (als().fit(cells(), seed=1).item_factors != als().fit(cells(), seed=2).item_factors).any()


@pytest.mark.parametrize("forgetting", ["sweeps", "local"])
def test_who_has_no_cell_left_has_no_factors_left(forgetting):
    model = als(forgetting=forgetting).fit(cells())
    model.forget(Deletion(users=np.array([5]), items=np.array([0, 3])))
    assert (model.user_factors[5] == 0).all()
    assert (model.item_factors[[0, 3]] == 0).all()
    assert (model.user_factors[6] != 0).any()
    assert not np.isin(model.listed(np.arange(5), 60), [0, 3]).any()


@pytest.mark.parametrize("kind", range(4))
def test_sweeps_converge_to_a_minimum_of_what_is_left(kind):
    model = als(forget_sweeps=150, cg_steps=8).fit(cells())
    before = model.user_factors.copy()
    answer = model.forget(one_of_each(model, np.random.default_rng(kind))[kind])
    assert (answer.exactness, answer.touched) == ("exact at convergence", 180)
    assert (model.user_factors != before).any()
    refitted = als(sweeps=300, cg_steps=8).fit(model.seen)
    assert objective(model) == pytest.approx(objective(refitted), rel=2e-3)
    for mine, other, matrix in (
        (model.user_factors, model.item_factors, model.seen),
        (model.item_factors, model.user_factors, model.seen.T.tocsr()),
    ):
        assert np.linalg.norm(mine - dense_solve(matrix, other)) < 5e-3 * np.linalg.norm(mine)


def test_local_forgetting_solves_the_rows_that_lost_a_cell_and_no_other():
    model = als(forgetting="local", forget_sweeps=1, cg_steps=12).fit(cells())
    before = copy.deepcopy(model)
    user, other = 5, 9
    pair = np.array([[other, model.seen[[other]].indices[1]]])
    lost = np.unique(np.append(model.seen[[user]].indices, pair[0, 1]))
    answer = model.forget(Deletion(users=np.array([user]), cells=pair))
    assert (answer.exactness, answer.touched) == ("approximate", 2 + len(lost))
    assert set(np.flatnonzero((model.user_factors != before.user_factors).any(1))) == {user, other}
    assert set(np.flatnonzero((model.item_factors != before.item_factors).any(1))) <= set(lost)
    items_then = before.item_factors
    users = dense_solve(model.seen, items_then)[other]
    assert np.abs(model.user_factors[other] - users).max() < 1e-4
    items = dense_solve(model.seen.T.tocsr(), model.user_factors)[lost]
    assert np.abs(model.item_factors[lost] - items).max() < 1e-4


def test_users_are_solved_against_items_without_the_forgotten_one():
    model = als(forgetting="local", forget_sweeps=1, cg_steps=12).fit(cells())
    items_then = model.item_factors.copy()
    items_then[0] = 0  # every user has seen this one, so that every user is solved
    model.forget(Deletion(items=np.array([0])))
    assert np.abs(model.user_factors - dense_solve(model.seen, items_then)).max() < 1e-4


def test_the_rate_is_the_factor_by_which_the_next_sweep_shrinks_a_step():
    model = als(sweeps=6, cg_steps=12).fit(cells())
    halves = model.halves(Deletion(users=np.arange(0, 120, 6)).without(model.seen))
    plain, items = copy.deepcopy(model), [model.item_factors.copy()]
    for _ in range(4):
        plain.sweep(halves, 1)
        items.append(plain.item_factors.copy())
    step, following = (after - before for before, after in pairwise(items[2:]))
    rate = (step * following).sum() / (step**2).sum()
    assert model.refine(halves, 3) == pytest.approx(rate, abs=0.1)
    assert np.linalg.norm(model.item_factors - (items[3] + rate / (1 - rate) * step)) < 0.02 * np.linalg.norm(items[3])


def test_the_residual_is_that_of_the_normal_equations():
    model = als(sweeps=2).fit(cells())
    found = []
    for matrix, mine, other in (
        (model.seen, model.user_factors, model.item_factors),
        (model.seen.T, model.item_factors, model.user_factors),
    ):
        seen, other = matrix.toarray(), other.astype(np.float64)
        wanted = (1 + ALPHA) * seen @ other
        met = mine @ (other.T @ other) + REGULARISATION * mine + ALPHA * (seen * (mine @ other.T)) @ other
        found.append(np.linalg.norm(wanted - met) / np.linalg.norm(wanted))
    assert model.residual(model.halves(model.seen)) == pytest.approx(max(found), rel=1e-3)


@pytest.fixture(scope="module")
def train():
    return load_split("per-user", load_interactions("synthetic")).train


def distances(train, regularisation, sweeps):
    """From a retrain: of the original, of a retrain by another seed, and of the original after warm sweeps."""
    settings = {"name": "als", "factors": 32, "regularisation": regularisation, "forget_sweeps": sweeps}
    deletion = Deletion(users=np.random.default_rng(0).choice(train.shape[0], 50, replace=False))
    original = MODELS.build(settings).fit(train)
    retrain, other = (MODELS.build(settings).fit(deletion.without(train), seed=seed) for seed in (0, 1))
    nothing = apart(original, retrain)
    original.forget(deletion)
    return nothing, apart(other, retrain), apart(original, retrain)


def test_where_seeds_differ_one_warm_sweep_is_closer_to_a_retrain_than_another_seed_is(train):
    _, seeds, warm = distances(train, regularisation=10, sweeps=1)
    assert seeds > 0.1
    assert warm < 0.8 * seeds


def test_where_seeds_agree_two_warm_sweeps_come_nearly_as_close(train):
    nothing, seeds, warm = distances(train, regularisation=50, sweeps=2)
    assert seeds < 0.03
    assert warm < 2 * seeds
    assert warm < 0.1 * nothing


def test_sweeps_leave_no_trace(train):
    """The AUC of forgotten against held-out cells is that of a retrain within .003."""
    held_out = np.random.default_rng(1).random(train.nnz) < 0.1
    pairs = np.column_stack(train.nonzero())
    known = Deletion(cells=pairs[held_out]).without(train)
    deletion = Deletion(cells=pairs[np.random.default_rng(0).permutation(np.flatnonzero(~held_out))[:1400]])
    forgotten, test = deletion.only(train), Deletion(cells=pairs[held_out]).only(train)
    original = MODELS.build({"name": "als"}).fit(known)
    native, retrain = copy.deepcopy(original), copy.deepcopy(original)
    answer = native.forget(deletion)
    retrain.refit(deletion)
    reference = auc(retrain, forgotten, test)
    assert auc(original, forgotten, test) > reference + 0.05
    assert abs(auc(native, forgotten, test) - reference) < 0.003
    assert 0 < answer.facts["solve"]["residual"] < 0.01


def test_folding_in_finds_the_factors_of_a_user_of_the_model():
    model = als(sweeps=200, cg_steps=8).fit(cells())
    assert np.abs(model.fold_in(model.seen[[4, 40]]) - model.user_factors[[4, 40]]).max() < 2e-3


def test_saving_and_loading_is_bit_exact_and_forgetting_goes_on(tmp_path):
    model = als().fit(cells())
    model.save(tmp_path)
    loaded = load_recommender(tmp_path)
    assert loaded.settings() == model.settings()
    for one in (model, loaded):
        one.forget(Deletion(users=np.array([6])))
    assert (loaded.score(np.arange(120)) == model.score(np.arange(120))).all()


def test_a_refused_request_changes_nothing():
    model = als().fit(cells())
    before = model.score(np.arange(120))
    with pytest.raises(UserError, match="nothing is left"):
        model.forget(Deletion(users=np.arange(120)))
    assert (model.score(np.arange(120)) == before).all()


@pytest.mark.parametrize("key", ["factors", "sweeps", "cg_steps", "forget_sweeps", "regularisation", "alpha"])
def test_bad_settings_are_refused(key):
    with pytest.raises(UserError, match=rf"model.{key} must be .*, got 0"):
        als(**{key: 0})


needs_data = pytest.mark.skipif(
    not (Path(os.environ.get("MSGM_DATA", "")) / "ml-100k" / "u.data").is_file(),
    reason="needs ml-100k below the folder that MSGM_DATA names",
)


@pytest.fixture(scope="module")
def split():
    return load_split({"name": "per-user", "validation": 0.0, "test": 0.2}, load_interactions("ml-100k"))


def auc(model, forgotten, held_out):
    """Chance that a forgotten cell scores above a held-out one, scores standardised by user."""
    scores = model.score(np.arange(forgotten.shape[0]))
    scores = (scores - scores.mean(axis=1, keepdims=True)) / scores.std(axis=1, keepdims=True)
    one, two = scores[forgotten.nonzero()], scores[held_out.nonzero()]
    ranks = rankdata(np.concatenate([one, two]))[: len(one)]
    return (ranks.sum() - len(one) * (len(one) + 1) / 2) / (len(one) * len(two))


@needs_data
def test_sweeps_bring_forgotten_cells_among_those_never_seen(split):
    pairs = np.column_stack(split.train.nonzero())
    drawn = np.random.default_rng(0).choice(len(pairs), len(pairs) // 20, replace=False)
    deletion = Deletion(cells=pairs[drawn])
    forgotten = deletion.only(split.train)
    original = MODELS.build({"name": "als"}).fit(split.train)
    native, retrain = copy.deepcopy(original), copy.deepcopy(original)
    native.forget(deletion)
    retrain.refit(deletion)
    before, after, reference = (auc(model, forgotten, split.test) for model in (original, native, retrain))
    assert before > 0.56
    assert abs(reference - 0.5) < 0.02
    assert abs(after - reference) < 0.003


@needs_data
def test_utility_is_that_of_implicit(split):
    """The package means by alpha the whole weight of a seen cell: 1 + ours."""
    engine = pytest.importorskip("implicit.als", reason="needs the package implicit")
    model = MODELS.build({"name": "als"}).fit(split.train)
    matrix = csr_matrix((np.ones(split.train.nnz, np.float32), split.train.indices, split.train.indptr))
    other = engine.AlternatingLeastSquares(
        model.factors, model.regularisation, 1 + model.alpha, iterations=15, num_threads=1, random_state=0
    )
    other.fit(matrix, show_progress=False)
    users = np.flatnonzero(np.diff(split.test.indptr))
    mine = recall(model.listed(users, 10), split.test[users])
    assert mine > recall(other.recommend(users, matrix[users], 10)[0], split.test[users]) - 0.005
    assert mine > 0.2


def recall(lists, test):
    hits = test.toarray()[np.arange(len(lists))[:, None], lists] > 0
    return (hits.sum(1) / np.diff(test.indptr)).mean()
