"""Completeness of the exact models on MovieLens 100K: forgotten cells rank among those that were never seen."""

import os
from pathlib import Path

import numpy as np
import pytest
from scipy.stats import rankdata

from msgm.recommender.data.base import load_interactions
from msgm.recommender.data.splits import load_split
from msgm.recommender.models import MODELS
from msgm.recommender.requests import Deletion

pytestmark = pytest.mark.skipif(
    not (Path(os.environ.get("MSGM_DATA", "")) / "ml-100k" / "u.data").is_file(),
    reason="needs ml-100k below the folder that MSGM_DATA names",
)


@pytest.fixture(scope="module")
def split():
    return load_split({"name": "per-user", "validation": 0.0, "test": 0.2}, load_interactions("ml-100k"))


def auc(model, forgotten, held_out):
    """Chance that a forgotten cell scores above a held-out one, scores standardised by user."""
    scores = np.array(model.score(np.arange(forgotten.shape[0])))
    scores = (scores - scores.mean(axis=1, keepdims=True)) / scores.std(axis=1, keepdims=True)
    one, two = scores[forgotten.nonzero()], scores[held_out.nonzero()]
    ranks = rankdata(np.concatenate([one, two]))[: len(one)]
    return (ranks.sum() - len(one) * (len(one) + 1) / 2) / (len(one) * len(two))


@pytest.mark.parametrize(
    ("name", "margin"), [("ease", 0.15), ("item-knn", 0.01), ("user-knn", 0.01), ("session-knn", 0)]
)
def test_after_forgetting_nothing_tells_forgotten_cells_from_held_out_ones(split, name, margin):
    rng = np.random.default_rng(0)
    users = rng.choice(split.train.shape[0], 200, replace=False)
    pairs = [(user, item) for user in users for item in split.train[[user]].indices if rng.random() < 0.25]
    deletion = Deletion(cells=np.array(pairs))
    forgotten = deletion.only(split.train)
    # Only users that forget something: a random part of their cells is like the held-out part.
    chosen = np.zeros(split.train.shape[0], dtype=bool)
    chosen[users] = True
    held_out = Deletion(users=np.flatnonzero(~chosen)).without(split.test)
    model = MODELS.build({"name": name}).fit(split.train, times=split.train_times)
    before = auc(model, forgotten, held_out)
    answer = model.forget(deletion)
    after = auc(model, forgotten, held_out)
    assert answer.exactness == ("exact up to rounding" if name == "ease" else "bit-exact")
    assert 0.48 <= after <= 0.52
    assert before > after + margin
