from types import SimpleNamespace

import numpy as np
import pytest

from msgm.errors import UserError
from msgm.recommender.data import load_interactions
from msgm.recommender.metrics import METRICS
from msgm.recommender.metrics.attribute_attackers import (
    ATTACKERS,
    WIDTH,
    Attack,
    attack,
    balanced_folds,
    features,
    utility_at,
)
from msgm.recommender.models import MODELS
from msgm.recommender.requests import Deletion
from tests.recommender.attributes.planted import cells, labelled, table


@pytest.mark.parametrize("attacker", ATTACKERS)
def test_attackers_find_a_planted_attribute_and_nothing_where_there_is_none(attacker):
    rows, texts, _ = table(gap=2.5)
    assert attack(rows, labelled(texts), attacker).accuracy > 0.85
    dealt = np.random.default_rng(8).permutation(texts)
    assert 0.4 < attack(rows, labelled(dealt), attacker).accuracy < 0.6


def test_repeats_never_cross_folds_and_classes_become_equal():
    codes = np.array([0] * 15 + [1] * 60 + [2] * 25)
    held_out = []
    for train, held in balanced_folds(codes, 5, seed=0):
        assert not set(train) & set(held)
        assert set(train) | set(held) == set(range(100))
        assert len(set(np.bincount(codes[train]))) == 1
        assert len(set(held)) == len(held)
        assert np.bincount(codes[held]).tolist() == [3, 12, 5]
        held_out.extend(held)
    assert sorted(held_out) == list(range(100))


def test_a_user_s_twin_is_needed_to_guess_noise():
    """Repeats across folds would let trees recognise users: pure noise would be guessed well."""
    draws = np.random.default_rng(0)
    labels = labelled(np.array(["F"] * 30 + ["M"] * 170))
    assert attack(draws.normal(size=(200, 5)), labels, "gbdt").accuracy < 0.62


def test_accuracy_is_balanced_and_leak_reads_guesses_anew():
    codes = np.array([0] * 10 + [1] * 90)
    assert Attack.of(np.ones(100, dtype=int), codes) == Attack(0.5, 0.5)
    turned = Attack.of(1 - codes, codes)
    assert turned == Attack(0.0, 1.0)
    three = np.array([0, 0, 1, 1, 2, 2])
    assert Attack.of(np.array([1, 1, 2, 2, 0, 0]), three) == Attack(0.0, 1.0)
    assert Attack.of(np.array([0, 1, 1, 0, 2, 2]), three).accuracy == pytest.approx(2 / 3)


def test_surfaces():
    matrix, _ = cells()
    model = MODELS.build({"name": "als", "factors": 4, "sweeps": 2}).fit(matrix)
    users = np.array([3, 5])
    assert np.array_equal(features(model, users, "embeddings"), model.user_factors[users])
    assert np.array_equal(features(model, users, "scores"), model.score(users))
    lists = features(model, users, "lists", 4)
    assert lists.shape == (2, 60)
    assert [np.flatnonzero(row).tolist() for row in lists] == np.sort(model.listed(users, 4)).tolist()
    vae = MODELS.build({"name": "mult-vae", "hidden": 8, "latent": 3, "epochs": 1}).fit(matrix)
    assert features(vae, users, "embeddings").shape == (2, 3)
    with pytest.raises(UserError, match="item-knn has no user embeddings; attack its scores or its lists"):
        features(MODELS.build({"name": "item-knn"}).fit(matrix), users, "embeddings")


@pytest.mark.parametrize("surface", ["embeddings", "scores", "lists"])
def test_the_metric_attacks_every_surface_and_leaves_forgotten_users_out(surface):
    data = load_interactions(
        {"name": "synthetic", "users": 150, "items": 140, "interactions": 4000, "correlation": 0.8}
    )
    model = MODELS.build({"name": "als", "factors": 8, "sweeps": 3}).fit(data.matrix)
    model.forget(Deletion(users=np.arange(5)))
    metric = METRICS.build({"name": "attribute-attackers", "attribute": "gender", "surface": surface, "folds": 3})
    found = metric.measure(SimpleNamespace(target=model, data=data))
    assert set(found) == set(metric.numbers)
    assert found["attribute_chance"] == 0.5
    assert found["attribute_leak"] > (0.6 if surface == "lists" else 0.75)
    assert found == metric.measure(SimpleNamespace(target=model, data=data))


def test_without_attributes_or_embeddings_there_is_no_number():
    matrix, texts = cells()
    knn = MODELS.build({"name": "item-knn"}).fit(matrix)
    bare = SimpleNamespace(target=knn, data=SimpleNamespace(attributes={}))
    metric = METRICS.build({"name": "attribute-attackers"})
    assert set(metric.measure(bare).values()) == {None}
    embeddings = METRICS.build({"name": "attribute-attackers", "surface": "embeddings"})
    case = SimpleNamespace(target=knn, data=SimpleNamespace(attributes={"gender": texts}))
    assert set(embeddings.measure(case).values()) == {None}
    named = METRICS.build({"name": "attribute-attackers", "attribute": "size"})
    with pytest.raises(UserError, match="unknown attribute 'size'; the data have gender"):
        named.measure(case)


def test_a_class_smaller_than_the_folds_is_refused():
    texts = np.array(["F"] * 3 + ["M"] * 30)
    with pytest.raises(UserError, match="attribute 'gender': the value 'F' has 3 users; 5 folds need 5"):
        attack(np.zeros((33, 2)), labelled(texts), "logistic")


def test_utility_is_compared_where_attackers_learn_as_little():
    measured = [(0.7, 0.37), (0.6, 0.36), (0.55, 0.30), (0.58, 0.34)]
    assert utility_at(0.6, measured) == 0.36
    assert utility_at(0.56, measured) == 0.30
    assert utility_at(0.5, measured) is None


def test_rounding_errors_of_scores_do_not_drown_the_attackers():
    rows, texts, context = table(users=300, gap=1.0)
    scores = rows @ np.repeat(context.items, 5, axis=0).T
    assert scores.shape[1] > WIDTH
    labels = labelled(texts)
    narrow, wide = (attack(shown.astype(np.float64), labels, "logistic").accuracy for shown in (rows, scores))
    assert wide > narrow - 0.03
