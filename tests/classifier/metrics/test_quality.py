"""Forgetting quality: epsilon by its definition, and clouds that can or cannot be told apart."""

import math

import numpy as np
import pytest
from scipy import stats

from msgm.classifier.metrics import METRICS
from msgm.classifier.metrics.quality import (
    CAP,
    DELTA,
    epsilons,
    forgetting_quality,
    last_epsilon,
    scores,
)
from msgm.classifier.outputs import Outputs


def models(centre, count=64, items=30, seed=0, spread=1.0):
    """Two-class models whose margins on forget items are normal about ``centre``."""
    rng = np.random.default_rng(seed)
    labels = {"forget": np.zeros(items, dtype=np.int64), "retain": np.zeros(4, dtype=np.int64)}
    labels["test"] = labels["retain"]
    sure = np.tile([3.0, 0.0], (4, 1))
    found = []
    for _ in range(count):
        z = np.stack([rng.normal(centre, spread, items), np.zeros(items)], 1)
        found.append(Outputs({"forget": z, "retain": sure, "test": sure}, labels))
    return found


def test_models_of_one_kind_cannot_be_told_apart_and_shifted_ones_can():
    retrained = models(0.0, seed=1)
    same, original = forgetting_quality(models(0.0, seed=2), retrained), forgetting_quality(models(6.0), retrained)
    assert same.upper > 0.95
    assert original.upper < 0.1
    assert original.score < 0.05
    assert same.score > 5 * original.score
    assert same.final == pytest.approx(same.score)


def test_the_median_may_stay_while_the_spread_gives_models_away():
    narrow = forgetting_quality(models(0.0, spread=0.05), models(0.0, seed=1))
    assert narrow.upper < 0.3


@pytest.mark.parametrize(("centre", "spread"), [(1.0, 1.0), (0.1, 0.3), (0.1, 5.0)])
def test_epsilon_is_the_largest_over_all_rules(centre, spread):
    rng = np.random.default_rng(0)
    u, r = rng.normal(centre, spread, 64), rng.normal(0, 1.5, 64)
    best, certain = 0.0, 0.0

    def limit(k):
        return 1.0 if k == 64 else stats.beta.ppf(0.975, k + 1, 64 - k)

    def eps(fpr, fnr):
        pairs = ((fpr, fnr), (fnr, fpr))
        return max([math.log(1 - DELTA - a) - math.log(b) for a, b in pairs if 1 - DELTA - a > 0] + [0.0])

    rules = [(u, r) if np.median(u) >= np.median(r) else (r, u)]
    rules += [(-abs(u - np.median(u)), -abs(r - np.median(u))), (-abs(r - np.median(r)), -abs(u - np.median(r)))]
    for positive, negative in rules:
        for t in np.concatenate([positive, negative]):
            missed, false = int((positive < t).sum()), int((negative >= t).sum())
            certain = max(certain, eps(limit(false), limit(missed)))
            if missed and false:
                best = max(best, eps(false / 64, missed / 64))
    assert epsilons(u, r) == pytest.approx((best, certain))


def test_several_thresholds_may_survive():
    u, r = np.arange(64.0), np.arange(64.0) + 0.5
    point, sure = epsilons(u, r)
    assert 0 < point < CAP
    assert sure < point


def test_clouds_apart_are_at_the_cap_and_points_are_told_apart_or_not():
    rng = np.random.default_rng(0)
    assert epsilons(rng.normal(50, 1, 64), rng.normal(0, 1, 64))[0] == CAP
    assert epsilons(np.ones(64), np.ones(64)) == (0.0, 0.0)
    assert epsilons(np.ones(64), np.zeros(64))[0] == CAP
    assert epsilons(np.zeros(64), rng.normal(0, 1, 64))[0] == CAP


def test_buckets_halve_the_score_and_end_where_n_models_end():
    assert last_epsilon(512) == 7
    assert scores(np.array([0.0, 0.49, 0.5, 1.2, 4.99, 5.0, 50.0]), 64).tolist() == [1, 1, 0.5, 0.25, 2**-9, 0, 0]


def test_fewer_than_64_models_say_nothing_and_why():
    found = forgetting_quality(models(0.0, count=63), models(0.0))
    assert found.score is None
    assert found.upper is None
    assert found.models == 63
    assert "63" in found.why
    assert "64" in found.why


def test_the_final_score_pays_for_lost_accuracy():
    broken = [
        Outputs(dict(one.logits) | {"test": one.logits["test"] * [[1, 1], [1, 1], [-1, 1], [-1, 1]]}, one.labels)
        for one in models(0.0, seed=2)
    ]
    found = forgetting_quality(broken, models(0.0, seed=1))
    assert found.final == pytest.approx(found.score / 2)


def test_the_cost_is_known_beforehand():
    needed = METRICS.build({"name": "forgetting-quality"}).needed()
    assert (needed.trained, needed.unlearned) == (128, 64)
    assert needed.seconds(training=2.0, unlearning=0.5) == 128 * 2 + 64 * 0.5
