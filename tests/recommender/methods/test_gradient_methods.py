import time

import numpy as np
import pytest
import torch

import msgm.recommender.gradients.importance as importance
from msgm.errors import RunError, UserError
from msgm.recommender.gradients.descent import batch_of, descend
from msgm.recommender.gradients.solvers import newton_step
from msgm.recommender.methods import METHODS
from msgm.recommender.methods.gradient_method import FACTOR_MODELS, GRADIENT_MODELS, PAIRWISE_MODELS
from msgm.recommender.models import MODELS
from msgm.recommender.requests import Deletion
from tests.recommender.methods.test_influence import SMALL, fitted, problem, some_cells, unlearned
from tests.recommender.models.cells import cells

METHODS_FOR = {
    "scif": GRADIENT_MODELS,
    "ifru": GRADIENT_MODELS,
    "pruned-influence": GRADIENT_MODELS,
    "alt-eraser": GRADIENT_MODELS,
    "fisher": GRADIENT_MODELS,
    "label-flip": ("als", "bpr", "lightgcn"),
    "reverse-bpr": PAIRWISE_MODELS,
}
PAIRED = [(method, name) for method, names in METHODS_FOR.items() for name in names]


def forgotten_loss(name, model, rest=False):
    _, before, after, forgotten = problem(name)
    objective = after if rest else before
    return float(objective.losses(objective.read(model), forgotten.nonzero().squeeze(1)).mean())


def kept_loss(name, model):
    _, before, _, forgotten = problem(name)
    return float(before.losses(before.read(model), (~forgotten).nonzero().squeeze(1)).mean())


@pytest.mark.parametrize(("method", "name"), PAIRED)
def test_the_given_model_is_untouched_and_the_answer_is_the_seeds(method, name):
    model, deletion = fitted(name), some_cells(fitted(name))
    arrays, seen = {key: value.copy() for key, value in model.arrays().items()}, model.seen.copy()
    found = unlearned(name, method)
    assert all((value == arrays[key]).all() for key, value in model.arrays().items())
    assert (model.seen != seen).nnz == 0
    assert (found.model.seen != deletion.without(seen)).nnz == 0
    assert found.answer.exactness == METHODS.entries[method].card.exactness == "approximate"
    again = unlearned(name, method)
    assert all((value == again.model.arrays()[key]).all() for key, value in found.model.arrays().items())


@pytest.mark.parametrize(("method", "name"), PAIRED)
def test_what_stays_is_still_fitted(method, name):
    original, found = fitted(name), unlearned(name, method).model
    rng = np.random.default_rng(0)
    blank = type(original)(**SMALL[name]).fit(original.seen, seed=1)
    if name in PAIRWISE_MODELS:
        blank.set_tables({key: 0 * table for key, table in blank.tables.items()})
    else:
        blank.user_factors = rng.permutation(blank.user_factors)
    before, after, nothing = (kept_loss(name, model) for model in (original, found, blank))
    assert after - before < 0.25 * (nothing - before)


@pytest.mark.parametrize(("method", "name"), [pair for pair in PAIRED if pair[0] != "scif"])
def test_users_and_items_leave_no_row_and_are_not_served(method, name):
    deletion = Deletion(users=np.array([2, 5]), items=np.array([3]))
    found = unlearned(name, method, deletion).model
    assert found.gone_users[[2, 5]].all()
    if name != "lightgcn":
        assert not found.user_factors[[2, 5]].any()
        assert not found.item_factors[3].any()
    else:
        assert not found.tables["users"][[2, 5]].any()
    assert 3 not in found.listed(np.array([0, 1]), 5)


@pytest.mark.parametrize("name", ["als", "bpr", "lightgcn"])
@pytest.mark.parametrize("method", ["fisher", "label-flip", "alt-eraser"])
def test_forgotten_losses_rise(method, name):
    assert forgotten_loss(name, unlearned(name, method).model) > forgotten_loss(name, fitted(name))


@pytest.mark.parametrize("name", PAIRWISE_MODELS)
def test_reverse_bpr_stops_at_its_ceiling_however_many_steps_it_has(name):
    found = unlearned(name, "reverse-bpr", steps=3000, beta=0.1, learning_rate=0.01)
    assert 0 < found.answer.facts["steps"] < 3000
    lost = forgotten_loss(name, found.model, rest=True)
    assert np.log(2) * 0.99 < lost < 1.5
    assert all(np.isfinite(value).all() for value in found.model.arrays().values())


def test_without_a_ceiling_within_reach_the_loss_runs_away():
    far = unlearned("bpr", "reverse-bpr", steps=150, beta=0.1, learning_rate=0.03, ceiling=1e9)
    assert forgotten_loss("bpr", far.model) > 3


@pytest.mark.parametrize("name", ["als", "bpr", "lightgcn"])
def test_label_flip_stays_finite_and_bounded_in_a_long_run(name):
    _, _, after, forgotten = problem(name)
    lost, whole = forgotten.nonzero().squeeze(1), torch.arange(len(after.users))
    values = []
    for steps in (10, 40, 120):
        tables = after.read(unlearned(name, "label-flip", steps=steps, learning_rate=0.02).model)
        values.append(float(after.flipped(tables, lost).sum() + after.total(tables, whole)))
    assert np.isfinite(values).all()
    assert 0 < values[2] <= values[1] * 1.02
    assert values[1] <= values[0] * 1.02


def test_the_flipped_label_of_als_is_a_cell_not_seen_with_the_weight_of_a_seen_one():
    model, before, _, _ = problem("als")
    chosen = torch.arange(6)
    scores = (model.user_factors @ model.item_factors.T)[model.seen.nonzero()][:6].astype(float)
    squares = torch.from_numpy(scores**2)
    assert torch.allclose(before.flipped(before.tables, chosen) + squares, (1 + model.alpha) * squares, rtol=1e-4)
    with pytest.raises(UserError, match="ratings"):
        problem("mf")[1].flipped(None, None)


def test_fisher_moves_a_row_no_further_than_its_bound_and_only_rows_of_forgotten_losses():
    model, deletion = fitted("als"), some_cells(fitted("als"), 3)
    found = unlearned("als", "fisher", deletion, step_size=1e6, largest=0.2).model
    moved = np.linalg.norm(found.user_factors - model.user_factors, axis=1)
    bound = 0.2 * np.linalg.norm(model.user_factors, axis=1)
    users = np.unique(deletion.cells[:, 0])
    assert np.allclose(moved[users], bound[users], rtol=1e-3)
    assert not moved[np.setdiff1d(np.arange(80), users)].any()


def test_a_round_of_alt_eraser_on_als_solved_to_the_end_is_a_warm_sweep():
    deletion = some_cells(fitted("als"))
    found = unlearned("als", "alt-eraser", deletion, max_steps=200, tolerance=1e-10).model
    native = MODELS.build({"name": "als"} | SMALL["als"]).fit(cells(80, 40), seed=1)
    native.cg_steps = 50
    native.sweep(native.halves(deletion.without(native.seen)), 1)
    assert np.allclose(found.user_factors, native.user_factors, atol=1e-3)
    assert np.allclose(found.item_factors, native.item_factors, atol=1e-3)


@pytest.mark.parametrize("name", list(SMALL))
def test_alt_eraser_goes_down_on_the_objective_of_the_rest(name):
    _, _, after, _ = problem(name)
    whole = torch.arange(len(after.users))
    values = [
        float(after.total(after.read(model), whole))
        for model in (fitted(name), unlearned(name, "alt-eraser").model, unlearned(name, "alt-eraser", rounds=3).model)
    ]
    assert values[0] > values[1] > values[2]


def test_newton_step_never_goes_up():
    at = torch.tensor([3.0], dtype=torch.float64)

    def loss(x):
        return (1 + x.square()).sqrt().sum()  # the full Newton step from 3 goes to -27

    found, _ = newton_step(loss, at, 0.0, 1e-8, 5)
    assert loss(found) < loss(at)


def test_descent_refuses_a_loss_that_is_not_finite_and_draws_batches_by_seed():
    with pytest.raises(RunError, match="step 0"):
        descend({"t": torch.ones(2)}, lambda tables, step: tables["t"].sum() / 0, 3, 0.1)
    places = torch.arange(50)
    assert (batch_of(places, 9, 1, 2) == batch_of(places, 9, 1, 2)).all()
    assert (batch_of(places, 9, 1, 2) != batch_of(places, 9, 1, 3)).any()
    assert len(batch_of(places, 9, 1, 2).unique()) == 9
    assert (batch_of(places, 99, 1, 2) == places).all()


def test_fisher_counts_its_importances_as_preparation(monkeypatch):
    exact = importance.diagonal_fisher

    def slow(*arguments):
        time.sleep(0.2)
        return exact(*arguments)

    monkeypatch.setattr(importance, "diagonal_fisher", slow)
    found = unlearned("als", "fisher")
    assert found.preparation_seconds >= 0.2
    assert found.answer.seconds < 0.2
    assert found.storage_bytes == 8 * 6 * (80 + 40)


def test_setting_up_the_objective_counts_as_answering(monkeypatch):
    import msgm.recommender.gradients.kinds as kinds

    exact = kinds.objective_of

    def slow(*arguments):
        time.sleep(0.2)
        return exact(*arguments)

    monkeypatch.setattr(kinds, "objective_of", slow)
    assert unlearned("als", "scif").answer.seconds >= 0.2


@pytest.mark.parametrize(
    ("method", "settings"),
    [
        ("alt-eraser", {"rounds": 0}),
        ("alt-eraser", {"damping": -0.1}),
        ("alt-eraser", {"tolerance": 1.0}),
        ("label-flip", {"steps": 0}),
        ("label-flip", {"learning_rate": 0.0}),
        ("reverse-bpr", {"beta": 0.0}),
        ("reverse-bpr", {"beta": 1.0}),
        ("reverse-bpr", {"ceiling": 0.0}),
        ("fisher", {"probes": 0}),
        ("fisher", {"largest": 0.0}),
    ],
)
def test_settings_out_of_range_are_refused(method, settings):
    with pytest.raises(UserError, match=next(iter(settings))):
        METHODS.build({"name": method} | settings)


def test_models_without_such_tables_are_refused():
    ease = MODELS.build({"name": "ease"}).fit(cells(30, 20))
    deletion = some_cells(ease, 3)
    for method in METHODS_FOR:
        with pytest.raises(UserError, match="not for ease"):
            METHODS.build({"name": method}).unlearn(ease, deletion, 0)
    with pytest.raises(UserError, match="not for mf"):
        unlearned("mf", "label-flip")
    assert set(FACTOR_MODELS) < set(GRADIENT_MODELS)
