"""Faults of published code that concern several parts at once; those of one part are tests beside it."""

import subprocess
import sys
from time import sleep

import numpy as np
import pytest
import torch
from torch.nn.functional import softplus

from msgm.recommender.compare import answer
from msgm.recommender.data.base import Split, load_interactions
from msgm.recommender.data.splits import load_split
from msgm.recommender.methods import METHODS
from msgm.recommender.models import MODELS
from msgm.recommender.models.bpr import BPR
from msgm.recommender.originals import Originals
from msgm.recommender.requests import Deletion
from msgm.recommender.scenario import Scenario
from tests.recommender.models.cells import cells

MATRIX = cells(80, 40)
SMALL = {
    "ease": {},
    "item-knn": {"neighbours": 10},
    "user-knn": {"neighbours": 10},
    "session-knn": {"neighbours": 10, "recent": 20},
    "als": {"factors": 8, "sweeps": 2},
    "bpr": {"factors": 8, "epochs": 2},
    "lightgcn": {"factors": 8, "layers": 2, "epochs": 2},
    "mult-vae": {"hidden": 8, "latent": 4, "epochs": 2},
}
QUICK = {"gnn-delete": {"steps": 2}, "label-flip": {"steps": 2}, "reverse-bpr": {"steps": 2}, "laser": {"stages": 3}}
SHARDED = ("sisa", "rec-eraser", "ultra-re")


@pytest.mark.parametrize("name", SMALL)
def test_no_held_out_cell_is_read_before_the_measuring(name):
    """Fits, refits and all methods, partitions, combiners and early ends included, run where there is none."""
    data = load_interactions({"name": "synthetic", "users": 60, "items": 40, "interactions": 900, "least": 5})
    split = load_split("per-user", data)
    apart = Split(split.train, None, None, split.train_times)
    scenario = Scenario(None, apart, [Deletion(users=np.array([3])), Deletion(users=np.array([7]))])
    model = Originals(MODELS.resolve({"name": name} | SMALL[name]), scenario.split, [0]).fitted[0].model
    assert (model.seen != split.train).nnz == 0
    for key, cls in METHODS.entries.items():
        if not cls.card.models or name in cls.card.models:
            settings = QUICK.get(key, {}) | ({"shards": 3} if key in SHARDED else {})
            found, _ = answer(METHODS.build({"name": key} | settings), model, scenario, 0)
            assert found.seen.multiply(split.train).nnz == found.seen.nnz


@pytest.mark.parametrize("method", ["retrain", "native"])
def test_seconds_are_those_of_all_epochs(method, monkeypatch):
    """Also of those in which nothing got better, and of a fit that ends worse than it began."""
    taken, step = [], BPR._step

    def slow(self, tables, squares, batch):
        sleep(0.005)
        taken.append(len(batch))
        step(self, tables, squares, batch)
        return float(len(taken))

    model = MODELS.build({"name": "bpr", "epochs": 6, "factors": 4, "batch_size": 200}).fit(MATRIX, 0)
    monkeypatch.setattr(BPR, "_step", slow)
    made = METHODS.build({"name": method}).unlearn(model, Deletion(users=np.array([3])), 1)
    assert sum(taken) == 6 * made.model.seen.nnz
    assert made.answer.seconds >= 0.005 * len(taken)
    assert made.preparation_seconds == 0


@pytest.mark.parametrize("name", ["bpr", "lightgcn"])
def test_the_loss_is_of_the_scores_that_rank(name):
    """No second sigmoid, no layer left out, and the item seen is pulled up."""
    model = MODELS.build({"name": name, "regularisation": 0.0} | {"factors": 8, "epochs": 3}).fit(MATRIX, 0)
    user = 5
    seen, other = int(MATRIX[[user]].indices[0]), int(np.setdiff1d(np.arange(40), MATRIX[[user]].indices)[0])
    scores = model.score(np.array([user]))[0]
    loss = model.triple_losses(model.tables, np.array([[user, seen, other]]))
    assert float(loss[0]) == pytest.approx(float(softplus(torch.tensor(scores[other] - scores[seen]))), rel=1e-5)


@pytest.mark.parametrize(
    ("base", "combiner"),
    [(base, combiner) for base in ("als", "bpr") for combiner in ("own", "mean", "logistic")] + [("als", "fold-in")],
)
def test_spaces_of_different_shards_are_not_mixed(base, combiner):
    """A rotation of one shard's factors changes nothing that the shard says, so nothing that the system says."""
    partition = "random" if combiner != "mean" else "random-interactions"
    settings = {"name": "sharded", "base": {"name": base} | SMALL[base], "shards": 3}
    system = MODELS.build(settings | {"combiner": combiner, "partition": partition}).fit(MATRIX, 0)
    everyone = np.arange(80)
    before = system.score(everyone)
    rotation = np.linalg.qr(np.random.default_rng(0).normal(size=(8, 8)))[0].astype(np.float32)
    shard = system.models[1]
    shard.user_factors[:] = shard.user_factors @ rotation
    shard.item_factors[:] = shard.item_factors @ rotation
    assert np.allclose(system.score(everyone), before, atol=1e-4 * np.abs(before).max())


def test_a_service_of_closed_forms_does_not_wait_for_torch():
    code = """
import sys, tempfile
from pathlib import Path
from msgm.recommender.config import load_config
from msgm.recommender.fitting import fit
from msgm.recommender.service import Service
data = "data={name: synthetic, users: 60, items: 40, interactions: 900, least: 5}"
for name in ("ease", "als", "item-knn", "user-knn", "session-knn"):
    folder = fit(load_config(None, [data, f"models={{{name}: {{}}}}"]), name, Path(tempfile.mkdtemp()) / name)
    Service(folder).forget("users", ["user3"])
    assert len(Service(folder).recommend("user5", 3)) == 3
sys.exit(bool({"torch", "sklearn", "matplotlib"} & set(sys.modules)))
"""
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
