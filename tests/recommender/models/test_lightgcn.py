"""LightGCN: propagation against a dense computation, the graph after deletions, the loss, what it ranks by."""

import os

import numpy as np
import pytest
import torch
from scipy.sparse import csr_array

from msgm.errors import UserError
from msgm.recommender.data import load_interactions
from msgm.recommender.data.splits import load_split
from msgm.recommender.models.adjacency import ends, normalised, within, without
from msgm.recommender.models.lightgcn import LightGCN
from msgm.recommender.models.torch_base import cells_of
from msgm.recommender.propagation import Operator, multiply, propagate
from msgm.recommender.requests import Deletion
from tests.recommender.models.cells import cells, one_of_each

USERS, ITEMS = 60, 40
DATA = os.environ.get("MSGM_DATA", "")
real = pytest.mark.skipif(
    not os.path.isfile(os.path.join(DATA, "ml-100k", "u.data")), reason="MSGM_DATA names no folder with ml-100k/u.data"
)


@pytest.fixture
def matrix():
    return cells(USERS, ITEMS)


@pytest.fixture
def model(matrix):
    return LightGCN(factors=8, layers=3, epochs=3, batch_size=500).fit(matrix)


def dense(seen):
    """The (U + I, U + I) normalised adjacency, in float64."""
    block = (seen.toarray() != 0).astype(float)
    whole = np.block([[np.zeros((len(block),) * 2), block], [block.T, np.zeros((block.shape[1],) * 2)]])
    degrees = np.maximum(whole.sum(1), 1)
    return whole / np.sqrt(degrees[:, None] * degrees)


def dense_embeddings(model):
    tables = np.concatenate([model.tables["users"].numpy(), model.tables["items"].numpy()]).astype(float)
    a = dense(model.seen)
    return sum(np.linalg.matrix_power(a, k) @ tables for k in range(model.layers + 1)) / (model.layers + 1)


def test_the_adjacency_is_the_dense_one_whatever_the_values(matrix):
    expected = dense(matrix)[:USERS, USERS:]
    assert np.allclose(normalised(matrix).toarray(), expected, rtol=1e-6)
    assert np.array_equal(normalised(matrix * 5).toarray(), normalised(matrix).toarray())


def test_the_adjacency_after_deletions_equals_a_rebuilt_one_bit_for_bit(matrix, model):
    rng = np.random.default_rng(0)
    for _ in range(5):
        for deletion in one_of_each(model, rng):
            model.mark(deletion)
            rebuilt = normalised(model.seen)
            for part in ("data", "indices", "indptr"):
                assert np.array_equal(getattr(model.adjacency, part), getattr(rebuilt, part))
    assert model.seen.nnz < 0.9 * matrix.nnz


def test_a_forgotten_cell_may_be_drawn_as_not_seen(model):
    cell = cells_of(model.seen)[:1]
    assert model.negatives.known(*cell.T).all()
    model.mark(Deletion(cells=cell))
    assert not model.negatives.known(*cell.T).any()


def test_updating_an_adjacency_leaves_the_given_one(matrix):
    adjacency = normalised(matrix)
    before = adjacency.toarray()
    without(adjacency, Deletion(users=np.array([1])))
    assert np.array_equal(adjacency.toarray(), before)


def test_neighbourhoods_are_those_of_powers_of_the_adjacency(matrix):
    sparse = csr_array(np.where(np.random.default_rng(1).random(matrix.shape) < 0.05, matrix.toarray(), 0))
    user = int(np.flatnonzero(np.diff(sparse.indptr) == 1)[0])
    start = ends(Deletion(users=np.array([user])).only(sparse))
    assert np.flatnonzero(start).tolist() == [user, USERS + sparse[[user]].indices[0]]
    step = (dense(sparse) > 0) | np.eye(USERS + ITEMS, dtype=bool)
    for expected in (start, np.arange(USERS + ITEMS) == user):
        for found in within(normalised(sparse), expected, 3):
            expected = step @ expected
            assert np.array_equal(found, expected)
    assert 0 < within(normalised(sparse), start, 1).sum() < USERS + ITEMS


def test_propagation_is_the_dense_computation(model):
    found = np.concatenate([model.user_factors, model.item_factors])
    assert np.allclose(found, dense_embeddings(model), atol=1e-6)


def test_a_product_is_its_own_derivative_twice(matrix):
    adjacency = normalised(matrix).astype(np.float64)
    hidden = torch.randn(USERS + ITEMS, 3, dtype=torch.float64, generator=torch.Generator()).requires_grad_()
    assert torch.autograd.gradcheck(lambda h: multiply(adjacency, h), hidden)
    assert torch.autograd.gradgradcheck(lambda h: multiply(adjacency, h).pow(3), hidden)


def test_operators_act_after_their_layer_on_their_nodes_alone(matrix):
    draws = torch.Generator().manual_seed(0)
    hidden, weights = torch.randn(USERS + ITEMS, 4, generator=draws), torch.randn(2, 4, 4, generator=draws)
    nodes = np.random.default_rng(0).random((2, USERS + ITEMS)) < 0.3
    found = propagate(hidden, normalised(matrix), 2, [Operator(weights, nodes)]).numpy()
    layer, total, a = hidden.numpy(), hidden.numpy(), dense(matrix)
    for k in range(2):
        layer = a @ layer
        layer[nodes[k]] = layer[nodes[k]] @ weights[k].numpy()
        total = total + layer
    assert np.allclose(found, total / 3, atol=1e-5)


def test_ranking_reads_propagated_embeddings_not_the_tables(model):
    users = np.arange(USERS)
    embeddings = dense_embeddings(model)
    assert np.allclose(model.score(users), embeddings[:USERS] @ embeddings[USERS:].T, atol=1e-5)
    tables = model.tables["users"].numpy() @ model.tables["items"].numpy().T
    assert not np.allclose(model.score(users), tables, atol=1e-2)


def test_the_graph_holds_training_cells_alone():
    data = load_interactions({"name": "synthetic", "users": 300, "items": 200, "interactions": 6000})
    split = load_split("per-user", data)
    model = LightGCN(factors=16, layers=2, epochs=2).fit(split.train)
    edges = model.adjacency.toarray() > 0
    assert np.array_equal(edges, split.train.toarray() > 0)
    for held in (split.validation, split.test):
        assert held.nnz > 0
        assert not edges[held.nonzero()].any()


def test_the_loss_is_softplus_of_the_other_less_the_seen_item(matrix):
    model = LightGCN(factors=8, layers=2, epochs=2, regularisation=0.3).fit(matrix)
    triples = np.column_stack(
        [cells_of(matrix)[::11], np.random.default_rng(0).integers(ITEMS, size=-(-matrix.nnz // 11))]
    )
    user, item, other = triples.T
    scores = model.score(np.arange(USERS)).astype(float)
    tables = {name: table.numpy().astype(float) for name, table in model.tables.items()}
    norms = np.square(tables["users"][user]).sum(1)
    norms += np.square(tables["items"][item]).sum(1) + np.square(tables["items"][other]).sum(1)
    expected = np.log1p(np.exp(scores[user, other] - scores[user, item])) + 0.15 * norms
    losses = model.triple_losses(model.tables, triples).numpy()
    assert np.allclose(losses, expected, atol=1e-5)
    assert (losses >= 0).all()


def test_a_better_margin_is_a_lower_loss_and_no_margin_is_log_two(matrix):
    model = LightGCN(factors=8, layers=1, epochs=5, regularisation=0.0, learning_rate=0.05).fit(matrix)
    user, item = cells_of(matrix)[5]
    flat = model.triple_losses(model.tables, np.array([[user, item, item]]))
    assert flat.item() == pytest.approx(np.log(2), abs=1e-6)
    wide = {name: 100 * table for name, table in model.tables.items()}
    triples = np.column_stack(
        [cells_of(matrix), model.negatives.draw(cells_of(matrix)[:, 0], np.random.default_rng(0))]
    )
    scores = model.score(np.arange(USERS))
    right = scores[triples[:, 0], triples[:, 1]] - scores[triples[:, 0], triples[:, 2]]
    losses = model.triple_losses(wide, triples).numpy()
    assert losses.min() >= 0
    assert losses[right > 0.1].max() < 1e-3
    assert losses[right < -0.1].min() > 1


def test_losses_compare_with_items_not_seen(model, monkeypatch):
    taken = []
    monkeypatch.setattr(LightGCN, "triple_losses", lambda self, tables, triples: taken.append(triples))
    model.losses(model.tables, cells_of(model.seen))
    user, _, other = taken[0].T
    assert not (model.seen.toarray()[user, other] > 0).any()


def test_an_epoch_takes_every_cell_once_in_an_order_of_its_own(model, monkeypatch):
    taken = []
    monkeypatch.setattr(LightGCN, "triple_losses", lambda self, tables, triples: taken.append(triples) or torch.ones(1))
    orders = []
    for seed in (1, 2):
        taken.clear()
        assert len(list(model.batch_losses(model.tables, seed, 0.0))) == -(-model.seen.nnz // 500)
        orders.append(np.concatenate(taken)[:, :2])
        assert np.array_equal(np.unique(orders[-1], axis=0), cells_of(model.seen))
        assert len(orders[-1]) == model.seen.nnz
    assert not np.array_equal(*orders)


def test_a_user_who_has_seen_everything_takes_no_part_in_the_training(matrix):
    full = matrix.toarray()
    full[3] = 1
    model = LightGCN(factors=4, layers=1, epochs=1).fit(csr_array(full))
    assert np.isfinite(model.user_factors).all()
    assert (model.listed(np.array([3]), 3) == -1).all()


def test_users_who_have_all_seen_everything_are_refused():
    with pytest.raises(UserError, match="every user has seen every item: lightgcn has nothing to rank below"):
        LightGCN(epochs=1).fit(csr_array(np.ones((3, 4), np.float32)))


def test_refreshing_some_nodes_leaves_the_others(model):
    before = model.item_factors.copy()
    model.tables["users"] += 1
    nodes = np.zeros(USERS + ITEMS, dtype=bool)
    nodes[[2, USERS + 5]] = True
    model.refresh(nodes)
    changed = (model.item_factors != before).any(1)
    assert np.flatnonzero(changed).tolist() == [5]


def test_it_ranks_better_than_popularity():
    data = load_interactions({"name": "synthetic", "users": 300, "items": 200, "interactions": 6000})
    split = load_split("per-user", data)
    model = LightGCN(factors=16, layers=2, epochs=25, batch_size=1024, learning_rate=0.02).fit(split.train)
    popular = np.argsort(-np.bincount(split.train.indices, minlength=200), kind="stable")
    held, seen = split.test.toarray() > 0, split.train.toarray() > 0
    ours = np.mean([held[u, row].mean() for u, row in enumerate(model.listed(np.arange(300), 10))])
    theirs = np.mean([held[u, [i for i in popular if not seen[u, i]][:10]].mean() for u in range(300)])
    assert ours > 1.15 * theirs


@pytest.mark.parametrize("settings", [{"factors": 0}, {"layers": 0}, {"regularisation": -1.0}])
def test_settings_out_of_range_are_refused(settings):
    (key,) = settings
    with pytest.raises(UserError, match=f"model.{key} must be at least"):
        LightGCN(**settings)


@real
def test_a_few_epochs_on_movielens_are_well_above_popularity():
    data = load_interactions("ml-100k")
    split = load_split("per-user", data)
    model = LightGCN(factors=16, layers=2, epochs=12, learning_rate=0.02).fit(split.train)
    users = np.arange(data.shape[0])
    held = split.test.toarray() > 0
    precision = held[users[:, None], model.listed(users, 10)].mean()
    popular = LightGCN(epochs=1, layers=1).fit(split.train)
    popular.user_factors = np.ones((data.shape[0], 1), np.float32)
    popular.item_factors = np.bincount(split.train.indices, minlength=data.shape[1])[:, None].astype(np.float32)
    assert precision > 1.3 * held[users[:, None], popular.listed(users, 10)].mean()
