"""Measuring: retrained models without themselves, numbers that are none, and the summary over seeds."""

from dataclasses import dataclass
from typing import ClassVar

import numpy as np
import pytest

from msgm.errors import UserError
from msgm.recommender.measuring import build_metrics, row_numbers
from msgm.recommender.metrics import METRICS, Metric, Number
from msgm.study.measuring import measure, measure_retrains
from tests.recommender.metrics.worlds import trained_case


@dataclass(frozen=True)
class Seen(Metric):
    """How many references a case has, and whether the target is one of them."""

    numbers: ClassVar = {name: Number(name, "utility") for name in ("references", "own", "bad")}
    result: float = 0.0

    def measure(self, case):
        own = any(case.target is one for one in case.retrains)
        return {"references": float(len(case.retrains)), "own": float(own), "bad": self.result}


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


def test_a_row_holds_means_seeds_and_retrained_models():
    bands = [[{"own": 1.0}, {"own": 2.0}], [{"own": 3.0}, {"own": None}]]
    made = row_numbers([4, 5], [{"own": 1.0}, {"own": 3.0}], bands, [Seen()])
    entry = made["metrics"]["own"]
    assert (entry["value"], entry["section"], entry["better"], entry["text"]) == (2, "utility", "band", "own")
    assert [part["seed"] for part in made["per_seed"]] == [4, 5]
    assert [(m["retrain"], m["metrics"]["own"]) for m in made["retrain_band"]] == [(1, 2.0), (2, 2.0)]


def test_metrics_are_built_by_name_with_their_settings():
    assert [m.name for m in build_metrics()] == list(METRICS.entries)
    assert build_metrics({"ranking": {"k": 20}})[0].k == 20
    with pytest.raises(UserError, match="unknown metric 'rankin'.*Did you mean 'ranking'"):
        build_metrics({"rankin": {}})
