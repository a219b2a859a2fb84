"""How well a score tells members from non-members: area under the curve, and true positives at 1% false positives."""

import math
from typing import Any

import numpy as np
from numpy.typing import NDArray

from msgm.evaluation.rates import rate
from msgm.strata import tpr_at, weight_below

QUANTILE = 1.959963984540054
FALSE_POSITIVES = 0.01
TAILS = ("true_positives", "true_positives_low")
"""Shares of the members found at 1% false positives by the lowest scores and by the highest."""


def separation(
    members: NDArray[np.float64], others: NDArray[np.float64], weights: NDArray[np.float64] | None = None
) -> dict[str, Any]:
    """Return how well scores, which are lower for members, separate (m,) members from (n,) weighted non-members.

    Its numbers are null where there are no items, or where the scores of some (``non_finite``) are not finite.
    """
    counts = {"members": len(members), "others": len(others)}
    bad = int((~np.isfinite(members)).sum() + (~np.isfinite(others)).sum())
    if bad or not len(members):
        return {"auc": None, **dict.fromkeys(TAILS), "non_finite": bad, **counts}
    tails = {
        key: true_positives(sign * members, sign * others, weights) for key, sign in zip(TAILS, (-1, 1), strict=True)
    }
    return {"auc": auc(-members, -others, weights), **tails, **counts}


def auc(
    positive: NDArray[np.float64], negative: NDArray[np.float64], weights: NDArray[np.float64] | None = None
) -> dict[str, Any]:
    """Return the area under the ROC curve of scores, ties counting half, with a 95% interval.

    The interval is DeLong's (Biometrics 44, 1988), of weighted means where the (n,) negatives have weights, and cut to
    [0, 1]; it has no width where the groups do not overlap.
    """
    m, n = len(positive), len(negative)
    shares = np.full(n, 1 / n) if weights is None else weights / weights.sum()
    above = _below(positive, negative, shares)
    below = 1 - _below(negative, positive, np.full(m, 1 / m))
    value = float(above.mean())
    variance = float(np.var(above, ddof=1)) / m if m > 1 else 0.0
    variance += n / (n - 1) * float(((shares * (below - value)) ** 2).sum()) if n > 1 else 0.0
    half = QUANTILE * math.sqrt(variance)
    return {"value": value, "low": max(0.0, value - half), "high": min(1.0, value + half), "n": [m, n]}


def _below(
    values: NDArray[np.float64], others: NDArray[np.float64], shares: NDArray[np.float64]
) -> NDArray[np.float64]:
    """Return the share of the others below each of ``values``, those that are equal counting half."""
    return (weight_below(values, others, shares) + weight_below(values, others, shares, "right")) / 2


def true_positives(
    positive: NDArray[np.float64], negative: NDArray[np.float64], weights: NDArray[np.float64] | None = None
) -> dict[str, Any]:
    """Return the share of positives above all but 1% of the negatives' weight, as ``rates.rate``.

    Below 100 negatives of equal weights no false positive at all is allowed, ties aside.
    """
    found = tpr_at(positive, negative, FALSE_POSITIVES, weights)
    return dict(rate((found or 0.0) * len(positive), len(positive)))
