import numpy as np
import pytest
from sklearn.linear_model import LogisticRegression

from msgm.recommender.attributes import ERASURES
from msgm.recommender.metrics.attribute_attackers import attack
from tests.recommender.attributes.planted import labelled, table


def erased(name, rows, texts, context):
    return ERASURES.build({"name": name}).erase(rows, {"gender": texts}, context)


def class_means(rows, texts):
    return np.stack([rows[texts == value].astype(float).mean(0) for value in np.unique(texts[texts != ""])])


def test_span_is_the_class_means():
    rows, texts, context = table(classes=3)
    moved = rows - erased("class-mean", rows, texts, context)
    assert np.linalg.matrix_rank(moved - moved.mean(0), tol=1e-3) == 2


@pytest.mark.parametrize("name", ["leace", "class-mean"])
@pytest.mark.parametrize("classes", [2, 4])
def test_class_means_become_equal(name, classes):
    rows, texts, context = table(classes=classes)
    before, after = class_means(rows, texts), class_means(erased(name, rows, texts, context), texts)
    assert np.ptp(before, axis=0).max() > 0.5
    assert np.ptp(after, axis=0).max() < 1e-5


@pytest.mark.parametrize("name", ["leace", "class-mean"])
def test_a_linear_attacker_is_at_chance_on_the_data(name):
    rows, texts, context = table()
    found = [
        LogisticRegression(C=1e6, class_weight="balanced", max_iter=2000).fit(of, texts)
        for of in (rows, erased(name, rows, texts, context))
    ]
    assert np.abs(found[0].coef_).max() > 0.1
    assert np.abs(found[1].coef_).max() < 1e-3


def test_leace_moves_users_less_than_class_mean_and_than_other_affine_maps():
    rows, texts, context = table()
    rows = rows.astype(float)

    def moved(of):
        return float(((of - rows) ** 2).sum(1).mean())

    least = moved(erased("leace", rows, texts, context))
    assert least < 0.99 * moved(erased("class-mean", rows, texts, context))
    gap = np.diff(class_means(rows, texts), axis=0)[0]
    draws = np.random.default_rng(1)
    for _ in range(20):
        probe = draws.normal(size=len(gap))
        other = rows - np.outer((rows - rows.mean(0)) @ probe, gap) / (gap @ probe)
        assert np.ptp(class_means(other, texts), axis=0).max() < 1e-9
        assert moved(other) > least


def test_leace_takes_embeddings_whose_covariance_is_singular():
    rows, texts, context = table()
    doubled = np.hstack([rows, rows[:, :2]])
    after = erased("leace", doubled, texts, context)
    assert np.ptp(class_means(after, texts), axis=0).max() < 1e-5
    assert np.allclose(after[:, -2:], after[:, :2], atol=1e-4)


def test_several_attributes_are_erased_together():
    rows, gender, context = table()
    age = np.where(rows[:, 0] + np.random.default_rng(3).normal(size=len(rows)) > 0, "old", "young")
    age[:40] = ""
    after = ERASURES.build({"name": "leace"}).erase(rows, {"gender": gender, "age": age}, context)
    assert np.ptp(class_means(rows, age), axis=0).max() > 0.5
    for texts in (gender, age):
        assert np.ptp(class_means(after, texts), axis=0).max() < 1e-5


def test_users_without_a_value_teach_nothing_and_are_moved_too():
    rows, texts, context = table()
    texts[:50] = ""
    rows[:50] *= 100
    after = erased("leace", rows, texts, context)
    assert np.ptp(class_means(after, texts), axis=0).max() < 1e-5
    assert np.abs(after[:50] - rows[:50]).max() > 1


def test_attackers_see_a_planted_attribute_before_and_only_what_is_not_linear_after():
    rows, texts, context = table(gap=2.0)
    labels = labelled(texts)
    after = erased("leace", rows, texts, context)
    assert attack(rows, labels, "logistic").accuracy > 0.8
    assert attack(after, labels, "logistic").leak < 0.62
    # Two classes of other spread: no linear attacker sees them, boosted trees do.
    spread = np.where(texts == "F", 3.0, 1.0)[:, None] * (rows - rows.mean(0))
    hidden = erased("leace", spread, texts, context)
    assert attack(hidden, labels, "logistic").leak < 0.65
    assert attack(hidden, labels, "gbdt").accuracy > 0.75
