import os
from pathlib import Path

import numpy as np
import pytest
from scipy.sparse import csr_array

from msgm.errors import UserError
from msgm.recommender.data import load_interactions
from msgm.recommender.methods import METHODS
from msgm.recommender.models import MODELS
from msgm.recommender.requests import Deletion
from msgm.recommender.sparse import kept
from tests.recommender.models.cells import cells

DATA = os.environ.get("MSGM_DATA")


def forgotten_against_held_out(model, forgotten, held_out):
    """AUC of two sets of cells by scores standardised for each user."""
    scores = np.asarray(model.score(np.arange(model.seen.shape[0])), dtype=float)
    scores = (scores - scores.mean(1, keepdims=True)) / np.maximum(scores.std(1, keepdims=True), 1e-12)
    ours, theirs = (scores[matrix.nonzero()] for matrix in (forgotten, held_out))
    order = np.sort(theirs)
    below, up_to = np.searchsorted(order, ours, "left"), np.searchsorted(order, ours, "right")
    return float((below + up_to).mean() / 2 / len(order))


def random_cells(matrix, share, rng):
    rows = np.repeat(np.arange(matrix.shape[0]), np.diff(matrix.indptr))
    places = rng.choice(matrix.nnz, int(share * matrix.nnz), replace=False)
    return Deletion(cells=np.stack([rows[places], matrix.indices[places]], 1))


@pytest.mark.skipif(not DATA, reason="MSGM_DATA names no folder with ml-100k")
def test_correcting_the_matrix_alone_is_not_unlearning():
    path = Path(DATA) / "ml-100k"
    if not path.is_dir():
        pytest.skip(f"{path} is absent")
    matrix = load_interactions("ml-100k").matrix
    rng = np.random.default_rng(0)
    test = rng.random(matrix.nnz) < 0.2
    train, held_out = kept(matrix, ~test), kept(matrix, test)
    deletion = random_cells(train, 0.05, rng)
    forgotten = deletion.only(train)
    model = MODELS.build({"name": "ease", "regularisation": 100.0}).fit(train)
    auc = {
        name: forgotten_against_held_out(
            METHODS.build({"name": name}).unlearn(model, deletion, 1).model, forgotten, held_out
        )
        for name in ("do-nothing", "matrix-correction", "native", "retrain")
    }
    assert auc["do-nothing"] > 0.6
    assert auc["matrix-correction"] > auc["do-nothing"] - 0.02
    assert auc["native"] == pytest.approx(0.5, abs=0.02)
    assert auc["retrain"] == pytest.approx(auc["native"], abs=1e-6)


@pytest.mark.parametrize("name", ["ease", "item-knn"])
def test_cells_leave_the_profile_and_the_mapping_stays(name):
    model = MODELS.build({"name": name}).fit(cells(60, 30))
    deletion = random_cells(model.seen, 0.05, np.random.default_rng(0))
    found = METHODS.build({"name": "matrix-correction"}).unlearn(model, deletion, 0)
    before, after = model.arrays(), found.model.arrays()
    assert all((before[key] == after[key]).all() for key in before)
    assert (found.model.seen != deletion.without(model.seen)).nnz == 0
    assert model.seen.nnz == found.model.seen.nnz + len(deletion.cells)
    assert (found.answer.exactness, found.answer.touched) == ("none", 0)


def test_a_forgotten_item_is_not_served_although_the_mapping_knows_it():
    model = MODELS.build({"name": "ease"}).fit(cells(60, 30))
    found = METHODS.build({"name": "matrix-correction"}).unlearn(model, Deletion(items=np.array([0])), 0).model
    assert 0 not in found.listed(np.arange(60), 30)


def test_models_that_are_no_product_with_a_mapping_are_refused():
    model = MODELS.build({"name": "als", "factors": 4}).fit(csr_array(np.eye(6, dtype=np.float32)))
    with pytest.raises(UserError, match="not for als"):
        METHODS.build({"name": "matrix-correction"}).unlearn(model, Deletion(users=np.array([1])), 0)
