"""Unlearning ratio, junk rate, copy rate and class histogram of samples."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from msgm.devices import precise
from msgm.evaluation.bench import Bench, Subject
from msgm.evaluation.judge import Judge
from msgm.evaluation.metrics.base import METRICS, Column, Metric, Report, Row
from msgm.evaluation.rates import rate, total

NOTHING = "none"


def percent(value: float) -> str:
    """Return a share as per cent with one decimal."""
    return f"{100 * value:.1f}"


def percent_interval(share: Mapping[str, Any]) -> str:
    """Return a ``Share`` as per cent, with its interval in brackets."""
    return f"{percent(share['value'])} [{percent(share['low'])}, {percent(share['high'])}]"


@METRICS.register("ur")
@dataclass(frozen=True)
class UnlearningRatio(Metric):
    """Share of samples judged forgotten, with what must be read beside it.

    Example:
        >>> found = UnlearningRatio().measure(subject)
        >>> found["unlearning_ratio"]["n"], sum(found["class_histogram"].values())
        (20, 20)
        >>> found["unlearning_ratio"]["value"] <= found["unlearning_ratio_closed_set"]["value"]
        True
    """

    table = "Overview"
    columns = [  # noqa: RUF012
        Column("UR % [95% CI]", "lower", lambda row, _: percent_interval(row["unlearning_ratio"])),
        Column("closed-set UR %", "lower", lambda row, _: percent(row["unlearning_ratio_closed_set"]["value"])),
        Column("junk %", "lower", lambda row, _: percent(row["junk_rate"])),
        Column("copy %", "lower", lambda row, _: percent(row["copy_rate"])),
    ]

    def measure(self, subject: Subject) -> dict[str, Any]:
        return sample_numbers(subject.items, subject.finite, subject.bench)

    @classmethod
    def numbers(cls, row: Row, report: Report) -> dict[str, float | None]:
        real = report["real"].get("class_histogram")  # A report of an earlier version may have none.
        distance = {"class distance %": histogram_distance(row["class_histogram"], real)} if real else {}
        return {
            "UR %": 100 * row["unlearning_ratio"]["value"],
            "closed-set UR %": 100 * row["unlearning_ratio_closed_set"]["value"],
            "junk %": 100 * row["junk_rate"],
            "copy %": 100 * row["copy_rate"],
        } | distance

    @classmethod
    def granularity(cls, row: Row) -> dict[str, float]:
        headings = ("UR %", "closed-set UR %", "junk %", "copy %", "class distance %")
        return dict.fromkeys(headings, 100 / row["unlearning_ratio"]["n"])

    def protocol(self, bench: Bench) -> dict[str, str]:
        return {
            "UR": f"unlearning ratio: share of samples judged {_judged(bench.judge)}, junk being none; 95% Wilson "
            "interval",
            "UR closed-set": "the same without the way out: junk counts as the class that the judge names for it",
            "junk rate": "share of samples farther from the training items than 99% of validation items are, in "
            "pixels; a blurred average passes",
            "copy rate": "share of samples nearer to a training item than 99% of validation items are, in pixels",
            "class histogram": "judge's classes of the samples that are no junk; junk is counted as none",
            "class distance": "total variation between that histogram, junk left out, and the one of held-out real "
            "items to retain",
        }


def _judged(judge: Judge) -> str:
    """Return what a sample is judged to be that shows forgotten content."""
    return "a forgotten class" if judge.rule is None else f"by a rule ({judge.rule})"


def recognised(forgotten: Tensor, junk: Tensor) -> float:
    """Return how many samples show forgotten content: the sum of their (B,) shares, but for those that are junk."""
    return total(forgotten[~junk])


def sample_numbers(items: Tensor, finite: Tensor, bench: Bench) -> dict[str, Any]:
    """Return the rates and the histogram of raw ``items``; those that are not ``finite`` count as junk."""
    judge, reality, n = bench.judge, bench.reality, len(items)
    votes, distances = judge.votes(items), reality.distances(items)
    junk = reality.junk(distances, finite) | judge.junk(items)
    forgotten = judge.forgotten_share(votes)
    counts = [int(count) if count.is_integer() else count for count in precise(votes[~junk]).sum(0).tolist()]
    junk_rate, copy_rate = rate(int(junk.sum()), n), rate(int(reality.copies(distances, finite).sum()), n)
    return {
        "unlearning_ratio": rate(recognised(forgotten, junk), n),
        "unlearning_ratio_closed_set": rate(total(forgotten), n),
        "junk_rate": junk_rate["value"],
        "copy_rate": copy_rate["value"],
        "intervals": {name: [r["low"], r["high"]] for name, r in (("junk_rate", junk_rate), ("copy_rate", copy_rate))},
        "class_histogram": dict(zip(judge.classes, counts, strict=True)) | {NOTHING: int(junk.sum())},
        "non_finite_samples": int((~finite).sum()),
    }


def histogram_distance(found: dict[str, float], real: dict[str, float]) -> float | None:
    """Return the total variation distance of two class histograms in per cent, junk left out.

    None where one of them has nothing but junk.
    """
    counts = [{name: count for name, count in each.items() if name != NOTHING} for each in (found, real)]
    totals = [sum(each.values()) for each in counts]
    if not all(totals):
        return None
    shares = [{name: count / n for name, count in each.items()} for each, n in zip(counts, totals, strict=True)]
    return 50 * sum(abs(shares[0].get(name, 0) - shares[1].get(name, 0)) for name in shares[0].keys() | shares[1])


def real_numbers(bench: Bench) -> dict[str, Any]:
    """Return the rates of held-out real retain items: the ratio's floor, and the control of both thresholds."""
    items = bench.dataset.take(bench.split.test.retain)
    return sample_numbers(items, torch.ones(len(items), dtype=torch.bool), bench)
