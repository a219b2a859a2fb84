"""The band: a prediction interval, each retrained model judged without itself, and the summary over seeds."""

from dataclasses import dataclass
from typing import ClassVar

import numpy as np
import pytest

from msgm.classifier.band import band_of, measure, measure_retrains, summarise, t_interval
from msgm.classifier.metrics import Case, Metric, Number
from tests.classifier.metrics.worlds import posteriors


def test_one_more_value_lies_in_the_band_in_95_of_100_cases():
    draws = np.random.default_rng(0).normal(3, 2, (4000, 7))
    inside = [band_of(list(row[:6])).holds(row[6]) for row in draws]
    assert np.mean(inside) == pytest.approx(0.95, abs=0.012)


def test_fewer_than_five_values_give_no_band():
    assert band_of([1.0, 2.0, 3.0, 4.0, None]) is None
    assert band_of([1.0, 2.0, 3.0, 4.0, None, 5.0]).count == 5


def test_equal_values_give_a_point_without_a_distance():
    band = band_of([0.5] * 5)
    assert band.holds(0.5)
    assert not band.holds(0.51)
    assert band.distance(0.51) is None
    assert band_of([0, 1, 2, 3, 4]).distance(5) == pytest.approx(3 / np.std([0, 1, 2, 3, 4], ddof=1))


@dataclass(frozen=True)
class Seen(Metric):
    """How many references a case has, and whether the target is one of them."""

    numbers: ClassVar = {name: Number(name, "utility") for name in ("references", "own", "bad")}
    result: float = 0.0

    def measure(self, case):
        return {"references": float(len(case.retrains)), "own": float(case.target in case.retrains), "bad": self.result}


def test_every_retrained_model_is_measured_without_itself():
    outputs = [posteriors(k) for k in range(5)]
    cases = [Case(one, outputs[0], outputs) for one in outputs]
    assert [tree["references"] for tree in measure_retrains(cases, [Seen()])] == [4] * 5
    assert [tree["own"] for tree in measure_retrains(cases, [Seen()])] == [0] * 5


@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_a_value_that_is_not_finite_is_no_number(value):
    assert measure(Case(posteriors(), posteriors()), [Seen(value)])["bad"] is None


def test_the_summary_places_every_seed_in_its_own_band():
    bands = [[{"x": v} for v in (1, 2, 3, 4, 5)], [{"x": v} for v in (11, 12, 13, 14, 15)]]
    found = summarise([{"x": 3.0, "y": None}, {"x": 33.0, "y": None}], bands)
    assert found["x"]["value"] == 18
    assert found["x"]["inside"] == 1
    assert found["x"]["band"]["mean"] == 8
    assert found["x"]["distance"] == pytest.approx((0 + 20) / 2 / np.std([1, 2, 3, 4, 5], ddof=1))
    assert found["y"] == {
        "value": None,
        "low": None,
        "high": None,
        "seeds": 0,
        "band": None,
        "inside": None,
        "distance": None,
    }


def test_the_interval_of_a_mean_is_students():
    low, high = t_interval([1.0, 2.0, 3.0])
    assert (low, high) == pytest.approx((2 - 4.3027 / np.sqrt(3), 2 + 4.3027 / np.sqrt(3)), abs=1e-3)
    assert t_interval([1.0]) == (None, None)
