import copy
from functools import cache

import numpy as np
import pytest
import torch
from scipy.sparse import csr_array

from msgm.errors import UserError
from msgm.recommender.gradients.blocks import Block
from msgm.recommender.gradients.importance import diagonal_fisher, spread
from msgm.recommender.gradients.kinds import objective_of
from msgm.recommender.gradients.pairs import Pairs
from msgm.recommender.gradients.solvers import (
    conjugate_gradients,
    gradient,
    hessian_product,
    largest_eigenvalue,
    solve_blocks,
    solve_damped,
)
from msgm.recommender.methods import METHODS
from msgm.recommender.models import MODELS
from msgm.recommender.requests import Deletion
from msgm.seeding import generator
from tests.recommender.models.cells import cells

SMALL = {
    "als": {"factors": 6, "regularisation": 2.0, "sweeps": 30},
    "mf": {"factors": 4, "sweeps": 10},
    "bpr": {"factors": 6, "epochs": 40, "batch_size": 256},
    "lightgcn": {"factors": 6, "layers": 2, "epochs": 30, "batch_size": 512, "learning_rate": 0.05},
}
NONE = torch.empty(0, dtype=torch.int64)


@cache
def fitted(name):
    matrix = cells(80, 40)
    if name == "mf":
        rng = np.random.default_rng(3)
        matrix = csr_array((rng.integers(1, 6, matrix.nnz).astype(np.float32), matrix.indices, matrix.indptr))
    return MODELS.build({"name": name} | SMALL[name]).fit(matrix, seed=1)


def some_cells(model, count=25, seed=0):
    rows = np.repeat(np.arange(model.seen.shape[0]), np.diff(model.seen.indptr))
    places = np.random.default_rng(seed).choice(model.seen.nnz, count, replace=False)
    return Deletion(cells=np.stack([rows[places], model.seen.indices[places]], 1))


def problem(name, deletion=None):
    model = fitted(name)
    before = objective_of(model, 5)
    forgotten = torch.from_numpy((deletion or some_cells(model)).mask(model.seen))
    return model, before, before.without(forgotten), forgotten


def unlearned(name, method, deletion=None, **settings):
    model = fitted(name)
    return METHODS.build({"name": method} | settings).unlearn(model, deletion or some_cells(model), 5)


def dense_hessian(loss, at):
    return torch.autograd.functional.hessian(loss, at)


def numbers(*shape, seed=0):
    return torch.from_numpy(np.random.default_rng(seed).standard_normal(shape))


def test_pairs_differentiate_twice_as_a_gathered_product_does():
    rng = np.random.default_rng(0)
    pairs = Pairs(rng.integers(0, 3, 9), rng.integers(0, 4, 9), (3, 4))
    first, second = numbers(3, 2).requires_grad_(), numbers(4, 2, seed=1).requires_grad_()
    assert torch.allclose(pairs.dots(first, second), (first[pairs.rows] * second[pairs.columns]).sum(1))
    assert torch.autograd.gradcheck(pairs.dots, (first, second))
    assert torch.autograd.gradgradcheck(pairs.dots, (first, second))
    values = numbers(9).requires_grad_()
    assert torch.autograd.gradgradcheck(pairs.sums, (values, second))


def test_conjugate_gradients_agree_with_a_dense_solve():
    root, b = numbers(12, 12), numbers(12, seed=1)
    hessian = root @ root.T
    found = conjugate_gradients(lambda v: hessian @ v, b, 0.3, 1e-10, 100)
    assert torch.allclose(found.x, torch.linalg.solve(hessian + 0.3 * torch.eye(12), b), atol=1e-7)
    assert found.convex
    assert found.residual <= 1e-10


def test_conjugate_gradients_stop_at_negative_curvature_and_at_their_bound():
    hessian = torch.diag(torch.tensor([1.0, 2.0, -5.0], dtype=torch.float64))
    b = torch.tensor([1.0, 1.0, 1.0], dtype=torch.float64)
    assert not conjugate_gradients(lambda v: hessian @ v, b, 0.0, 1e-8, 50).convex
    bounded = conjugate_gradients(lambda v: hessian.abs() @ v, b, 0.0, 1e-12, 1)
    assert bounded.steps == 1
    assert bounded.residual > 1e-3
    assert conjugate_gradients(lambda v: v, torch.zeros(3, dtype=torch.float64), 0.0, 1e-4, 9).steps == 0


def test_damping_rises_until_no_negative_curvature_is_met():
    hessian = torch.diag(torch.tensor([10.0, 1.0, -0.5], dtype=torch.float64))
    b = torch.ones(3, dtype=torch.float64)
    found = solve_damped(lambda v: hessian @ v, b, 0.0, 1e-8, 50, 0)
    assert found.convex
    assert found.share == pytest.approx(0.1)
    assert torch.allclose(found.x, b / (hessian.diagonal() + 1.0), rtol=1e-3)


def test_largest_eigenvalue_of_a_known_matrix():
    hessian = torch.diag(torch.tensor([1.0, 3.0, 20.0], dtype=torch.float64))
    assert largest_eigenvalue(lambda v: hessian @ v, generator(0, "test"), 3) == pytest.approx(20, rel=1e-3)


def test_blocks_without_curvature_stay_where_they_are_for_a_zero_gradient():
    blocks = torch.stack([torch.eye(2, dtype=torch.float64) * 4, torch.zeros(2, 2, dtype=torch.float64)])
    found = solve_blocks(blocks, torch.tensor([4.0, 8.0, 0.0, 0.0], dtype=torch.float64), 0.0)
    assert found.tolist() == [1, 2, 0, 0]


@pytest.mark.parametrize("name", ["als", "mf", "bpr"])
def test_user_hessians_are_the_diagonal_blocks_of_the_dense_one_and_there_is_nothing_else(name):
    _, before, after, _ = problem(name)
    users = torch.tensor([0, 3, 7])
    block = Block(before, users, NONE)
    dense = dense_hessian(block.loss(after, before.tables), block.vector(before.tables))
    width = len(dense) // 3
    found = torch.block_diag(*after.user_hessians(before.tables, users))
    assert found.shape == (3 * width, 3 * width)
    assert torch.allclose(found, dense, atol=1e-9)


@pytest.mark.parametrize("name", list(SMALL))
def test_hessian_products_and_gradients_of_a_block_agree_with_dense_ones(name):
    _, before, after, _ = problem(name)
    block = Block(before, torch.tensor([1, 4]), torch.tensor([0, 5]))
    point = block.vector(before.tables)
    whole = torch.arange(len(before.users))

    def every_cell(vector):
        return after.total(block.put(vector, before.tables), whole)

    dense, v = dense_hessian(every_cell, point), numbers(len(point))
    assert torch.allclose(hessian_product(block.loss(after, before.tables), point)(v), dense @ v, atol=1e-8)
    assert torch.allclose(gradient(block.loss(after, before.tables), point), gradient(every_cell, point), atol=1e-9)


def test_als_objective_is_the_weighted_sum_over_all_pairs():
    model, before, after, _ = problem("als")
    scores = model.user_factors.astype(float) @ model.item_factors.astype(float).T
    penalty = 2.0 * (
        np.square(model.user_factors, dtype=float).sum() + np.square(model.item_factors, dtype=float).sum()
    )
    whole = torch.arange(len(before.users))
    for objective, seen in ((before, model.seen), (after, some_cells(model).without(model.seen))):
        there = seen.toarray() > 0
        value = (np.where(there, 1 + model.alpha, 1) * np.square(there - scores)).sum() + penalty
        assert float(objective.total(before.tables, whole)) == pytest.approx(value, rel=1e-9)


def test_scif_on_als_is_the_exact_resolve_of_the_users_rows():
    model, deletion = fitted("als"), some_cells(fitted("als"))
    found = unlearned("als", "scif", deletion, replacement="none")
    q = model.item_factors.astype(float)
    rest = deletion.without(model.seen)
    for user in np.unique(deletion.cells[:, 0]):
        q_u = q[rest[[user]].indices]
        hessian = q.T @ q + model.alpha * q_u.T @ q_u + model.regularisation * np.eye(6)
        exact = np.linalg.solve(hessian, (1 + model.alpha) * q_u.sum(0))
        assert np.allclose(found.model.user_factors[user], exact, atol=1e-5)
    others = np.setdiff1d(np.arange(80), deletion.cells[:, 0])
    assert (found.model.user_factors[others] == model.user_factors[others]).all()
    assert (found.model.item_factors == model.item_factors).all()
    assert found.answer.touched == 80 - len(others)


def test_scif_on_mf_is_the_exact_resolve_with_the_new_mean():
    model, deletion = fitted("mf"), some_cells(fitted("mf"))
    found = unlearned("mf", "scif", deletion, replacement="none").model
    rest = deletion.without(model.seen)
    assert found.mean[0] == pytest.approx(rest.data.mean(), rel=1e-6)
    user = deletion.cells[0, 0]
    row = rest[[user]]
    features = np.column_stack([np.ones(row.nnz), model.item_factors[row.indices]]).astype(float)
    targets = row.data - rest.data.mean() - model.item_bias[row.indices]
    exact = np.linalg.solve(features.T @ features + model.regularisation * row.nnz * np.eye(5), features.T @ targets)
    assert np.allclose([found.user_bias[user], *found.user_factors[user]], exact, atol=1e-4)


def test_collaborative_labels_are_means_over_the_cells_that_stay():
    model, before, _, forgotten = problem("mf")
    place = int(forgotten.nonzero()[0])
    item = before.items[place]
    rest = some_cells(model).without(model.seen).tocsc()[:, [int(item)]]
    replaced = before.replaced(forgotten)
    assert float(replaced.values[place]) == pytest.approx(float(rest.data.mean()), rel=1e-6)
    assert (replaced.values[~forgotten] == before.values[~forgotten]).all()
    _, before, _, forgotten = problem("als")
    shares = before.replaced(forgotten).weights
    assert (shares[~forgotten] == 1).all()
    assert float(shares[forgotten][before.items[forgotten] == 0].mean()) > 0.9  # everybody has item 0
    assert (shares[forgotten] <= 1).all()


@pytest.mark.parametrize("method", ["scif", "ifru", "pruned-influence"])
@pytest.mark.parametrize("name", list(SMALL))
def test_the_loss_of_forgotten_cells_rises(name, method):
    _, before, _, forgotten = problem(name)
    places = forgotten.nonzero().squeeze(1)
    settings = {"stationary": True, "replacement": "none"} if method == "scif" else {}
    found = unlearned(name, method, **settings)
    lost = before.losses(before.tables, places).sum()
    assert before.losses(before.read(found.model), places).sum() > lost
    assert found.answer.exactness == "approximate"


def test_the_opposite_sign_would_lower_it():
    _, before, _, forgotten = problem("als")
    places = forgotten.nonzero().squeeze(1)
    block = Block(before, torch.unique(before.users[forgotten]), NONE)
    point = block.vector(before.tables)
    moved = block.vector(before.read(unlearned("als", "scif", replacement="none", stationary=True).model)) - point
    opposite = block.put(point - moved, before.tables)
    assert before.losses(opposite, places).sum() < before.losses(before.tables, places).sum()


def test_ifru_from_the_optimum_is_close_to_the_optimum_of_the_rest():
    deletion = some_cells(fitted("als"), 5)
    _, _, after, _ = problem("als", deletion)
    whole = torch.arange(len(after.users))
    refit = copy.deepcopy(fitted("als"))
    refit.forget(deletion)
    best = float(after.total(after.read(refit), whole))
    moved = float(after.total(after.read(unlearned("als", "ifru", deletion, damping=0.001).model), whole))
    stayed = float(after.total(after.tables, whole))
    assert moved - best < 0.5 * (stayed - best)


def test_spillover_is_the_change_of_the_cells_that_stay_and_only_graphs_have_it():
    for name, expected in (("lightgcn", True), ("bpr", False)):
        _, before, after, forgotten = problem(name)
        kept = (~forgotten).nonzero().squeeze(1)
        change = before.losses(before.tables, kept) - after.losses(before.tables, kept)
        assert bool((change.abs() > 1e-9).any()) == expected


def test_spread_by_hand():
    model = fitted("als")
    deletion = some_cells(model, 1)
    user, item = deletion.cells[0]
    _, before, _, forgotten = problem("als", deletion)
    of_user = 1 / (1 + np.diff(model.seen.indptr)[user])
    users, items = spread(before, forgotten, 0)
    assert users.nonzero().flatten().tolist() == [user]
    assert items.nonzero().flatten().tolist() == [item]
    assert float(users[user]) == pytest.approx(of_user)
    _, items = spread(before, forgotten, 1)
    neighbour = next(i for i in model.seen[[user]].indices if i != item)
    degree = 1 + np.bincount(model.seen.indices, minlength=40)[neighbour]
    assert float(items[neighbour]) == pytest.approx(of_user / degree)


def test_pruning_changes_fewer_rows_and_those_of_largest_weight():
    deletion = some_cells(fitted("als"), 1)
    whole, pruned = (unlearned("als", method, deletion) for method in ("ifru", "pruned-influence"))
    assert pruned.answer.touched < 0.5 * whole.answer.touched
    user, item = deletion.cells[0]
    assert (pruned.model.user_factors[user] != fitted("als").user_factors[user]).any()
    assert (pruned.model.item_factors[item] != fitted("als").item_factors[item]).any()


def test_diagonal_fisher_comes_close_to_squares_of_single_gradients():
    _, before, _, _ = problem("bpr")
    chosen = torch.arange(12)
    exact = 0
    for cell in chosen:
        tables = {name: table.clone().requires_grad_() for name, table in before.tables.items()}
        before.losses(tables, cell[None]).sum().backward()
        exact = exact + tables["users"].grad.square()
    found = diagonal_fisher(before, chosen, 600, generator(0, "signs"))["users"]
    assert torch.allclose(found.sum(), exact.sum(), rtol=0.1)
    assert ((found > 0) == (exact > 0)).all()


@pytest.mark.parametrize("method", ["scif", "ifru", "pruned-influence"])
@pytest.mark.parametrize(
    "settings", [{"damping": -1.0}, {"max_steps": 0}, {"tolerance": 0.0}, {"tolerance": 1.0}, {"tolerance": 2.0}]
)
def test_settings_out_of_range_are_refused(method, settings):
    with pytest.raises(UserError, match=next(iter(settings))):
        METHODS.build({"name": method} | settings)


def test_keep_and_hops_out_of_range_are_refused():
    for settings in ({"keep": 0.0}, {"keep": 1.5}, {"hops": -1}):
        with pytest.raises(UserError, match=next(iter(settings))):
            METHODS.build({"name": "pruned-influence"} | settings)
