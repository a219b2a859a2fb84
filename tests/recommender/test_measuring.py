"""Measuring: retrained models without themselves, numbers that are none, and the summary over seeds."""

from dataclasses import dataclass
from typing import ClassVar

import numpy as np
import pytest

from msgm.cards.band import band_of, summarise, t_interval
from msgm.errors import UserError
from msgm.recommender.measuring import SLACK, build_metrics, measure, measure_retrains, row_numbers
from msgm.recommender.metrics import METRICS, Metric, Number
from tests.recommender.metrics.worlds import trained_case


@dataclass(frozen=True)
class Seen(Metric):
    """How many references a case has, and whether the target is one of them."""

    numbers: ClassVar = {name: Number(name, "utility") for name in ("references", "own", "bad")}
    result: float = 0.0

    def measure(self, case):
        own = any(case.target is one for one in case.retrains)
        return {"references": float(len(case.retrains)), "own": float(own), "bad": self.result}


def test_one_more_value_lies_in_the_band_in_95_of_100_cases():
    for count in (2, 5):
        draws = np.random.default_rng(0).normal(3, 2, (4000, count + 1))
        inside = [band_of(list(row[:-1])).holds(row[-1]) for row in draws]
        assert np.mean(inside) == pytest.approx(0.95, abs=0.012)


def test_one_value_gives_no_band():
    assert band_of([1.0, None]) is None
    assert band_of([1.0, None, 2.0]).count == 2
    assert band_of([1.0, 2.0], least=3) is None


def test_equal_values_give_a_point():
    assert band_of([0.5, 0.5]).holds(0.5)
    assert not band_of([0.5, 0.5]).holds(0.501)
    assert band_of([0.5, 0.5]).holds(0.501, slack=0.005)


def test_the_interval_of_a_mean_is_students():
    assert t_interval([1.0, 2.0, 3.0]) == pytest.approx((2 - 4.3027 / 3**0.5, 2 + 4.3027 / 3**0.5), abs=1e-3)
    assert t_interval([1.0]) == (None, None)


def test_the_summary_places_every_seed_in_its_own_band():
    bands = [[{"x": v} for v in (1.0, 2.0, 3.0)], [{"x": v} for v in (101.0, 102.0, 103.0)]]
    found = summarise([{"x": 3.0, "y": None}, {"x": 33.0, "y": None}], bands)
    assert (found["x"]["value"], found["x"]["inside"], found["x"]["band"]["mean"]) == (18, 1, 52)
    assert found["y"] == dict.fromkeys(["value", "low", "high", "band", "inside"]) | {"seeds": 0}


def test_every_retrained_model_is_measured_without_itself():
    case = trained_case("item-knn", retrains=3)
    assert [(tree["references"], tree["own"]) for tree in measure_retrains(case, [Seen()])] == [(2, 0)] * 3


@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_a_value_that_is_not_finite_is_no_number(value):
    assert measure(trained_case("item-knn", retrains=0), [Seen(value)])["bad"] is None


def test_all_metrics_of_all_kinds_give_their_numbers_and_leave_models_as_they_were():
    for kind in ("cells", "users", "items"):
        case = trained_case("ease", kind, retrains=2)
        models = [case.target, *case.retrains]
        before = [(m.inverse.tobytes(), m.seen.data.tobytes(), m.gone_users.tobytes()) for m in models]
        for metric in build_metrics({name: {} for name in METRICS.entries if name != "attribute-attackers"}):
            assert set(metric.measure(case)) == set(metric.numbers)
        assert before == [(m.inverse.tobytes(), m.seen.data.tobytes(), m.gone_users.tobytes()) for m in models]


def test_a_row_holds_summary_seeds_and_retrained_models():
    metrics = [Seen()]
    made = row_numbers([4, 5], [{"own": 1.0}, {"own": 3.0}], [[{"own": 1.0}, {"own": 1.0}]] * 2, metrics)
    entry = made["metrics"]["own"]
    assert entry["value"] == 2
    assert (entry["inside"], entry["section"], entry["better"], entry["text"]) == (1, "utility", "band", "own")
    assert [part["seed"] for part in made["per_seed"]] == [4, 5]
    assert [(m["seed"], m["retrain"]) for m in made["retrain_band"]] == [(4, 0), (4, 1), (5, 0), (5, 1)]
    close = row_numbers([4], [{"own": 1.0 + SLACK / 2}], [[{"own": 1.0}, {"own": 1.0}]], metrics)
    assert close["metrics"]["own"]["inside"] == 1


def test_metrics_are_built_by_name_with_their_settings():
    assert [m.name for m in build_metrics()] == list(METRICS.entries)
    assert build_metrics({"ranking": {"k": 20}})[0].k == 20
    with pytest.raises(UserError, match="unknown metrics 'rankin'.*Did you mean 'ranking'"):
        build_metrics({"rankin": {}})
