"""The band against its stated rates, on normal draws, and against closed forms."""

import math

import numpy as np
import pytest
from scipy import stats

from msgm.study.band import FALSE_ALARMS, POWER, Band, band_of, joint_false_alarms, t_interval

DRAWS = 20_000


def outside(models, seeds, judged, shift=0.0):
    """Return how often a retrained model, shifted in its first metric, has some metric outside."""
    rng = np.random.default_rng(models * 100 + seeds * 10 + judged)
    retrained = rng.normal(size=(DRAWS, models, judged))
    row = rng.normal(size=(DRAWS, seeds, judged))
    row[:, :, 0] += shift
    half = Band(0.0, 1.0, models).half_width(seeds, judged)
    distance = np.abs(row.mean(1) - retrained.mean(1)) / retrained.std(1, ddof=1)
    return float((distance > half).any(1).mean())


@pytest.mark.parametrize("models", [3, 4, 5, 8])
@pytest.mark.parametrize("seeds", [1, 3])
def test_a_retrained_model_lies_inside_at_the_stated_rate(models, seeds):
    assert outside(models, seeds, 1) == pytest.approx(FALSE_ALARMS, abs=0.005)


@pytest.mark.parametrize(("models", "seeds", "judged"), [(5, 1, 4), (5, 3, 12), (3, 2, 7)])
def test_metrics_judged_together_keep_the_joint_rate(models, seeds, judged):
    rate = outside(models, seeds, judged)
    assert rate == pytest.approx(joint_false_alarms(judged), abs=0.005)
    assert rate <= FALSE_ALARMS + 0.005


@pytest.mark.parametrize(("models", "seeds", "judged"), [(5, 1, 1), (5, 3, 6), (8, 2, 3)])
def test_the_smallest_shift_is_noticed_at_the_stated_rate(models, seeds, judged):
    # The shift of one metric: the others add their own false alarms, of level .05 / judged each.
    shift = Band(0.0, 1.0, models).smallest_shift(seeds, judged)
    rng = np.random.default_rng(1)
    retrained = rng.normal(size=(DRAWS, models))
    row = rng.normal(shift, size=(DRAWS, seeds))
    half = Band(0.0, 1.0, models).half_width(seeds, judged)
    noticed = np.abs(row.mean(1) - retrained.mean(1)) > half * retrained.std(1, ddof=1)
    assert noticed.mean() == pytest.approx(POWER, abs=0.01)


@pytest.mark.parametrize(("models", "judged"), [(2, 1), (5, 1), (5, 12), (9, 3)])
def test_the_smallest_shift_is_that_of_the_non_central_t_distribution(models, judged):
    shift = Band(0.0, 2.0, models).smallest_shift(3, judged) / (2.0 * math.sqrt(1 / 3 + 1 / models))
    reach = stats.t.ppf(1 - FALSE_ALARMS / (2 * judged), models - 1)
    assert stats.nct.sf(reach, models - 1, shift) == pytest.approx(POWER, abs=1e-3)


# Means over pairs of models


def additive(x, y):
    """Of models that differ in one way alone: the part r is 0."""
    return x[..., 0] + y[..., 0]


def squared(x, y):
    return np.square(x - y).mean(-1)


def absolute(x, y):
    return np.abs(x - y).mean(-1)


def between(distance, models, seeds, dims, shift=0.0):
    """Draw models (truth and noise, where a row's have a ``shift``); return mean distances of both, (n, k) and (n,)."""
    drawn = np.random.default_rng(models).normal(size=(4000, models + seeds, dims))
    drawn[:, models:] += shift
    return of_pairs(distance(drawn[:, :, None], drawn[:, None, :models]), models)


def of_pairs(found, models):
    """Return means of (n, k + s, k) distances, without those of a retrained model to itself, which are left out."""
    own = np.where(np.eye(models, dtype=bool), 0.0, found[:, :models]).sum(2) / (models - 1)
    return own, found[:, models:].mean((1, 2))


def share_outside(own, row, seeds, judged=1, pairs=True):
    half = Band(0.0, 1.0, own.shape[1], pairs).half_width(seeds, judged)
    return float((np.abs(row - own.mean(1)) > half * own.std(1, ddof=1)).mean())


@pytest.mark.parametrize("models", [3, 5, 8])
@pytest.mark.parametrize("seeds", [1, 3])
def test_the_band_of_pairs_is_exact_where_distances_add(models, seeds):
    own, row = between(additive, models, seeds, 1)
    assert share_outside(own, row, seeds) == pytest.approx(FALSE_ALARMS, abs=0.01)
    assert share_outside(own, row, seeds, judged=5) == pytest.approx(FALSE_ALARMS / 5, abs=0.006)
    assert share_outside(own, row, seeds, pairs=False) > 1.5 * FALSE_ALARMS


@pytest.mark.parametrize("models", [3, 5, 8])
@pytest.mark.parametrize("distance", [squared, absolute])
def test_a_retrained_model_lies_inside_the_band_of_pairs_at_least_as_often_as_stated(distance, models):
    """Models of 32 numbers. Of one number, distances are far from normal: 9% of squared ones lie outside of five."""
    for seeds in (1, 3):
        own, row = between(distance, models, seeds, 32)
        assert 0.03 < share_outside(own, row, seeds) <= FALSE_ALARMS + 0.01
        assert share_outside(own, row, seeds, pairs=False) > FALSE_ALARMS + 0.015
    own, row = between(distance, models, 1, 32, shift=2.0)
    assert share_outside(own, row, 1) > 0.75


@pytest.mark.parametrize("models", [3, 5, 8])
def test_kernel_distances_of_samples_keep_the_rate(models):
    """The unbiased squared MMD, kernel x . y, of 20 samples each of models whose means differ; below 0 as well."""
    rng, n, dims = np.random.default_rng(models), 20, 16
    samples = 0.2 * rng.normal(size=(1500, models + 1, 1, dims)) + rng.normal(size=(1500, models + 1, n, dims))
    means, squares = samples.mean(2), np.square(samples).sum((2, 3))
    itself = (n**2 * np.square(means).sum(2) - squares) / (n * (n - 1))
    crossed = np.einsum("nid,njd->nij", means, means[:, :models])
    own, row = of_pairs(itself[:, :, None] + itself[:, None, :models] - 2 * crossed, models)
    assert own.min() < 0
    assert share_outside(own, row, 1) <= FALSE_ALARMS + 0.015
    assert share_outside(own, row, 1, pairs=False) > FALSE_ALARMS + 0.02


@pytest.mark.parametrize("seeds", [1, 10])
def test_interaction_alone_leaves_the_band_of_pairs_wide_enough(seeds):
    """Distances of r alone, drawn for each pair; with many seeds the mean over pairs is what varies."""
    found = np.random.default_rng(0).normal(size=(6000, 8 + seeds, 8))
    found[:, :8] = np.triu(found[:, :8], 1) + np.triu(found[:, :8], 1).transpose(0, 2, 1)
    own, row = of_pairs(found, 8)
    assert 0.03 < share_outside(own, row, seeds) <= FALSE_ALARMS + 0.008


def test_a_retrained_model_held_out_needs_no_wider_band():
    own, _ = between(additive, 6, 1, 1)
    for values, rate in ((own, FALSE_ALARMS), (between(squared, 6, 1, 32)[0], FALSE_ALARMS)):
        assert share_outside(values[:, 1:], values[:, 0], 1, pairs=False) == pytest.approx(rate, abs=0.012)


def test_the_closed_form_of_pairs():
    """4/3 for five models; of eight and three seeds the part r decides: 6 (7 + 6) / (3 8 7) is above 1/3 + 1/8."""
    plain, pairs = Band(0.0, 2.0, 5), band_of([0.0, 1.0, 2.0, 3.0, 4.0], pairs=True)
    assert pairs.pairs
    for seeds in (1, 4):
        assert Band(0.0, 2.0, 5, True).half_width(seeds, 3) == pytest.approx(4 / 3 * plain.half_width(seeds, 3))
        assert Band(0.0, 2.0, 5, True).smallest_shift(seeds) == pytest.approx(4 / 3 * plain.smallest_shift(seeds))
    share = 6 * 13 / (3 * 8 * 7) / (1 / 3 + 1 / 8)
    found = Band(0.0, 1.0, 8, True).half_width(3) / Band(0.0, 1.0, 8).half_width(3)
    assert found == pytest.approx(7 / 6 * math.sqrt(share))


def test_the_closed_form_of_five_models():
    band = band_of([1.0, 2.0, 3.0, 4.0, 5.0])
    assert (band.mean, band.sd, band.count) == (3.0, math.sqrt(2.5), 5)
    half = stats.t.ppf(1 - 0.05 / 6, 4) * math.sqrt(2.5) * math.sqrt(1 / 2 + 1 / 5)
    assert band.half_width(seeds=2, judged=3) == pytest.approx(half)
    assert band.limits(2, 3) == pytest.approx((3 - half, 3 + half))
    assert band.half_width() == pytest.approx(stats.t.ppf(0.975, 4) * math.sqrt(2.5) * math.sqrt(1 + 1 / 5))


def test_a_mean_inside_and_outside_on_either_side():
    band = Band(7.0, 1.0, 5)
    half = band.half_width(2, 3)
    for sign in (-1, 1):
        near, inside, outside = (7 + sign * half * share for share in (0.9, 1.09, 1.11))
        assert band.holds([near, inside], judged=3)
        assert not band.holds([near, outside], judged=3)
        assert band.holds([near, outside], judged=3, slack=0.01 * half)
    assert Band(7.0, 0.0, 5).holds([7.0], slack=0.0)


def test_a_band_takes_the_values_that_exist_and_five_of_them():
    assert band_of([1.0, None, 2.0, 3.0, 4.0]) is None
    assert band_of([1.0, None, 2.0, 3.0, 4.0], least=4).count == 4
    assert band_of([1.0, 2.0], least=1).count == 2
    assert band_of([1.0], least=1) is None


def test_the_interval_of_a_mean_has_students_quantile():
    assert t_interval([1.0]) == (None, None)
    # sd / sqrt(n) is sqrt(2) / sqrt(2) of two values and 3 / sqrt(3) of three.
    assert t_interval([0.0, 2.0]) == pytest.approx((1 - 12.7062, 1 + 12.7062), abs=1e-4)
    assert t_interval([1.0, 4.0, 7.0]) == pytest.approx((4 - 4.30265 * 3**0.5, 4 + 4.30265 * 3**0.5), abs=1e-4)
