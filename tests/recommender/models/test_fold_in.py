"""Users folded in: every base against its closed form, and what a row of cells may depend on."""

import numpy as np
import pytest
import torch
from scipy.sparse import csr_array

from msgm.errors import UserError
from msgm.recommender.models import MODELS
from msgm.recommender.models.base import folds_in
from tests.recommender.models.cells import cells

MATRIX = cells(80, 40)
NEW = cells(30, 40, seed=9)
SMALL = {
    "als": {"factors": 8, "regularisation": 5.0, "sweeps": 3},
    "ease": {"regularisation": 20.0},
    "item-knn": {"neighbours": 5},
    "user-knn": {"neighbours": 5},
    "bpr": {"factors": 8, "epochs": 3},
    "lightgcn": {"factors": 8, "epochs": 3, "layers": 2},
    "mult-vae": {"epochs": 2},
}


def fitted(name, **settings):
    return MODELS.build({"name": name} | SMALL[name] | settings).fit(MATRIX, 0)


def test_als_solves_the_normal_equations():
    model = fitted("als")
    q, x = model.item_factors.astype(float), NEW.toarray()
    for found, row in zip(model.fold_in(NEW), x, strict=True):
        weights = np.diag(1 + model.alpha * row)
        assert found == pytest.approx(np.linalg.solve(q.T @ weights @ q + 5 * np.eye(8), q.T @ weights @ row), abs=1e-4)
    assert model.score_rows(NEW) == pytest.approx(model.fold_in(NEW) @ q.T, abs=1e-5)


def test_ease_multiplies_by_its_weights():
    model = fitted("ease")
    assert model.score_rows(NEW) == pytest.approx(NEW.toarray() @ model.weights(), abs=1e-12)


def test_item_knn_multiplies_by_its_lists():
    model = fitted("item-knn")
    lists = np.zeros((40, 40))
    for item in range(40):
        lists[item, model.lists.ids[item]] = model.lists.similarities[item]
    assert model.score_rows(NEW) == pytest.approx(NEW.toarray() @ lists)


def test_user_knn_adds_the_cells_of_the_nearest_users():
    model = fitted("user-knn")
    known, new = MATRIX.toarray(), NEW.toarray()
    cosines = new @ known.T / np.sqrt(np.outer(new.sum(1), known.sum(1)))
    for found, row in zip(model.score_rows(NEW), cosines, strict=True):
        best = np.argsort(-row, kind="stable")[:5]
        assert found == pytest.approx(row[best] @ known[best])


def pair_loss(p, model, row, centre, regularisation):
    """The objective of a folded-in row, pair by pair; with 40 items every unseen one is a candidate."""
    scores = torch.tensor(model.item_factors, dtype=torch.float64) @ p
    scores = scores + torch.tensor(getattr(model, "item_bias", np.zeros(40)), dtype=torch.float64)
    seen = torch.tensor(row > 0)
    pairs = torch.nn.functional.softplus(scores[~seen][None] - scores[seen][:, None])
    return pairs.mean(1).sum() + seen.sum() * regularisation / 2 * (p - centre).square().sum()


@pytest.mark.parametrize("name", ["bpr", "lightgcn"])
def test_pairwise_models_minimise_the_loss_of_the_users_own_pairs(name):
    model = fitted(name)
    strength = model.regularisation * (1 if name == "bpr" else 9)
    centres = np.zeros((30, 8)) if name == "bpr" else fitted_centres(model)
    for found, row, centre in zip(model.fold_in(NEW), NEW.toarray(), centres, strict=True):
        p = torch.tensor(found, dtype=torch.float64, requires_grad=True)
        pair_loss(p, model, row, torch.tensor(centre), strength).backward()
        started = torch.tensor(centre, requires_grad=True)
        pair_loss(started, model, row, torch.tensor(centre), strength).backward()
        assert p.grad.abs().max() < 1e-3 * started.grad.abs().max()


def fitted_centres(model):
    """What comes to the new users from their items, with two layers: their items' rows of H^0 + H^1, over 3."""
    known, new = MATRIX.toarray(), NEW.toarray()
    of_items = np.maximum(known.sum(0), 1)
    adjacency = known / np.sqrt(np.outer(known.sum(1), of_items))
    tables = {name: table.numpy().astype(float) for name, table in model.tables.items()}
    hidden = tables["items"] + adjacency.T @ tables["users"]
    return new / np.sqrt(np.outer(new.sum(1), of_items)) @ hidden / 3


def test_lightgcn_without_a_row_of_its_own_is_the_propagation():
    model = fitted("lightgcn", regularisation=1e6)
    model.tables["users"][5] = 0
    model.refresh()
    assert model.fold_in(MATRIX[[5]])[0] == pytest.approx(model.user_factors[5], abs=1e-5)


def test_mult_vae_encodes_the_row():
    model = fitted("mult-vae")
    assert model.score_rows(MATRIX[[3, 9]]) == pytest.approx(model.score(np.array([3, 9])))
    assert np.abs(model.score_rows(NEW[[3]]) - model.score(np.array([3]))).max() > 1e-4


@pytest.mark.parametrize("name", SMALL)
def test_a_row_of_cells_is_scored_alike_whoever_is_beside_it(name):
    model = fitted(name)
    together, alone = model.score_rows(NEW), model.score_rows(NEW[[7]])
    assert together[7] == pytest.approx(alone[0], abs=1e-4)
    assert (np.abs(together[8] - alone[0]) > 1e-3).any()


@pytest.mark.parametrize("name", SMALL)
def test_nothing_is_folded_into_the_same_whoever_had_it(name):
    """A row without a cell, as a forgotten user has, is scored alike whoever's it was."""
    model = fitted(name)
    scores = model.score_rows(csr_array((2, 40), dtype=np.float32))
    assert np.isfinite(scores).all()
    assert (scores[0] == scores[1]).all()
    if name not in ("bpr", "mult-vae"):  # which know what is popular
        assert not scores.any()


def test_a_model_that_cannot_says_which_can():
    assert not folds_in(MODELS.entries["mf"])
    model = MODELS.build({"name": "mf"})
    with pytest.raises(UserError, match="mf cannot score users .* Models that can: .*als.*ease"):
        model.score_rows(NEW)
