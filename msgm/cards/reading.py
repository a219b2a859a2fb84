"""Reading a model's numbers against the band of retrained models, for the rows of a report.

A row holds ``per_seed`` (of ``seed`` and ``metrics``), ``retrain_band`` (one tree a retrained model, alike) and
``metrics`` (name to an entry with ``value``, ``band``, ``section`` and ``better``). What is the same for classifiers
and recommenders stands here; which numbers count for which claim is theirs.
"""

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from msgm.cards.band import Band, Numbers, band_of
from msgm.cards.claims import NOT_TESTED, ORACLES, PASS, Check, Control
from msgm.cards.words import WRONG_REFERENCE

Report = dict[str, Any]
Row = dict[str, Any]
Entry = dict[str, Any]

COUNTED = ("forgetting", "privacy")


@dataclass(frozen=True)
class Reading:
    """A model's numbers beside those of retrained models, of one seed."""

    numbers: Numbers
    retrains: Sequence[Numbers]


@dataclass(frozen=True)
class Reader:
    """How the numbers of one kind of model are read.

    Attributes:
        sides: names of numbers, as patterns, and the side of the band on which a model knows the items; the first
            match counts.
        least: the fewest retrained models that make a band; held-out models are read against one less than there are.
        slack: how far outside the band a value may lie and count as inside.
    """

    sides: tuple[tuple[str, str | None], ...]
    least: int = 2
    slack: float = 1e-12

    def leaking_side(self, name: str, better: str) -> str | None:
        """Return the side of the band on which a number gives items away; None if neither does.

        Args:
            name: of the number.
            better: the direction that its metric gives, for numbers that ``sides`` does not name.
        """
        for pattern, side in self.sides:
            if re.search(pattern, name):
                return side
        return {"lower": "above", "higher": "below"}.get(better)

    def leaks(self, side: str | None, value: float, low: float, high: float) -> bool:
        """Return whether a value lies outside [low, high] on a side by more than the slack."""
        return (side == "above" and value > high + self.slack) or (side == "below" and value < low - self.slack)

    def outside(self, row: Row, read: Sequence[Reading], names: Sequence[str]) -> tuple[int, int]:
        """Return how many numbers lie outside on the leaking side, of how many that have one, seeds pooled."""
        sides = {name: self.leaking_side(name, row["metrics"][name]["better"]) for name in names}
        found = [
            self.leaks(sides[name], value, band.low, band.high)
            for reading in read
            for name, value, band in self._banded(reading, names)
            if sides[name]
        ]
        return sum(found), len(found)

    def all_inside(self, row: Row, names: Sequence[str], untested: str) -> Check:
        """Return whether all numbers lie inside the band in every seed; ``untested`` says why none can be read."""
        name = "all numbers of forgetting and privacy inside the band in every seed"
        results = [self._inside(reading, names) for reading in readings(row)]
        out, total = sum(total - held for held, total in results), sum(total for _, total in results)
        if not total:
            return Check(name, None, f"{NOT_TESTED}: {untested}")
        return Check(name, out == 0, f"{out} of {total} outside; {self.strict_passes(row, names)}")

    def strict_passes(self, row: Row, names: Sequence[str]) -> str:
        """Return in words how many held-out retrained models have all numbers inside, which is the rule's power."""
        results = [(held, total) for held, total in (self._inside(r, names) for r in held_out(row)) if total]
        passed = sum(held == total for held, total in results)
        return f"of the retrained models themselves, held out, {passed} of {len(results)} pass this rule in their seed"

    def _inside(self, reading: Reading, names: Sequence[str]) -> tuple[int, int]:
        """Return how many numbers lie inside the band and how many have one."""
        found = [band.holds(value, self.slack) for _, value, band in self._banded(reading, names)]
        return sum(found), len(found)

    def _banded(self, reading: Reading, names: Sequence[str]) -> list[tuple[str, float, Band]]:
        """Return the numbers that have a value and a band, with both."""
        return [
            (name, value, band)
            for name in names
            if (value := reading.numbers.get(name)) is not None
            and (band := band_of([tree.get(name) for tree in reading.retrains], self.least)) is not None
        ]


def readings(row: Row) -> list[Reading]:
    """Return the row's numbers, one reading a seed."""
    return [Reading(part["metrics"], _retrained(row, part["seed"])) for part in row.get("per_seed", [])]


def held_out(row: Row) -> list[Reading]:
    """Return each retrained model of each seed beside the others of its seed."""
    found = []
    for part in row.get("per_seed", []):
        models = _retrained(row, part["seed"])
        found += [Reading(model, models[:k] + models[k + 1 :]) for k, model in enumerate(models)]
    return found


def _retrained(row: Row, seed: int) -> list[Numbers]:
    return [model["metrics"] for model in row.get("retrain_band", []) if model["seed"] == seed]


def oracles(row: Row) -> int:
    """Return the number of retrained models, of the seed that has fewest."""
    return min((len(reading.retrains) for reading in readings(row)), default=0)


def asked(report: Report, row: Row) -> dict[str, Any]:
    """Return the row's request."""
    found: dict[str, Any] = report["requests"][row["request"]]
    return found


def observed(report: Report, row: Row) -> bool:
    """Return whether the request is about what was seen in training, which retraining without it answers exactly."""
    return bool(asked(report, row)["target"] == "observed")


def differing(row: Row, original: Row | None) -> list[str]:
    """Return the numbers of forgetting and privacy that differ between the original and the retrained models."""
    trees = [model["metrics"] for model in row.get("retrain_band", [])]
    trees += [part["metrics"] for part in original.get("per_seed", [])] if original is not None else []
    names = [name for name, entry in row["metrics"].items() if entry["section"] in COUNTED]
    return [name for name in names if len({tree.get(name) for tree in trees} - {None}) > 1]


def enough(row: Row) -> Check:
    """Return whether there are retrained models enough for a band."""
    count = oracles(row)
    return Check(f"at least {ORACLES} retrained models", True if count >= ORACLES else None, f"{count} a seed")


def own_audit(negative: Control) -> Check:
    """Return whether the held-out retrained models pass, by the control that tests it."""
    holds = None if negative.verdict == NOT_TESTED else negative.verdict == PASS
    return Check("held-out retrained models pass their own audit", holds, negative.evidence)


def by_reference(checks: Sequence[Check], right: bool) -> list[Check]:
    """Return conditions as far as retrained models are the right reference.

    For a request that these do not define, being no worse than they are leaves a condition unknown.
    """
    return [check if right or check.holds is False else _by_wrong(check) for check in checks]


def _by_wrong(check: Check) -> Check:
    return Check(check.name, None, f"{check.evidence} ({WRONG_REFERENCE})", WRONG_REFERENCE)


def compared(
    row: Row,
    name: str,
    words: str,
    right: Callable[[float, dict[str, float]], bool],
    evidence: Callable[[Entry], str],
) -> Check:
    """Return whether a number stands to its band as it should.

    Args:
        row: of the report.
        name: of the number.
        words: how it should stand, in words.
        right: whether a value and its band do.
        evidence: the number's entry as text.
    """
    entry = row["metrics"].get(name) or {}
    label = f"{name.replace('_', ' ')} {words}"
    if entry.get("value") is None or entry.get("band") is None:
        return Check(label, None, f"{NOT_TESTED}: {name}, or its band")
    return Check(label, right(entry["value"], entry["band"]), evidence(entry))
