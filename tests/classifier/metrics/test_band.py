"""Measuring against the band: each retrained model judged without itself, and the summary over seeds."""

from dataclasses import dataclass
from typing import ClassVar

import numpy as np
import pytest

from msgm.classifier.band import measure, measure_retrains, summarise
from msgm.classifier.metrics import Case, Metric, Number
from tests.classifier.metrics.worlds import posteriors


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


@pytest.mark.parametrize("values", [(0.5,) * 5, (1.0, 2.0, 3.0, 4.0)])
def test_there_is_no_distance_without_a_spread_or_without_five_retrained_models(values):
    assert summarise([{"x": 0.51}], [[{"x": v} for v in values]])["x"]["distance"] is None
