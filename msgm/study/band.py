"""The band: the range of retrained models' values of a metric, and whether another model's values lie inside it.

The reference of unlearning is not one retrained model but their distribution. Let k models be retrained without the
request, each from a seed of its own, with mean b and standard deviation d of a metric, and let a row have the mean v of
s seeds. If all values are independent and normal with one mean and one variance, then

    (v - b) / (d sqrt(1/s + 1/k))

has Student's t distribution with k - 1 degrees of freedom. A row lies *inside* where its absolute value is at most the
quantile of level 1 - .05 / (2 m). Here m is the number of metrics that are judged together, so that a further retrained
model has all m inside in at least 95 of 100 cases (Bonferroni; exactly (1 - .05/m)^m where metrics are independent).

Some metrics are means over *pairs* of models: a row's value at a seed is the mean of h(row, j) over all k retrained
models j, and that of the retrained model i the mean of h(i, j) over the k - 1 others. A pair then counts for both of
its models, so that the values of retrained models depend on one another and differ too little. Of independent models

    h(x, y) = mu + g(x) + g(y) + r(x, y)

(Hoeffding), with uncorrelated parts of mean 0 and variances G of g and R of r, so that

    Var(v - b) = G (1/s + 1/k) + R (k - 1 + 2s) / (s k (k - 1))
    E d^2 = ((k - 2) / (k - 1))^2 (G + R / (k - 2))

With c = (k - 1) / (k - 2), which is 4/3 for five models, and S^2 the greater of 1/s + 1/k and (k - 2) (k - 1 + 2s) /
(s k (k - 1)), the variance is at most E (c d S)^2, whatever G and R are. So the band of such a metric takes

    (v - b) / (c d S)

which has the same t distribution where h is additive (R = 0) with normal g and S^2 = 1/s + 1/k, as it is up to 4 seeds
for five models, and leaves the band wider than need be where R is not 0: without g, by sqrt((k - 1) / (k - 2)) of one
seed. A retrained model that is held out and read against the others needs no correction: values of all retrained
models are exchangeable, and pairs count alike for all of them.

>>> band = band_of([0.91, 0.93, 0.92, 0.90, 0.94])
>>> round(band.mean, 3), band.count
(0.92, 5)
>>> band.holds([0.925]), band.holds([0.80])
(True, False)
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from statistics import fmean

import numpy as np
from scipy import optimize, special, stats

FALSE_ALARMS = 0.05
"""How often a further retrained model may have some metric outside."""
POWER = 0.8
"""How often a shift is noticed that counts as the smallest noticeable one."""
LEAST = 5
"""The fewest retrained models whose spread is a band."""


@dataclass(frozen=True)
class Band:
    """Mean and standard deviation of retrained models' values of one metric.

    Attributes:
        mean: over the models.
        sd: their standard deviation, with k - 1 in the denominator.
        count: how many there are, k, at least 2.
        pairs: whether the row's values and theirs are means over pairs of models; it then takes 3 or more.
    """

    mean: float
    sd: float
    count: int
    pairs: bool = False

    def half_width(self, seeds: int = 1, judged: int = 1) -> float:
        """Return how far the mean of ``seeds`` models may lie from the band's mean, when ``judged`` metrics are judged.

        >>> round(Band(0.0, 1.0, 5).half_width(), 3), round(Band(0.0, 1.0, 5, pairs=True).half_width(), 3)
        (3.041, 4.055)
        """
        return quantile(self.count - 1, judged) * self.sd * self._scale(seeds)

    def limits(self, seeds: int = 1, judged: int = 1) -> tuple[float, float]:
        """Return the lower and the upper end of the band for the mean of ``seeds`` models."""
        half = self.half_width(seeds, judged)
        return self.mean - half, self.mean + half

    def holds(self, values: Sequence[float], judged: int = 1, slack: float = 1e-12) -> bool:
        """Return whether the mean of a row's values, one a seed, lies inside.

        Args:
            values: one a seed, at least one.
            judged: how many metrics are judged together.
            slack: how far outside still counts as inside: rounding, or the resolution of the metric.
        """
        return abs(fmean(values) - self.mean) <= self.half_width(len(values), judged) + slack

    def smallest_shift(self, seeds: int = 1, judged: int = 1) -> float:
        """Return the smallest shift of a model's mean that lies outside in 80 of 100 cases, in the metric's unit.

        The test statistic of a model that is shifted by D has a non-central t distribution, whose parameter is
        D / (d sqrt(1/s + 1/k)) with d taken for the true standard deviation, or D / (c d S) of pairs.
        """
        return _noticed(self.count - 1, judged) * self.sd * self._scale(seeds)

    def _scale(self, seeds: int) -> float:
        """Return the standard error of v - b in units of ``sd``."""
        k, own = self.count, 1 / seeds + 1 / self.count
        if not self.pairs:
            return math.sqrt(own)
        of_pairs = (k - 2) * (k - 1 + 2 * seeds) / (seeds * k * (k - 1))
        return (k - 1) / (k - 2) * math.sqrt(max(own, of_pairs))


def band_of(values: Sequence[float | None], least: int = LEAST, pairs: bool = False) -> Band | None:
    """Return the band of the values that exist; None where they are fewer than ``least``, which is at least 2.

    Args:
        values: one a retrained model.
        least: the fewest of them.
        pairs: whether they are means over pairs of models.
    """
    known = [value for value in values if value is not None]
    return Band(fmean(known), stdev(known), len(known), pairs) if len(known) >= max(least, 2) else None


def stdev(values: Sequence[float]) -> float:
    """Return the standard deviation of at least two values, exactly 0 where all are equal.

    >>> stdev([0.1, 0.1, 0.1]), round(stdev([1.0, 2.0, 4.0]), 4)
    (0.0, 1.5275)
    """
    return float(np.std(np.asarray(values, dtype=np.float64) - values[0], ddof=1))


def t_interval(values: Sequence[float]) -> tuple[float | None, float | None]:
    """Return the 95% t-interval of a mean; Nones from fewer than two values."""
    if len(values) < 2:
        return None, None
    half = quantile(len(values) - 1, 1) * stdev(values) / math.sqrt(len(values))
    return fmean(values) - half, fmean(values) + half


def joint_false_alarms(judged: int) -> float:
    """Return how often a further retrained model has a metric outside, where the metrics are independent.

    >>> round(joint_false_alarms(10), 4)
    0.0489
    """
    return 1 - (1 - FALSE_ALARMS / judged) ** judged


@lru_cache
def quantile(degrees: int, judged: int) -> float:
    """Return the two-sided quantile of Student's t at level 1 - .05 / judged; cached, for reports take it often."""
    return float(stats.t.ppf(1 - FALSE_ALARMS / (2 * judged), degrees))


@lru_cache
def _noticed(degrees: int, judged: int) -> float:
    """Return the non-centrality at which the statistic lies beyond the quantile, on the shift's side, with ``POWER``.

    The statistic is (z + shift) / u with z normal and u^2 chi-squared over its degrees of freedom: given u, the
    chance of a miss is a normal distribution function, averaged here over 4,000 quantiles of u. That it lies beyond the
    quantile on the other side has a chance below 1e-6, which is left out.
    """
    middles = (np.arange(4000) + 0.5) / 4000
    reach = quantile(degrees, judged) * np.sqrt(stats.chi2.ppf(middles, degrees) / degrees)

    def excess(shift: float) -> float:
        return float(special.ndtr(reach - shift).mean()) - (1 - POWER)

    return float(optimize.brentq(excess, 0.0, 2 * float(reach.max()) + 4))
