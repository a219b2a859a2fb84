import numpy as np
import pytest

from msgm.errors import UserError
from msgm.recommender.attributes import ERASURES
from msgm.recommender.attributes.combined import Combined, mixing_weights
from tests.recommender.attributes.planted import labelled, table


def two():
    rows, gender, context = table(users=600)
    age = np.where(np.random.default_rng(5).random(len(rows)) < 0.4, "old", "young")
    rows = rows + np.where(age == "old", 1.5, 0.0)[:, None].astype(np.float32) * np.eye(rows.shape[1])[3]
    return rows.astype(np.float32), {"gender": gender, "age": age}, context


def gap(rows, texts):
    values = np.unique(texts)
    return np.linalg.norm(rows[texts == values[0]].mean(0) - rows[texts == values[1]].mean(0))


def test_free_weights_hide_all_attributes_and_convex_ones_only_in_part():
    rows, attributes, context = two()
    left = {}
    for convex in (False, True):
        after = Combined({"name": "leace"}, convex).erase(rows, attributes, context)
        left[convex] = [gap(after, texts) / gap(rows, texts) for texts in attributes.values()]
    assert max(left[False]) < 0.2
    assert max(left[True]) < 0.95
    assert min(left[True]) > 0.2 + max(left[False])


@pytest.mark.parametrize("convex", [False, True])
def test_weights_are_the_minimum(convex):
    rows, attributes, context = two()
    labels = [labelled(texts, name) for name, texts in attributes.items()]
    original = rows.astype(float)
    changes = np.stack(
        [ERASURES.build({"name": "user-to-user", "weight": 1.0}).erase(rows, {name: texts}, context) - original
         for name, texts in attributes.items()]
    )  # fmt: skip

    def leak(weights):
        after = original + np.tensordot(weights, changes, axes=1)
        return sum((gap(after, texts) / gap(rows, texts)) ** 2 for texts in attributes.values())

    found = mixing_weights(original, changes, labels, convex)
    assert (found >= 0).all()
    assert (found <= 1).all()
    grid = np.linspace(0, 1, 21)
    if convex:
        assert found.sum() == pytest.approx(1)
        assert leak(found) <= min(leak(np.array([w, 1 - w])) for w in grid) + 1e-6
    else:
        assert leak(found) <= min(leak(np.array([v, w])) for v in grid for w in grid) + 1e-6


def test_combining_with_itself_is_refused():
    with pytest.raises(UserError, match="combined cannot combine itself"):
        ERASURES.build({"name": "combined", "erasure": {"name": "combined"}})
