"""The band: a prediction interval that one more value lies in, and the interval of a mean."""

import numpy as np
import pytest
from scipy import stats

from msgm.cards.band import Band, band_of, summarise, t_interval


@pytest.mark.parametrize("count", [2, 3, 4, 5, 6])
def test_one_more_value_lies_in_the_band_in_95_of_100_cases(count):
    """20,000 draws: without sqrt(1 + 1/k) the share would be .937 at most."""
    draws = np.random.default_rng(0).normal(3, 2, (20_000, count + 1))
    inside = [band_of(row[:-1]).holds(row[-1]) for row in draws.tolist()]
    assert np.mean(inside) == pytest.approx(0.95, abs=0.005)


def test_a_mean_lies_in_its_interval_in_95_of_100_cases():
    draws = np.random.default_rng(1).normal(3, 2, (20_000, 4))
    ends = np.array([t_interval(row) for row in draws.tolist()])
    assert np.mean((ends[:, 0] <= 3) & (ends[:, 1] >= 3)) == pytest.approx(0.95, abs=0.005)


def test_a_summary_by_hand():
    """Two seeds; of three retrained models each, the second seed's lie elsewhere."""
    values = [{"a": 1.0, "b": 2.0}, {"a": 5.0}]
    bands = [[{"a": 0.9, "b": None}, {"a": 1.0}, {"a": 1.1}], [{"a": 1.0}, {"a": 1.1}, {"a": 1.2}]]
    found = summarise(values, bands)
    half = stats.t.ppf(0.975, 2) * 0.1 * np.sqrt(4 / 3)
    assert found["a"]["value"] == 3.0
    assert (found["a"]["seeds"], found["a"]["inside"]) == (2, 1)
    wanted = {"mean": 1.05, "sd": 0.1, "low": 1.05 - half, "high": 1.05 + half}
    assert found["a"]["band"] == pytest.approx(wanted)
    assert (found["a"]["low"], found["a"]["high"]) == pytest.approx((3 - 12.7062 * 2, 3 + 12.7062 * 2), abs=1e-3)
    assert found["b"] == {"value": 2.0, "low": None, "high": None, "seeds": 1, "band": None, "inside": None}
    assert summarise(values, bands, least=4)["a"]["band"] is None
    assert summarise(values, bands, slack=4.0)["a"]["inside"] == 2
    assert summarise([{"a": None}], [[]])["a"]["value"] is None


def test_the_ends_of_a_band_are_inside_and_what_lies_beyond_is_not():
    band = Band(0.0, 1.0, -1.0, 1.0, 3)
    assert band.holds(-1.0)
    assert band.holds(1.0)
    assert not band.holds(-1.001)
    assert not band.holds(1.001)
    assert band.holds(-1.5, slack=0.6)
    assert not band.holds(1.5, slack=0.4)


def test_fewer_values_than_wanted_give_no_band():
    assert band_of([1.0, 2.0, 3.0, 4.0, None], least=5) is None
    assert band_of([1.0, 2.0, 3.0, 4.0, None, 5.0], least=5).count == 5
    assert band_of([1.0, 2.0]).count == 2
    assert band_of([1.0]) is None


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
