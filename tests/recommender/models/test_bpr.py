import copy

import numpy as np
import pytest
import torch
from scipy.sparse import csr_array

from msgm.errors import RunError, UserError
from msgm.recommender.data.base import load_interactions
from msgm.recommender.data.splits import load_split
from msgm.recommender.models import MODELS, load_recommender
from msgm.recommender.models.bpr import TINY
from msgm.recommender.requests import Deletion
from tests.recommender.models.cells import cells

NAMES = {"users", "items", "bias"}


def bpr(**settings):
    return MODELS.build({"name": "bpr", "factors": 8, "epochs": 5, "batch_size": 256, **settings})


def recall(lists, test):
    hits = test.toarray()[np.arange(len(lists))[:, None], lists] > 0
    return (hits.sum(1) / np.diff(test.indptr)).mean()


def test_the_loss_starts_at_that_of_a_coin_and_falls():
    model = bpr(epochs=1).fit(cells())
    model.tables = model.initial_tables()
    losses = model.train(12)
    assert losses[0] < np.log(2) + 1e-3
    assert losses[3] < losses[0]
    assert losses[-1] < 0.8 * np.log(2)


def test_it_recommends_better_than_popularity():
    split = load_split("per-user", load_interactions("synthetic"))
    users = np.flatnonzero(np.diff(split.test.indptr))
    model = MODELS.build({"name": "bpr", "epochs": 20}).fit(split.train)
    popularity = np.tile(split.train.sum(axis=0), (len(users), 1))
    popularity[split.train[users].nonzero()] = -1
    popular = np.argsort(-popularity, axis=1)[:, :10]
    assert recall(model.listed(users, 10), split.test[users]) > 1.15 * recall(popular, split.test[users])


def test_an_epoch_takes_every_cell_once_against_items_not_seen():
    model = bpr().fit(cells())
    batches = list(model._batches(7))
    assert all(len(batch) == 256 for batch in batches[:-1])
    assert all((np.diff(batch[:, 0]) >= 0).all() for batch in batches)
    triples = np.concatenate(batches)
    dense = cells().toarray()
    taken = np.zeros_like(dense)
    np.add.at(taken, (triples[:, 0], triples[:, 1]), 1)
    assert (taken == dense).all()
    assert not dense[triples[:, 0], triples[:, 2]].any()
    again = np.concatenate(list(model._batches(8)))
    assert (again != triples).any()


@pytest.mark.parametrize("users", [120, 2000])
def test_a_step_is_that_of_the_losses_that_torch_differentiates(users):
    model = bpr(regularisation=0.1, learning_rate=0.5).fit(cells(users=users))
    batch = next(model._batches(0))
    leaves = {name: table.double().requires_grad_() for name, table in model.tables.items()}
    losses = model.triple_losses(leaves, batch)
    losses.sum().backward()
    tables = {name: table.numpy().copy() for name, table in model.tables.items()}
    squares = {name: np.full_like(table, TINY) for name, table in tables.items()}
    plain = MODELS.build(model.settings() | {"regularisation": 0.0}).triple_losses(leaves, batch)
    assert model._step(tables, squares, batch) == pytest.approx(float(plain.detach().sum()), rel=1e-5)
    for name, leaf in leaves.items():
        gradient = leaf.grad.numpy()
        assert np.abs(squares[name] - TINY - gradient**2).max() < 1e-5 * np.abs(gradient**2).max() + 1e-6
        moved = tables[name] - model.tables[name].numpy()
        clear = np.abs(gradient) > 1e-2
        expected = -0.5 * gradient / np.sqrt(TINY + gradient**2)
        assert np.abs(moved - expected)[clear].max() < 1e-3


def test_losses_are_a_fixed_function_of_tables_and_cells():
    model = bpr().fit(cells())
    seen = np.column_stack(model.seen.nonzero())[::9]
    one, two, other = (model.losses(model.tables, seen, seed) for seed in (1, 1, 2))
    assert one.shape == (len(seen),)
    assert torch.equal(one, two)
    assert not torch.equal(one, other)


def test_fits_are_decided_by_the_seed_alone():
    one, two = bpr().fit(cells()), bpr().fit(cells())
    for name in NAMES:
        assert torch.equal(one.tables[name], two.tables[name])
    assert not torch.equal(bpr().fit(cells(), seed=1).tables["items"], one.tables["items"])


def test_fits_do_not_depend_on_the_number_of_threads():
    before, tables = torch.get_num_threads(), []
    try:
        for threads in (1, 2):
            torch.set_num_threads(threads)
            tables.append(bpr(factors=64, epochs=2).fit(cells(users=900)).tables)
    finally:
        torch.set_num_threads(before)
    assert all(torch.equal(tables[0][name], tables[1][name]) for name in NAMES)


def test_training_goes_on_from_the_tables_by_another_stream():
    model = bpr().fit(cells())
    one, two = copy.deepcopy(model), copy.deepcopy(model)
    one.train(1, "further")
    two.train(1, "other")
    assert not torch.equal(one.tables["items"], model.tables["items"])
    assert not torch.equal(one.tables["items"], two.tables["items"])


def test_factors_are_views_of_the_tables_also_in_a_copy():
    model = copy.deepcopy(bpr().fit(cells()))
    model.item_factors[3] = 9
    assert (model.tables["items"][3] == 9).all()
    users = model.user_factors[[4]]
    assert np.abs(model.score(np.array([4])) - users @ model.item_factors.T - model.item_bias).max() < 1e-5


def test_forgetting_is_a_refit_to_what_is_left():
    model = bpr().fit(cells())
    answer = model.forget(Deletion(users=np.array([5]), items=np.array([3])))
    assert answer.exactness == "bit-exact"
    assert answer.facts["refit"]
    reference = bpr().fit(Deletion(users=np.array([5]), items=np.array([3])).without(cells()))
    assert (model.score(np.arange(120)) == reference.score(np.arange(120))).all()
    assert (model.user_factors[5] == 0).all()
    assert not np.isin(model.listed(np.arange(5), 60), [3]).any()


def test_what_is_forgotten_may_be_a_negative_from_then_on():
    model = bpr().fit(cells())
    assert model.negatives.known(np.array([5]), np.array([0])).all()
    model.mark(Deletion(cells=np.array([[5, 0]])))
    assert not model.negatives.known(np.array([5]), np.array([0])).any()


def test_users_who_have_seen_every_item_are_not_trained_on():
    matrix = cells().tolil()
    matrix[8] = 1
    model = bpr().fit(matrix.tocsr())
    assert 8 not in np.concatenate(list(model._batches(0)))[:, 0]
    with pytest.raises(UserError, match="every user has seen every item"):
        bpr().fit(csr_array(np.ones((4, 3))))


def test_a_diverging_fit_is_stopped_and_leaves_the_tables():
    model = bpr().fit(cells())
    before = {name: table.clone() for name, table in model.tables.items()}
    model.learning_rate = 1e30
    with np.errstate(all="ignore"), pytest.raises(RunError, match="bpr: the loss of epoch"):
        model.train(3)
    assert all(torch.equal(before[name], model.tables[name]) for name in NAMES)


def test_saving_and_loading_is_bit_exact(tmp_path):
    model = bpr().fit(cells())
    model.save(tmp_path)
    loaded = load_recommender(tmp_path)
    assert loaded.settings() == model.settings()
    assert (loaded.score(np.arange(120)) == model.score(np.arange(120))).all()


@pytest.mark.parametrize("key", ["factors", "epochs", "batch_size", "learning_rate"])
def test_bad_settings_are_refused(key):
    with pytest.raises(UserError, match=rf"model.{key} must be .*, got 0"):
        bpr(**{key: 0})
