import numpy as np
import pytest
import torch

from msgm.errors import UserError
from msgm.recommender.attributes import ERASURES
from msgm.recommender.attributes.distribution import Distribution, mmd
from msgm.recommender.metrics.attribute_attackers import attack
from tests.recommender.attributes.planted import labelled, table


def explicit(one, other):
    """The definition, by loops over pairs."""
    both = np.concatenate([one, other])
    count = len(both)
    squares = [((both[i] - both[j]) ** 2).sum() for i in range(count) for j in range(count) if i != j]
    width = np.mean(squares)

    def kernel(a, b):
        return sum(np.exp(-((a - b) ** 2).sum() / (2.0**t * width)) for t in range(-2, 3))

    within = np.mean([kernel(a, b) for i, a in enumerate(one) for j, b in enumerate(one) if i != j])
    without = np.mean([kernel(a, b) for i, a in enumerate(other) for j, b in enumerate(other) if i != j])
    return within + without - 2 * np.mean([kernel(a, b) for a in one for b in other])


def test_mmd_is_its_definition():
    draws = np.random.default_rng(0)
    one, other = draws.normal(size=(5, 3)), 1 + draws.normal(size=(7, 3))
    found = float(mmd(torch.from_numpy(one), torch.from_numpy(other)))
    assert found == pytest.approx(explicit(one, other), rel=1e-10)


def test_mmd_is_unbiased():
    draws = np.random.default_rng(0)
    found = [float(mmd(*(torch.from_numpy(draws.normal(size=(n, 2))) for n in (8, 12)))) for _ in range(400)]
    assert abs(np.mean(found)) < 4 * np.std(found) / 20
    assert min(found) < 0 < max(found)


@pytest.mark.parametrize("match", ["pairs", "anchor"])
def test_attackers_find_less_and_users_without_a_value_stay(match):
    rows, texts, context = table(users=300, gap=2.0, classes=3)
    labels = labelled(texts)
    erasure = Distribution(0.01, match=match, steps=80, batch_size=48)
    after = erasure.erase(rows, {"gender": texts}, context)
    before, now = (attack(of, labels, "logistic").accuracy for of in (rows, after))
    assert before > 0.7
    assert now < before - 0.2
    hidden = texts.copy()
    hidden[:20] = ""
    assert (Distribution(steps=2).erase(rows, {"gender": hidden}, context)[:20] == rows[:20]).all()


def test_a_larger_penalty_changes_less():
    rows, texts, context = table(users=150)
    change = [
        np.abs(Distribution(weight, steps=40).erase(rows, {"gender": texts}, context) - rows).mean()
        for weight in (30.0, 0.001)
    ]
    assert change[0] < 0.8 * change[1]


def test_the_seed_alone_decides():
    rows, texts, context = table(users=100)
    erasure = Distribution(steps=5, batch_size=16)
    one, same = (erasure.erase(rows, {"gender": texts}, context) for _ in range(2))
    other = erasure.erase(rows, {"gender": texts}, type(context)(context.items, seed=1))
    assert (one == same).all()
    assert (one != other).any()


def test_a_class_of_one_user_and_bad_settings_are_refused():
    rows, texts, context = table(users=30)
    texts[0] = "Z"
    with pytest.raises(UserError, match="attribute 'gender': the value 'Z' has 1 user; distribution needs 2"):
        Distribution().erase(rows, {"gender": texts}, context)
    with pytest.raises(UserError, match="erasure.batch_size must be at least 2, got 1"):
        ERASURES.build({"name": "distribution", "batch_size": 1})
