"""Rates with their intervals."""

import math
from typing import TypedDict

from torch import Tensor

from msgm.devices import precise
from msgm.shapes import Positive


class Share(TypedDict):
    """A proportion ``value`` of ``n``, with its 95% Wilson interval ``low`` to ``high``."""

    value: float
    low: float
    high: float
    n: Positive


def total(shares: Tensor) -> float:
    """Return the sum of shares, in double precision."""
    return float(precise(shares).sum())


def wilson(hits: float, n: int, z: float = 1.959963984540054) -> tuple[float, float]:
    """Return the Wilson score interval of a proportion; by default at 95%.

    Example:
        >>> [round(bound, 3) for bound in wilson(5, 100)]
        [0.022, 0.112]
    """
    if n < 1:
        raise ValueError("an interval needs at least one observation")
    share, spread = hits / n, z**2 / n
    centre = (share + spread / 2) / (1 + spread)
    half = z / (1 + spread) * math.sqrt(share * (1 - share) / n + spread / (4 * n))
    return 0.0 if hits == 0 else centre - half, 1.0 if hits == n else centre + half


def rate(hits: float, n: int) -> Share:
    """Return a proportion as ``value``, 95% Wilson interval ``low`` to ``high``, and ``n``."""
    low, high = wilson(hits, n)
    return {"value": hits / n, "low": low, "high": high, "n": n}
