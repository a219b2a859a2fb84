"""MultVAE: the loss against the formula, annealing, dropout, and that seen items are never ranked."""

import numpy as np
import pytest
import torch
from scipy.sparse import csr_array

from msgm.errors import UserError
from msgm.recommender.data import load_interactions
from msgm.recommender.data.splits import load_split
from msgm.recommender.models.mult_vae import MultVAE
from msgm.recommender.models.torch_base import cells_of
from msgm.seeding import generator
from tests.recommender.models.cells import cells

USERS, ITEMS = 60, 40


@pytest.fixture
def matrix():
    return cells(USERS, ITEMS)


def fitted(matrix, **settings):
    return MultVAE(**{"hidden": 12, "latent": 5, "epochs": 4, "batch_size": 20} | settings).fit(matrix)


@pytest.fixture
def model(matrix):
    return fitted(matrix)


def numpy_tables(model):
    return {name: table.numpy().astype(float) for name, table in model.tables.items()}


def numpy_encode(tables, x):
    h = np.tanh(x @ tables["encoder.weight"] + tables["encoder.bias"])
    return (h @ tables[f"{name}.weight"] + tables[f"{name}.bias"] for name in ("mean", "log_variance"))


def numpy_decode(tables, z):
    h = np.tanh(z @ tables["decoder.weight"] + tables["decoder.bias"])
    return h @ tables["output.weight"] + tables["output.bias"]


def expected_losses(model, matrix, beta, noise, kept):
    """The losses of all users by the formula, from given noise and dropout mask."""
    x, tables = (matrix.toarray() != 0).astype(float), numpy_tables(model)
    mean, log_variance = numpy_encode(tables, x / np.linalg.norm(x, axis=1, keepdims=True) * kept / (1 - model.dropout))
    logits = numpy_decode(tables, mean + np.exp(log_variance / 2) * noise)
    logs = logits - np.log(np.exp(logits).sum(1, keepdims=True))
    divergence = (np.exp(log_variance) + mean**2 - 1 - log_variance).sum(1) / 2
    return -(x * logs).sum(1) + beta * divergence


@pytest.mark.parametrize("dropout", [0.0, 0.4])
def test_the_loss_is_the_formula(matrix, dropout):
    model = fitted(matrix, dropout=dropout)
    draws = generator(7)
    kept = (torch.rand(USERS, ITEMS, generator=draws) >= dropout).numpy()
    noise = torch.randn(USERS, 5, generator=draws).numpy()
    found = model.user_losses(model.tables, np.arange(USERS), generator(7), beta=0.3).numpy()
    assert np.allclose(found, expected_losses(model, matrix, 0.3, noise, kept), rtol=1e-5)
    assert kept.mean() == pytest.approx(1 - dropout, abs=0.05)


def test_the_divergence_is_that_of_two_normal_laws(model):
    _, _, divergence = model.sample(model.tables, model.rows(np.arange(USERS)), generator(0))
    mean, log_variance = model.encode(model.tables, model.rows(np.arange(USERS)), generator(0))
    law = torch.distributions.Normal(mean, (log_variance / 2).exp())
    expected = torch.distributions.kl_divergence(law, torch.distributions.Normal(0.0, 1.0)).sum(1)
    assert torch.allclose(divergence, expected, atol=1e-5)
    assert (divergence >= 0).all()


def test_losses_of_all_cells_of_a_user_add_up_to_the_users_loss(model, matrix):
    cells = cells_of(matrix)
    found = np.bincount(cells[:, 0], model.losses(model.tables, cells, seed=2).numpy(), USERS)
    draws = generator(2, "mult-vae", "losses")
    assert np.allclose(found, model.user_losses(model.tables, np.arange(USERS), draws, model.beta).numpy(), rtol=1e-4)


def test_beta_rises_in_a_straight_line_and_stays(matrix, monkeypatch):
    model = fitted(matrix, beta=0.8, annealing=0.5)
    betas = []
    honest = MultVAE.user_losses
    monkeypatch.setattr(MultVAE, "user_losses", lambda self, *given: betas.append(given[3]) or honest(self, *given))
    model.train(8)
    assert betas == pytest.approx(np.repeat([0.0, 0.2, 0.4, 0.6, 0.8, 0.8, 0.8, 0.8], 3))


def test_an_epoch_takes_every_user_with_a_cell_once(matrix, monkeypatch):
    bare = matrix.toarray()
    bare[[4, 9]] = 0
    model = fitted(csr_array(bare))
    taken = []
    honest = MultVAE.user_losses
    monkeypatch.setattr(MultVAE, "user_losses", lambda self, *given: taken.append(given[1]) or honest(self, *given))
    model.train(1)
    assert [len(users) for users in taken] == [20, 20, 18]
    assert sorted(np.concatenate(taken)) == [u for u in range(USERS) if u not in (4, 9)]


def test_scores_are_logits_at_the_mean_without_dropout(model, matrix):
    x, tables = (matrix.toarray() != 0).astype(float), numpy_tables(model)
    mean, _ = numpy_encode(tables, x / np.linalg.norm(x, axis=1, keepdims=True))
    assert np.allclose(model.score(np.arange(USERS)), numpy_decode(tables, mean), atol=1e-5)


def test_seen_items_are_left_out_of_lists_even_where_all_logits_are_negative(model, matrix):
    model.tables["output.bias"] -= 100
    assert (model.score(np.arange(USERS)) < 0).all()
    lists, seen = model.listed(np.arange(USERS), ITEMS), matrix.toarray() > 0
    for user, items in enumerate(lists):
        assert sorted(items[items >= 0]) == np.flatnonzero(~seen[user]).tolist()


def test_it_ranks_better_than_popularity():
    data = load_interactions({"name": "synthetic", "users": 300, "items": 200, "interactions": 6000})
    split = load_split("per-user", data)
    model = MultVAE(hidden=64, latent=16, epochs=60, batch_size=50, learning_rate=3e-3).fit(split.train)
    popular = np.argsort(-np.bincount(split.train.indices, minlength=200), kind="stable")
    held, seen = split.test.toarray() > 0, split.train.toarray() > 0
    ours = np.mean([held[u, row].mean() for u, row in enumerate(model.listed(np.arange(300), 10))])
    theirs = np.mean([held[u, [i for i in popular if not seen[u, i]][:10]].mean() for u in range(300)])
    assert ours > 1.15 * theirs


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"hidden": 0}, "model.hidden must be at least 1, got 0"),
        ({"latent": 0}, "model.latent must be at least 1, got 0"),
        ({"dropout": 1.0}, r"model.dropout must lie in \[0, 1\), got 1.0"),
        ({"beta": -0.1}, "model.beta must be at least 0, got -0.1"),
        ({"annealing": 0.0}, "model.annealing must be a positive number, got 0.0"),
    ],
)
def test_settings_out_of_range_are_refused(settings, message):
    with pytest.raises(UserError, match=message):
        MultVAE(**settings)
