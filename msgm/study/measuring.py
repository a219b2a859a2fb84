"""Measures models: the metrics' numbers of one model, and of each retrained model against the others."""

import math
from collections.abc import Sequence
from dataclasses import replace
from typing import Any, Protocol

Numbers = dict[str, float | None]


class Meter(Protocol):
    """A metric: it gives named numbers of a case."""

    def measure(self, case: Any) -> Any:
        """Return the numbers of the case's target by name; None for a number that is undefined."""


def measure(case: Any, metrics: Sequence[Meter]) -> Numbers:
    """Return all numbers of one model; no model of the case is changed.

    Values that are not finite, which a plugin's metric may return, become None.
    """
    found = {name: value for metric in metrics for name, value in metric.measure(case).items()}
    return {name: float(v) if v is not None and math.isfinite(v) else None for name, v in found.items()}


def measure_retrains(case: Any, metrics: Sequence[Meter]) -> list[Numbers]:
    """Return the numbers of every retrained model, each with itself left out of the references.

    Args:
        case: a dataclass with ``target`` and ``retrains``, its retrained models.
        metrics: what to measure.
    """
    return [
        measure(replace(case, target=one, retrains=[other for other in case.retrains if other is not one]), metrics)
        for one in case.retrains
    ]
