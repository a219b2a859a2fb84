"""Lists of nearest neighbours from their definition, pair by pair, and what must hold of every model that has them."""

import math

import numpy as np

from msgm.recommender.models import MODELS
from tests.recommender.models.cells import one_of_each


def plain_lists(dense, k):
    """Return for every row of a dense 0/1 matrix its (number, similarity) pairs, best first."""
    rows = [frozenset(np.flatnonzero(row)) for row in dense]
    lists = []
    for i, one in enumerate(rows):
        pairs = [(j, len(one & other)) for j, other in enumerate(rows) if j != i and one & other]
        found = [(j, shared / math.sqrt(len(one) * len(rows[j]))) for j, shared in pairs]
        lists.append(sorted(found, key=lambda pair: (-pair[1], pair[0]))[:k])
    return lists


def lists_of(model):
    """Return the lists of a model in the same form."""
    ids, similarities = model.lists.ids, model.lists.similarities
    return [
        [(int(i), float(s)) for i, s in zip(*row, strict=True) if i >= 0] for row in zip(ids, similarities, strict=True)
    ]


def same(model, other):
    """Whether two models agree bit by bit in lists and scores."""
    users = np.arange(len(model.gone_users))
    arrays = zip(model.arrays().values(), other.arrays().values(), strict=True)
    return all(np.array_equal(a, b) for a, b in arrays) and np.array_equal(model.score(users), other.score(users))


def check_stream(model, length, seed):
    """Forget ``length`` random requests of every kind; after each one the model must be the refitted one."""
    rng = np.random.default_rng(seed)
    for step in range(length):
        answer = model.forget(one_of_each(model, rng)[step % 4])
        assert answer.exactness == "bit-exact"
        assert same(model, MODELS.build(model.settings()).fit(model.seen, times=model.times)), step
