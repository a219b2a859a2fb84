"""Small matrices of cells, and random requests for the cells that a model still knows."""

import numpy as np
from scipy.sparse import csr_array

from msgm.recommender.requests import Deletion


def cells(users=120, items=60, seed=0):
    """Unequal users and items, as in real data; the first item has a cell of every user."""
    rng = np.random.default_rng(seed)
    chance = np.outer(rng.uniform(0.05, 0.6, users), rng.uniform(0.1, 1.0, items))
    there = rng.random((users, items)) < chance
    there[:, 0] = True
    return csr_array(there.astype(np.float32))


def times(matrix, seed=0):
    """Times with many ties."""
    return np.random.default_rng(seed).integers(0, 40, matrix.nnz)


def one_of_each(model, rng):
    """A user, an item, a few cells of two users, and all of it at once: deletions that ``model`` can still answer."""
    seen = model.seen
    active = np.flatnonzero(np.diff(seen.indptr) > 1)
    user, *others = rng.choice(active, 3, replace=False)
    item = rng.choice(np.flatnonzero(~model.gone_items))
    pairs = [(u, i) for u in others for i in rng.choice(seen[[u]].indices, rng.integers(1, 3), replace=False)]
    parts = {"users": np.array([user]), "items": np.array([item]), "cells": np.array(pairs)}
    return [*(Deletion(**{name: part}) for name, part in parts.items()), Deletion(**parts)]
