"""The band: what retrained models give for a number, and where another model's value lies in it.

The reference of unlearning is not one retrained model but their distribution. From k of them the band is the 95%
prediction interval for one more, mean +- t(k - 1) s sqrt(1 + 1/k): a further retrained model lies in it in 95 of 100
cases if values are normal. Two give a band, 16 standard deviations wide to either side; five give a narrow one.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from statistics import fmean, stdev
from typing import Any

from scipy import stats

Numbers = Mapping[str, float | None]


@dataclass(frozen=True)
class Band:
    """Mean, standard deviation and 95% prediction interval of a number over retrained models."""

    mean: float
    sd: float
    low: float
    high: float
    count: int

    def holds(self, value: float, slack: float = 1e-12) -> bool:
        """Return whether a value lies inside, its ends included, or at most ``slack`` outside."""
        return self.low - slack <= value <= self.high + slack


def band_of(values: Sequence[float | None], least: int = 2) -> Band | None:
    """Return the band of the values that exist; None when they are fewer than ``least``, which is at least 2."""
    known = tuple(value for value in values if value is not None)
    return _band(known) if len(known) >= least else None


@lru_cache(2**16)
def _band(values: tuple[float, ...]) -> Band:
    """Return the band of two values or more; cached, for all rows and cards of a report ask for the same ones."""
    mean, sd = fmean(values), stdev(values)
    half = _quantile(len(values) - 1) * sd * math.sqrt(1 + 1 / len(values))
    return Band(mean, sd, mean - half, mean + half, len(values))


@lru_cache
def _quantile(degrees: int) -> float:
    """Return the 97.5% quantile of Student's t; cached, for reports take it thousands of times."""
    return float(stats.t.ppf(0.975, degrees))


def t_interval(values: Sequence[float]) -> tuple[float | None, float | None]:
    """Return the 95% t-interval of a mean; Nones from fewer than two values."""
    if len(values) < 2:
        return None, None
    half = _quantile(len(values) - 1) * stdev(values) / math.sqrt(len(values))
    return fmean(values) - half, fmean(values) + half


def summarise(
    values: Sequence[Numbers], bands: Sequence[Sequence[Numbers]], least: int = 2, slack: float = 1e-12
) -> dict[str, dict[str, Any]]:
    """Return every number over the seeds of an experiment: mean, 95% t-interval, and its place in each seed's band.

    Args:
        values: a model's numbers, one tree a seed.
        bands: the retrained models' numbers, one list a seed.
        least: retrained models that a band needs.
        slack: how far outside its band a value may lie and count as inside.

    Returns:
        name to ``value``, ``low`` and ``high`` (None from one seed), ``seeds``, ``band`` (mean over seeds of ``mean``,
        ``sd``, ``low`` and ``high``, None without) and ``inside`` (seeds whose band holds the value, None without).
    """
    found = {}
    for name in dict.fromkeys(name for tree in values for name in tree):
        pairs = [
            (float(value), band_of([other.get(name) for other in band], least))
            for tree, band in zip(values, bands, strict=True)
            if (value := tree.get(name)) is not None
        ]
        found[name] = _summary(pairs, slack)
    return found


def _summary(pairs: list[tuple[float, Band | None]], slack: float) -> dict[str, Any]:
    numbers = [value for value, _ in pairs]
    judged = [(value, band) for value, band in pairs if band is not None]
    low, high = t_interval(numbers)
    keys = ("mean", "sd", "low", "high")
    return {
        "value": fmean(numbers) if numbers else None,
        "low": low,
        "high": high,
        "seeds": len(numbers),
        "band": {key: fmean(getattr(band, key) for _, band in judged) for key in keys} if judged else None,
        "inside": sum(band.holds(value, slack) for value, band in judged) if judged else None,
    }
