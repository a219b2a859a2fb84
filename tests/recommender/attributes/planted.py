"""User embeddings, items and interactions in which an attribute is planted."""

import numpy as np
from scipy.sparse import csr_array

from msgm.recommender.attributes import Context
from msgm.recommender.attributes.labels import encode

GENDER = np.array(["F", "M"])


def table(users=400, width=8, gap=1.5, seed=0, classes=2, share=0.3):
    """Return (users, width) float32 rows whose class means lie ``gap`` apart, their texts, and a context."""
    draws = np.random.default_rng(seed)
    shares = np.full(classes, (1 - share) / (classes - 1))
    shares[0] = share
    codes = draws.choice(classes, size=users, p=shares)
    codes[: 6 * classes] = np.tile(np.arange(classes), 6)
    mixing = draws.normal(size=(width, width))
    rows = draws.normal(size=(users, width)) @ mixing
    rows += gap * draws.normal(size=(classes, width))[codes] @ mixing / np.sqrt(2)
    texts = np.array([*"FMXYZ"])[codes]
    return rows.astype(np.float32), texts, Context(draws.normal(size=(60, width)).astype(np.float32), seed)


def cells(users=80, items=60, seed=0, lean=0.35):
    """Return (users, items) interactions whose halves of items go with the gender, and the genders."""
    draws = np.random.default_rng(seed)
    codes = draws.integers(2, size=users)
    chance = np.where((np.arange(items) % 2) == codes[:, None], lean, 0.1)
    dense = (draws.random((users, items)) < chance).astype(np.float32)
    dense[:, :2] = np.maximum(dense[:, :2], dense.sum(1, keepdims=True) == 0)
    return csr_array(dense), GENDER[codes]


def labelled(texts, name="gender"):
    (labels,) = encode({name: texts})
    return labels
