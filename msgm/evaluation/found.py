"""What a method found in its preparation, in words for cards and reports."""

from collections.abc import Sequence
from typing import Any

from msgm.evaluation.metrics.base import Row
from msgm.evaluation.metrics.unlearning_ratio import percent


def found_text(row: Row) -> str:
    """Return what a row's method found in preparation, at all its seeds; empty where it found nothing.

    A row of an earlier version holds what was found at the first of several seeds alone, and the text says so.

    >>> found_text({"found": {"bandwidth": 0.25341}})
    'bandwidth 0.2534'
    >>> found_text({"per_seed": [{"found": {"bandwidth": 0.27}}, {"found": {"bandwidth": 0.25}}]})
    'bandwidth 0.25 to 0.27'
    >>> found_text({"found": {"kept_share": 0.5, "kept_shares": {"a.weight": 0.25, "b.weight": 0.75}}})
    '50.0% of the weights may change, from 25.0% of a.weight to 75.0% of b.weight'
    """
    seeds = row.get("per_seed", [])
    found = [dict(seed["found"]) for seed in seeds if seed.get("found")]
    first_alone = not found and len(seeds) > 1
    found = found or [dict(row.get("found") or {})]
    shares = [(name, share) for one in found for name, share in one.pop("kept_shares", {}).items()]
    kept = [one.pop("kept_share") for one in found if "kept_share" in one]
    by_name: dict[str, list[str]] = {}
    for name, value in (item for one in found for item in one.items()):
        by_name.setdefault(name, []).append(f"{value:.4g}")
    parts = [f"{name.replace('_', ' ')} {_span(values)}" for name, values in by_name.items()]
    if kept:
        parts.append(f"{_span([percent(share) for share in kept])}% of the weights may change{_extremes(shares)}")
    return ", ".join(parts) + (" (first seed)" if parts and first_alone else "")


def _span(numbers: Sequence[str]) -> str:
    """Return a number, or the least and the greatest of several that differ."""
    least, most = min(numbers, key=float), max(numbers, key=float)
    return least if least == most else f"{least} to {most}"


def _extremes(shares: Sequence[tuple[str, Any]]) -> str:
    if not shares:
        return ""
    (least, low), (most, high) = (of(shares, key=lambda named: named[1]) for of in (min, max))
    return f", from {percent(low)}% of {least} to {percent(high)}% of {most}"
