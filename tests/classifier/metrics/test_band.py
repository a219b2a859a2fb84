"""Measuring against the band: each retrained model judged without itself, and the summary over seeds."""

from dataclasses import dataclass
from typing import ClassVar

import numpy as np
import pytest

from msgm.classifier.metrics import Case, Metric, Number
from msgm.study.measuring import measure, measure_retrains
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
    trees = measure_retrains(Case(outputs[0], outputs[0], outputs), [Seen()])
    assert [(tree["references"], tree["own"]) for tree in trees] == [(4, 0)] * 5


@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_a_value_that_is_not_finite_is_no_number(value):
    assert measure(Case(posteriors(), posteriors()), [Seen(value)])["bad"] is None
