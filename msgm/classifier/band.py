"""Measuring classifiers against the band of retrained models (``msgm.cards.band``), which wants ``ORACLES`` of them."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import replace
from statistics import fmean
from typing import Any

from msgm.cards import band as cards
from msgm.cards.band import Numbers, band_of
from msgm.cards.claims import ORACLES
from msgm.classifier.metrics.base import Case, Metric


def measure(case: Case, metrics: Sequence[Metric]) -> dict[str, float | None]:
    """Return all numbers of one model; metrics that need the models are left out where only logits are at hand.

    A value that is not finite, as a metric of the user's may give, becomes None: it is no number to compare.
    """
    usable = [metric for metric in metrics if case.live is not None or not metric.live]
    found = {name: value for metric in usable for name, value in metric.measure(case).items()}
    return {name: value if value is not None and math.isfinite(value) else None for name, value in found.items()}


def measure_retrains(cases: Sequence[Case], metrics: Sequence[Metric]) -> list[dict[str, float | None]]:
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
    """Return ``msgm.cards.band.summarise`` with bands of ``ORACLES`` values at least, and one more entry a number.

    ``distance`` is how far the value lies from the band's mean, in standard deviations, averaged over seeds; None where
    no seed has a band or one has a standard deviation of zero.
    """
    found = cards.summarise(values, bands, ORACLES)
    return {name: tree | {"distance": _distance(name, values, bands)} for name, tree in found.items()}


def interval(number: Mapping[str, Any], of: Mapping[str, Any]) -> tuple[float, float]:
    """Return ``low`` and ``high`` of a number or of its band, as they are shown: within the number's bounds."""
    least, greatest = number.get("bounds") or (-math.inf, math.inf)
    return max(of["low"], least), min(of["high"], greatest)


def _distance(name: str, values: Sequence[Numbers], bands: Sequence[Sequence[Numbers]]) -> float | None:
    pairs = [
        (value, made)
        for tree, band in zip(values, bands, strict=True)
        if (value := tree.get(name)) is not None and (made := band_of([o.get(name) for o in band], ORACLES)) is not None
    ]
    if not pairs or any(made.sd == 0 for _, made in pairs):
        return None
    return fmean((value - made.mean) / made.sd for value, made in pairs)
