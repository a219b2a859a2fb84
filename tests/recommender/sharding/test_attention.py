"""Attention over shards: its start, its scores, and that it learns which shard to listen to."""

import numpy as np
import pytest
import torch

from msgm.recommender.sharding import attention
from msgm.recommender.sharding.attention import Attention, aggregate, alignments, stacked
from msgm.recommender.sharding.system import ShardedRecommender
from tests.recommender.models.cells import cells

MATRIX = cells(80, 40)
ALS = {"name": "als", "factors": 8, "regularisation": 5.0, "sweeps": 3}


@pytest.fixture(scope="module")
def system():
    return ShardedRecommender(base=ALS, shards=3, combiner="attention").fit(MATRIX, 0)


def parts(system):
    return system._parts(system.models, system.seen, system.labels)


def test_aggregation_is_the_formula():
    rng = np.random.default_rng(0)
    shapes = {"W": (3, 4, 4), "b": (3, 1, 4), "users.V": (4, 2), "users.v": (2,), "users.h": (2,)}
    weights = {name: rng.normal(size=shape) for name, shape in shapes.items()}
    embeddings = rng.normal(size=(3, 5, 4))
    found = aggregate({k: torch.tensor(v) for k, v in weights.items()}, "users", torch.tensor(embeddings)).numpy()
    for row in range(5):
        moved = [embeddings[k, row] @ weights["W"][k] + weights["b"][k, 0] for k in range(3)]
        hidden = [np.maximum(e @ weights["users.V"] + weights["users.v"], 0) for e in moved]
        shares = np.exp([z @ weights["users.h"] for z in hidden])
        expected = sum(s * e for s, e in zip(shares / shares.sum(), moved, strict=True))
        assert found[row] == pytest.approx(expected)


def test_embeddings_of_users_are_folded_in_in_every_shard(system):
    users, items = stacked(parts(system))
    assert users.shape == (3, 80, 8)
    assert items.shape == (3, 40, 8)
    for shard, model in enumerate(system.models):
        assert users[shard] == pytest.approx(model.fold_in(MATRIX), abs=1e-6)
        assert (np.abs(users[shard]).sum(axis=1) > 0).all()


def test_alignments_undo_rotations():
    rng = np.random.default_rng(0)
    items = rng.normal(size=(30, 5)).astype(np.float32)
    turn = np.linalg.qr(rng.normal(size=(5, 5)))[0].astype(np.float32)
    found = alignments(np.stack([items, items @ turn]))
    assert found[0] == pytest.approx(np.eye(5), abs=1e-5)
    assert items @ turn @ found[1] == pytest.approx(items, abs=1e-4)


def test_training_lowers_the_loss(system, monkeypatch):
    def loss(model):
        scores, seen = model.score(parts(system), np.arange(80), MATRIX), MATRIX.toarray() > 0
        pairs = [np.subtract.outer(row[~known], row[known]).ravel() for row, known in zip(scores, seen, strict=True)]
        return np.logaddexp(0, np.concatenate(pairs)).mean()

    trained, untrained = Attention(), Attention()
    trained.fit(parts(system), 0)
    monkeypatch.setattr(attention, "EPOCHS", 0)
    untrained.fit(parts(system), 0)
    assert loss(trained) < 0.98 * loss(untrained)


def test_the_shards_own_tables_stay_as_they_are(system):
    before = [{name: values.copy() for name, values in m.arrays().items()} for m in system.models]
    Attention().fit(parts(system), 1)
    for model, arrays in zip(system.models, before, strict=True):
        assert all((values == arrays[name]).all() for name, values in model.arrays().items())


def test_the_seed_alone_decides(system):
    one, two, other = Attention(), Attention(), Attention()
    for made, seed in ((one, 0), (two, 0), (other, 1)):
        made.fit(parts(system), seed)
    assert (one.tables["users"] == two.tables["users"]).all()
    assert (one.tables["users"] != other.tables["users"]).any()
