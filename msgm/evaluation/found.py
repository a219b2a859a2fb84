"""What a method found in its preparation, in words for cards and reports."""

from collections.abc import Mapping
from typing import Any

from msgm.evaluation.metrics.base import Row
from msgm.evaluation.metrics.unlearning_ratio import percent


def found_text(row: Row) -> str:
    """Return what a row's method found in preparation; empty where it found nothing, or an earlier version made it.

    >>> found_text({"found": {"bandwidth": 0.25341}})
    'bandwidth 0.2534'
    >>> found_text({"found": {"kept_share": 0.5, "kept_shares": {"a.weight": 0.25, "b.weight": 0.75}}})
    '50.0% of the weights may change, from 25.0% of a.weight to 75.0% of b.weight'
    """
    found = dict(row.get("found") or {})
    share, shares = found.pop("kept_share", None), found.pop("kept_shares", {})
    parts = [f"{name.replace('_', ' ')} {value:.4g}" for name, value in found.items()]
    if share is not None:
        parts.append(f"{percent(share)}% of the weights may change{_range(shares)}")
    return ", ".join(parts) + (" (first seed)" if parts and len(row.get("per_seed", [])) > 1 else "")


def _range(shares: Mapping[str, Any]) -> str:
    if not shares:
        return ""
    least, most = min(shares, key=shares.__getitem__), max(shares, key=shares.__getitem__)
    return f", from {percent(shares[least])}% of {least} to {percent(shares[most])}% of {most}"
