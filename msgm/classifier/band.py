"""The band: what retrained models give for a number, and where another model's value lies in it.

The reference of unlearning is not one retrained model but their distribution. From k of them the band is the 95%
prediction interval for one more, mean +- t(k - 1) s sqrt(1 + 1/k): a further retrained model lies in it in 95 of 100
cases if values are normal. At least ``LEAST`` are wanted; fewer give no band.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import lru_cache
from statistics import fmean, stdev
from typing import Any

from scipy import stats

from msgm.classifier.metrics.base import Case, Metric

LEAST = 5
Numbers = dict[str, float | None]


@dataclass(frozen=True)
class Band:
    """Mean, standard deviation and 95% prediction interval of a number over retrained models."""

    mean: float
    sd: float
    low: float
    high: float
    count: int

    def holds(self, value: float) -> bool:
        """Return whether a value lies inside, its ends included."""
        return self.low - 1e-12 <= value <= self.high + 1e-12

    def distance(self, value: float) -> float | None:
        """Return how far a value lies from the mean, in standard deviations; None where these are zero."""
        return (value - self.mean) / self.sd if self.sd > 0 else None


def band_of(values: Sequence[float | None], least: int = LEAST) -> Band | None:
    """Return the band of the values that exist; None when they are fewer than ``least``."""
    known = tuple(value for value in values if value is not None)
    return _band(known) if len(known) >= least else None


@lru_cache(2**16)
def _band(values: tuple[float, ...]) -> Band:
    """Return the band of two values or more; cached, for all rows and cards of a request ask for the same ones."""
    mean, sd = fmean(values), stdev(values)
    half = _quantile(len(values) - 1) * sd * math.sqrt(1 + 1 / len(values))
    return Band(mean, sd, mean - half, mean + half, len(values))


@lru_cache
def _quantile(degrees: int) -> float:
    """Return the 97.5% quantile of Student's t; cached, for reports take it thousands of times."""
    return float(stats.t.ppf(0.975, degrees))


def measure(case: Case, metrics: Sequence[Metric]) -> Numbers:
    """Return all numbers of one model; metrics that need the models are left out where only logits are at hand.

    A value that is not finite, as a metric of the user's may give, becomes None: it is no number to compare.
    """
    usable = [metric for metric in metrics if case.live is not None or not metric.live]
    found = {name: value for metric in usable for name, value in metric.measure(case).items()}
    return {name: value if value is not None and math.isfinite(value) else None for name, value in found.items()}


def measure_retrains(cases: Sequence[Case], metrics: Sequence[Metric]) -> list[Numbers]:
    """Return the numbers of every retrained model, each with itself left out of its references.

    Args:
        cases: one case a retrained model; its ``retrains`` are all of them, and its ``target`` is one of these.
        metrics: what to measure.
    """
    return [
        measure(replace(case, retrains=[other for other in case.retrains if other is not case.target]), metrics)
        for case in cases
    ]


def summarise(values: Sequence[Numbers], bands: Sequence[Sequence[Numbers]]) -> dict[str, dict[str, Any]]:
    """Return every number over the seeds of an experiment: mean, 95% t-interval, and its place in each seed's band.

    Args:
        values: a model's numbers, one tree a seed.
        bands: the retrained models' numbers, one list a seed.

    Returns:
        name to ``value``, ``low`` and ``high`` (None from one seed), ``seeds``, ``band`` (mean over seeds of ``mean``,
        ``sd``, ``low`` and ``high``, None without), ``inside`` (seeds whose band holds the value) and ``distance``
        (mean, in standard deviations; None where any is zero).
    """
    found = {}
    for name in dict.fromkeys(name for tree in values for name in tree):
        pairs = [
            (float(value), band_of([tree.get(name) for tree in band]))
            for value, band in zip((tree.get(name) for tree in values), bands, strict=True)
            if value is not None
        ]
        found[name] = _summary(pairs)
    return found


def _summary(pairs: list[tuple[float, Band | None]]) -> dict[str, Any]:
    numbers = [value for value, _ in pairs]
    judged = [(value, band) for value, band in pairs if band is not None]
    distances = [band.distance(value) for value, band in judged]
    known = [distance for distance in distances if distance is not None]
    low, high = t_interval(numbers)
    keys = ("mean", "sd", "low", "high")
    return {
        "value": fmean(numbers) if numbers else None,
        "low": low,
        "high": high,
        "seeds": len(numbers),
        "band": {key: fmean(getattr(band, key) for _, band in judged) for key in keys} if judged else None,
        "inside": sum(band.holds(value) for value, band in judged) if judged else None,
        "distance": fmean(known) if known and len(known) == len(distances) else None,
    }


def t_interval(values: Sequence[float]) -> tuple[float | None, float | None]:
    """Return the 95% t-interval of a mean; Nones from fewer than two values."""
    if len(values) < 2:
        return None, None
    half = _quantile(len(values) - 1) * stdev(values) / math.sqrt(len(values))
    return fmean(values) - half, fmean(values) + half
