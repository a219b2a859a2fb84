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
