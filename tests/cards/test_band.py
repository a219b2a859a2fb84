"""The band: a prediction interval that one more value lies in, and the interval of a mean."""

import numpy as np
import pytest

from msgm.cards.band import band_of, t_interval


@pytest.mark.parametrize("count", [2, 6])
def test_one_more_value_lies_in_the_band_in_95_of_100_cases(count):
    draws = np.random.default_rng(0).normal(3, 2, (4000, count + 1))
    inside = [band_of(list(row[:-1])).holds(row[-1]) for row in draws]
    assert np.mean(inside) == pytest.approx(0.95, abs=0.012)


def test_fewer_values_than_wanted_give_no_band():
    assert band_of([1.0, 2.0, 3.0, 4.0, None], least=5) is None
    assert band_of([1.0, 2.0, 3.0, 4.0, None, 5.0], least=5).count == 5


def test_equal_values_give_a_point():
    band = band_of([0.5] * 5)
    assert band.sd == 0
    assert band.holds(0.5)
    assert not band.holds(0.51)
    assert band.holds(0.51, slack=0.02)


def test_the_interval_of_a_mean_is_students():
    low, high = t_interval([1.0, 2.0, 3.0])
    assert (low, high) == pytest.approx((2 - 4.3027 / np.sqrt(3), 2 + 4.3027 / np.sqrt(3)), abs=1e-3)
    assert t_interval([1.0]) == (None, None)
