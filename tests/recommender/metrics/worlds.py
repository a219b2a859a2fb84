"""Small cases: synthetic data, a model, a request and retrained models; and models of given scores."""

from dataclasses import dataclass, field

import numpy as np
from scipy.sparse import csr_array

from msgm.recommender.data.base import IdMap, Interactions, Split
from msgm.recommender.data.splits import PerUser
from msgm.recommender.data.synthetic import Synthetic
from msgm.recommender.methods import METHODS
from msgm.recommender.metrics import Case
from msgm.recommender.models import MODELS, Recommender
from msgm.recommender.requests import Deletion

SOURCE = Synthetic(users=300, items=120, interactions=9000)


@dataclass
class Given(Recommender):
    """A model whose scores are given; it forgets by marks alone. Not registered."""

    name = "given"
    table: np.ndarray = field(default_factory=lambda: np.zeros((1, 1)))

    def _fit(self):
        pass

    def score(self, users):
        return self.table[users]

    def _forget(self, deletion):
        return 0, "none", {}

    def arrays(self):
        return {}

    def restore(self, arrays):
        pass


def given(table, seen=None):
    """A ``Given`` fitted to ``seen``, by default to one cell a user."""
    table = np.asarray(table, dtype=float)
    if seen is None:
        seen = np.zeros(table.shape)
        seen[:, 0] = 1
    return Given(table).fit(csr_array(np.asarray(seen, dtype=np.float32)))


def split_of(train, test):
    """Dense arrays as a split without validation cells."""
    train, test = (csr_array(np.asarray(part, dtype=np.float32)) for part in (train, test))
    return Split(train, csr_array(train.shape, dtype=np.float32), test)


def interactions(split, **options):
    """The ids of a split's users and items."""
    users, items = split.train.shape
    names = IdMap(map(str, range(users)), "user"), IdMap(map(str, range(items)), "item")
    return Interactions(split.train, *names, **options)


def tiny_case(model, split, deletion, retrains=(), original=None, **options):
    """A case of models that are given."""
    return Case(model, original or model, list(retrains), deletion, split, interactions(split, **options))


def cells_deletion(matrix, share=0.08, seed=0):
    """A share of the cells, at random."""
    rows = np.repeat(np.arange(matrix.shape[0]), np.diff(matrix.indptr))
    chosen = np.random.default_rng(seed).choice(matrix.nnz, int(share * matrix.nnz), replace=False)
    return Deletion(cells=np.stack([rows[chosen], matrix.indices[chosen]], axis=1))


def deletion_of(kind, matrix, seed=0):
    """A request of a kind: cells, users or items; items that are neither rare nor in the hands of all."""
    rng = np.random.default_rng(seed)
    if kind == "cells":
        return cells_deletion(matrix, seed=seed)
    if kind == "users":
        return Deletion(users=np.sort(rng.choice(matrix.shape[0], 40, replace=False)))
    order = np.argsort(-np.bincount(matrix.indices, minlength=matrix.shape[1]))
    return Deletion(items=np.sort(order[5:45:4]))


def trained_case(name, kind="cells", retrains=3, source=SOURCE, data=None, **settings):
    """A case of the original model itself, with models fitted anew by the method ``retrain``."""
    data = data if data is not None else source.load()
    split = PerUser().split(data)
    model = MODELS.build({"name": name} | settings).fit(split.train, 0, split.train_times)
    deletion = deletion_of(kind, split.train)
    retrain = METHODS.build({"name": "retrain"})
    others = [retrain.unlearn(model, deletion, seed).model for seed in range(1, retrains + 1)]
    return Case(model, model, others, deletion, split, data)
