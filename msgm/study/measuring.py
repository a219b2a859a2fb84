"""From models to numbers: what metrics give for one model, and for each retrained model beside the others."""

import math
from collections.abc import Sequence
from dataclasses import replace
from typing import Any, Protocol

Numbers = dict[str, float | None]


class Meter(Protocol):
    """A metric: it gives named numbers of a case."""

    def measure(self, case: Any) -> Any:
        """Return the numbers of the case's target by name; None for one that cannot be told."""


def measure(case: Any, metrics: Sequence[Meter]) -> Numbers:
    """Return all numbers of one model; no model of the case is changed.

    A value that is not finite, as a metric of the user's may give, becomes None: it is no number to compare.
    """
    found = {name: value for metric in metrics for name, value in metric.measure(case).items()}
    return {name: float(v) if v is not None and math.isfinite(v) else None for name, v in found.items()}


def measure_retrains(case: Any, metrics: Sequence[Meter]) -> list[Numbers]:
    """Return the numbers of every retrained model, each measured against the others as any model is against all.

    Args:
        case: a dataclass with ``target`` and ``retrains``, its retrained models.
        metrics: what to measure.
    """
    return [
        measure(replace(case, target=one, retrains=[other for other in case.retrains if other is not one]), metrics)
        for one in case.retrains
    ]
