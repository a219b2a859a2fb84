"""RMIA and LiRA: definitions by loops, and members of an over-fitted model found while held-out ones are not."""

import numpy as np
import pytest
from scipy import stats

from msgm.classifier.metrics import METRICS, Case
from msgm.classifier.metrics.lira import lira_scores
from msgm.classifier.metrics.rmia import RMIA
from msgm.classifier.metrics.scores import controls, losses
from msgm.classifier.outputs import Outputs
from tests.classifier.metrics.worlds import noise_world, posteriors


@pytest.fixture(scope="module")
def world():
    return noise_world(retrains=8)


def test_rmia_counts_the_held_out_items_that_an_item_beats():
    target, others = posteriors(0), [posteriors(k) for k in (1, 2, 3)]
    rmia = RMIA(a=0.4, gamma=1.5)
    members, held_out = rmia.scores(target, others, controls(target))

    def ratios(part):
        out = np.mean([np.exp(-losses(one, part)) for one in others], axis=0)
        return np.exp(-losses(target, part)) / ((1.4 * out + 0.6) / 2)

    x, z = ratios("forget"), ratios("nonmembers")
    own, of_z = target.labels["forget"], target.labels["nonmembers"]
    weight = {y: (own == y).sum() / (of_z == y).sum() for y in range(5)}

    def beaten(ratio, left_out):
        kept = [j for j in range(40) if j != left_out]
        return np.average([ratio / z[j] > 1.5 for j in kept], weights=[weight[of_z[j]] for j in kept])

    for i in range(20):
        same = np.flatnonzero(of_z == own[i])  # Each left out in turn: all leave the same weight.
        assert members[i] == pytest.approx(np.mean([beaten(x[i], j) for j in same]))
    for i in range(40):
        assert held_out[i] == pytest.approx(beaten(z[i], i))


def test_rmia_is_fair_to_a_stratum_of_few_controls():
    """Half of the forget items are easy and have three controls, which weigh 100 times the others."""
    rng = np.random.default_rng(0)
    labels = {"forget": np.repeat([0, 1], [300, 300]), "nonmembers": np.repeat([0, 1], [3, 300])}
    values = []
    for _ in range(200):
        logits = {}
        for part, y in labels.items():
            z = np.zeros((len(y), 2))
            z[np.arange(len(y)), y] = rng.normal(size=len(y)) + 4 * (y == 0)
            logits[part] = z
        target = Outputs(logits, labels)
        even = Outputs({part: np.zeros_like(z) for part, z in logits.items()}, labels)
        values.append(RMIA().measure(Case(target, target, [even]))["rmia_auc"])
    assert np.mean(values) == pytest.approx(0.5, abs=3 * np.std(values) / np.sqrt(len(values)))


def test_rmia_finds_members_of_an_over_fitted_model_and_none_of_a_retrained_one(world):
    outputs = [world.outputs(model) for model in world.retrains]
    rmia = RMIA()
    original = rmia.measure(Case(world.outputs(world.original), world.outputs(world.original), outputs))
    values = [
        rmia.measure(Case(one, world.outputs(world.original), [r for r in outputs if r is not one])) for one in outputs
    ]
    assert original["rmia_auc"] > 0.9
    assert abs(np.mean([value["rmia_auc"] for value in values]) - 0.5) < 0.1
    assert original["rmia_auc"] > max(value["rmia_auc"] for value in values) + 0.15
    assert original["rmia_worse_share"] == 0
    assert np.mean([value["rmia_worse_share"] for value in values]) < 0.3


def test_rmia_without_references_says_nothing():
    target = posteriors()
    assert set(RMIA().measure(Case(target, target)).values()) == {None}


def test_lira_is_the_log_ratio_of_the_normal_densities():
    rng = np.random.default_rng(0)
    target, inside, outside = rng.normal(size=7), rng.normal(2, 1, (80, 7)), rng.normal(0, 2, (90, 7))
    found = lira_scores(target, inside, outside)
    for i in range(7):
        parts = [
            stats.norm.logpdf(target[i], np.median(cloud[:, i]), cloud[:, i].std(ddof=1)) for cloud in (inside, outside)
        ]
        assert found[i] == pytest.approx(parts[0] - parts[1])
    offline = lira_scores(target, None, outside)
    assert offline[0] == pytest.approx((target[0] - np.median(outside[:, 0])) / outside[:, 0].std(ddof=1))


def test_with_few_shadows_lira_has_one_deviation_for_all_examples():
    rng = np.random.default_rng(1)
    target, outside = rng.normal(size=5), rng.normal(0, 2, (6, 5))
    pooled = np.sqrt(np.mean((outside - np.median(outside, 0)) ** 2))
    np.testing.assert_allclose(lira_scores(target, None, outside), (target - np.median(outside, 0)) / pooled)


def test_shadows_that_agree_entirely_give_finite_scores():
    same = np.ones((70, 3))
    target = np.array([1.0, 2.0, -50.0])
    assert np.isfinite(lira_scores(target, same, same)).all()
    assert np.isfinite(lira_scores(target, None, same)).all()


def test_offline_lira_finds_members_of_an_over_fitted_model_and_none_of_a_retrained_one(world):
    lira, outputs = METRICS.build({"name": "lira"}), [world.outputs(model) for model in world.retrains]
    original = world.outputs(world.original)
    values = [lira.measure(Case(one, original, [r for r in outputs if r is not one]))["lira_auc"] for one in outputs]
    assert lira.measure(Case(original, original, outputs))["lira_auc"] > 0.9
    assert abs(np.mean(values) - 0.5) < 0.1


def test_a_label_flip_is_seen_by_rmia():
    target = posteriors()
    other = Outputs(target.logits, dict(target.labels) | {"forget": (target.labels["forget"] + 1) % 5})
    references = [posteriors(1), posteriors(2)]
    first, second = (RMIA().measure(Case(one, target, references))["rmia_auc"] for one in (target, other))
    assert first != second
