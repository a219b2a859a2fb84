"""Propagation-only and GNNDelete: what changes, what stays bit for bit, and how the operators begin and add up."""

import numpy as np
import pytest
import torch
from scipy.sparse import block_diag, csr_array

from msgm.errors import UserError
from msgm.recommender.methods import METHODS
from msgm.recommender.methods.gnn_delete import GNNDelete, Targets
from msgm.recommender.models import load_recommender
from msgm.recommender.models.adjacency import ends, within
from msgm.recommender.models.ease import EASE
from msgm.recommender.models.lightgcn import LightGCN
from msgm.recommender.models.torch_base import cells_of
from msgm.recommender.requests import Deletion
from tests.recommender.models.cells import cells

USERS, ITEMS = 60, 40


@pytest.fixture(scope="module")
def model():
    """Two groups of users and items that have nothing to do with each other: a request in one leaves the other."""
    matrix = csr_array(block_diag([cells(30, 20, 0), cells(30, 20, 1)], format="csr").astype(np.float32))
    return LightGCN(factors=8, layers=2, epochs=5, batch_size=500).fit(matrix)


@pytest.fixture
def deletion(model):
    return Deletion(cells=cells_of(model.seen)[:4])


def factors(model):
    return np.concatenate([model.user_factors, model.item_factors])


def reached(model, deletion):
    return within(model.adjacency, ends(deletion.only(model.seen)), model.layers)[-1]


def test_propagation_only_keeps_the_tables_and_equals_a_model_whose_graph_never_had_the_edges(model, deletion):
    made = METHODS.build({"name": "propagation-only"}).unlearn(model, deletion, seed=1)
    assert made.answer.exactness == "none"
    assert all(torch.equal(table, made.model.tables[name]) for name, table in model.tables.items())
    rebuilt = LightGCN(factors=8, layers=2, epochs=1).fit(deletion.without(model.seen))
    rebuilt.set_tables(model.tables)
    assert np.array_equal(factors(made.model), factors(rebuilt))
    assert not np.array_equal(factors(made.model), factors(model))


@pytest.mark.parametrize("settings", [{"name": "propagation-only"}, {"name": "gnn-delete", "steps": 3}])
@pytest.mark.parametrize("kind", ["cells", "users", "items"])
def test_untouched_nodes_are_bit_identical(model, deletion, settings, kind):
    request = {"cells": deletion, "users": Deletion(users=np.array([3])), "items": Deletion(items=np.array([7]))}[kind]
    made = METHODS.build(settings).unlearn(model, request, seed=1)
    touched = reached(model, request)
    assert made.answer.touched == touched.sum()
    assert 0 < touched.sum() <= 50
    assert np.array_equal(factors(made.model)[~touched], factors(model)[~touched])
    assert (factors(made.model)[touched] != factors(model)[touched]).any(1).mean() > 0.5


@pytest.mark.parametrize("name", ["propagation-only", "gnn-delete"])
def test_the_given_model_is_left_alone(model, deletion, name):
    before, cells_before = {k: v.copy() for k, v in model.arrays().items()}, model.seen.nnz
    METHODS.build({"name": name}).unlearn(model, deletion, seed=1)
    assert all(np.array_equal(before[k], v) for k, v in model.arrays().items())
    assert (model.seen.nnz, model.adjacency.nnz) == (cells_before, cells_before)


def test_operators_begin_at_the_identity_and_change_nothing_there(model, deletion):
    start = GNNDelete(steps=0).unlearn(model, deletion, seed=1).model
    plain = METHODS.build({"name": "propagation-only"}).unlearn(model, deletion, seed=1).model
    (operator,) = start.operators
    assert torch.equal(operator.weights, torch.eye(8).repeat(2, 1, 1))
    assert np.array_equal(factors(start), factors(plain))


def test_the_tables_are_frozen_and_the_operators_trained(model, deletion):
    made = GNNDelete(steps=5).unlearn(model, deletion, seed=1)
    assert all(torch.equal(table, made.model.tables[name]) for name, table in model.tables.items())
    (operator,) = made.model.operators
    assert (operator.weights != torch.eye(8)).any(dim=(1, 2)).all()
    assert np.array_equal(operator.nodes, within(model.adjacency, ends(deletion.only(model.seen)), 2))
    assert made.answer.exactness == "approximate"


def test_the_loss_falls_and_deleted_edges_score_lower(model, deletion):
    made = GNNDelete(steps=60, balance=0.5, learning_rate=0.02).unlearn(model, deletion, seed=1)
    first, last = made.answer.facts["loss"]
    assert last < first
    users, items = deletion.cells.T
    plain = METHODS.build({"name": "propagation-only"}).unlearn(model, deletion, seed=1).model
    assert made.model.score(users)[range(4), items].mean() < plain.score(users)[range(4), items].mean()


def test_the_targets_are_the_formula(model, deletion):
    everything = np.ones(USERS + ITEMS, dtype=bool)
    targets = Targets(model, deletion.only(model.seen), everything, pairs=100_000)
    shifted = torch.from_numpy(factors(model) * 0.5)
    on_deleted, on_kept = targets.errors(shifted, np.random.default_rng(0))
    before = 1 / (1 + np.exp(-model.score(np.arange(USERS)).astype(float)))
    after = 1 / (1 + np.exp(-model.score(np.arange(USERS)).astype(float) / 4))
    users, items = deletion.cells.T
    unseen = [before[u, model.seen.toarray()[u] == 0] for u in users]
    low = np.mean([np.square(after[u, i] - other).min() for u, i, other in zip(users, items, unseen, strict=True)])
    high = np.mean([np.square(after[u, i] - other).max() for u, i, other in zip(users, items, unseen, strict=True)])
    assert low <= on_deleted <= high
    kept = deletion.without(model.seen).toarray() > 0
    left = ~(deletion.only(model.seen).toarray() > 0)
    errors = np.square(after - before)
    count, strangers = kept.sum(), 50_000
    expected = (errors[kept].sum() + strangers * errors[left].mean()) / (count + strangers)
    assert on_kept.item() == pytest.approx(expected, rel=0.02)
    unchanged = targets.errors(torch.from_numpy(factors(model)), np.random.default_rng(0))
    assert unchanged[1] == 0


def test_the_same_seed_makes_the_same_operators_and_another_others(model, deletion):
    made = [GNNDelete(steps=4).unlearn(model, deletion, seed=seed).model.operators[0].weights for seed in (1, 1, 2)]
    assert torch.equal(made[0], made[1])
    assert not torch.equal(made[0], made[2])


def test_operators_of_a_stream_add_up_and_are_saved(model, deletion, tmp_path):
    first = GNNDelete(steps=4).unlearn(model, deletion, seed=1).model
    second = GNNDelete(steps=4).unlearn(first, Deletion(users=np.array([5])), seed=1).model
    assert len(second.operators) == 2
    assert torch.equal(second.operators[0].weights, first.operators[0].weights)
    second.save(tmp_path)
    again = load_recommender(tmp_path)
    assert np.array_equal(factors(again), factors(second))
    again.refresh()
    assert np.array_equal(factors(again), factors(second))
    second.forget(Deletion(users=np.array([41])))
    assert second.operators == []


def test_a_request_without_an_edge_touches_nothing(model):
    empty = METHODS.build({"name": "propagation-only"}).unlearn(model, Deletion(users=np.array([5])), seed=1).model
    for name in ("propagation-only", "gnn-delete"):
        made = METHODS.build({"name": name}).unlearn(empty, Deletion(users=np.array([5])), seed=1)
        assert made.answer.touched == 0
        assert np.array_equal(factors(made.model), factors(empty))


@pytest.mark.parametrize("name", ["propagation-only", "gnn-delete"])
def test_forgotten_cells_are_gone_from_seen_and_graph(model, name):
    made = (
        METHODS.build({"name": name}).unlearn(model, Deletion(users=np.array([3]), items=np.array([7])), seed=1).model
    )
    for part in (made.seen, made.adjacency):
        assert not part.toarray()[3].any()
        assert not part.toarray()[:, 7].any()
    assert made.gone_users[3]
    assert 7 not in made.listed(np.array([4]), ITEMS)


@pytest.mark.parametrize("name", ["propagation-only", "gnn-delete"])
def test_they_are_for_lightgcn(model, deletion, name):
    with pytest.raises(UserError, match=f"{name} is for lightgcn, not for ease"):
        METHODS.build({"name": name}).unlearn(EASE().fit(model.seen), deletion, seed=0)


@pytest.mark.parametrize(
    "settings", [{"balance": 1.0}, {"balance": -0.1}, {"steps": -1}, {"pairs": 0}, {"learning_rate": 0.0}]
)
def test_settings_out_of_range_are_refused(settings):
    (key,) = settings
    with pytest.raises(UserError, match=f"^methods.{key} must "):
        GNNDelete(**settings)
