"""Rows of a report judged against the models that were retrained without the request: one meaning of *inside*.

A row's value is the mean over its seeds, and it is compared with the band of ``band``: it is *inside* where the mean
of so many seeds lies within the band's limits, corrected for the number m of numbers that are judged together. Tables,
stars, C2 and C3 read this verdict. C1 alone asks each of its numbers by itself, which is stricter (``study.ladder``).

Judged are the row's numbers, of all sections, for which there are enough retrained models, except those that are equal
for the original, the retrained models and the row, and those that repeat another number.

Where all retrained models give one value, the band has no width. A value next to it is *too few to tell* if it is at
most 3 / n away, n the request's size: when none of n items shows an event, the event's rate may still be 3 / n (the
rule of three). A number that counts items moves in ``step``s of one item, and its band is a step wider on either side:
otherwise, after five retrained models without any copy, a single copy would lie outside. A number with ``pairs`` is a
mean over pairs of models, whose band is wider (``band``). Where a row lacks a number that the retrained models have,
because a likelihood diverged, say, its place is *no value*, which is not inside.

A row has ``per_seed`` (of ``seed`` and ``metrics``), ``retrain_band`` (``retrain``, ``metrics`` and ``of``: how many
models each of its numbers is the mean of, 1 but in reports of version 0.2 and before) and ``metrics``. ``judge`` adds

- to each of ``metrics``: ``band`` (``mean``, ``sd``, ``count`` and the limits ``low`` and ``high``), ``place``
  (inside, above, below, too few to tell, no value; None where it is not judged), ``inside``, and ``noticed``: the
  smallest shift that would have been seen in 80 of 100 cases;
- to the row: ``judged``, ``share_of_retraining`` and ``effect``.
"""

import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from statistics import fmean, variance
from typing import Any, TypedDict

from msgm.study.band import FALSE_ALARMS, LEAST, Band, band_of, joint_false_alarms, quantile, t_interval
from msgm.study.parts import Section

Numbers = Mapping[str, float | None]
Report = dict[str, Any]
Row = dict[str, Any]


class BandFacts(TypedDict):
    """A number's band: mean and sd of ``count`` retrained models, and the limits for the mean of a row's seeds."""

    mean: float
    sd: float
    low: float
    high: float
    count: int


class Entry(TypedDict, total=False):
    """A number of a row: mean over ``seeds`` with its 95% t-interval, what it is (``parts.Number``), its judgement."""

    value: float | None
    low: float | None
    high: float | None
    seeds: int
    text: str
    section: Section
    better: str
    bounds: tuple[float, float | None] | None
    step: float
    pairs: bool
    band: BandFacts | None
    place: str | None
    inside: bool | None
    noticed: float | None


SCHEMA = 2
"""Of reports whose rows are judged by this module; those of version 0.2 and before have none."""
INSIDE, ABOVE, BELOW, TOO_FEW, NO_VALUE = "inside", "above", "below", "too few to tell", "no value"
NO_EFFECT = "no effect at this budget"
RULE_OF_THREE = 3
BAND_RULE = (
    "a row's mean of s seeds is inside where it lies within t sd sqrt(1/s + 1/k) of the mean of k retrained models, t "
    "Student's quantile with k - 1 degrees of freedom at 1 - .05/(2m) for the m numbers judged together"
)
COUNTED = ("forgetting", "privacy")
CONTROLS = ("do-nothing", "retrain")
"""Rows that every comparison has: the model before forgetting, and one more that never saw what is forgotten."""


@dataclass(frozen=True, kw_only=True)
class Criteria:
    """How the numbers of one domain are judged.

    Attributes:
        keys: keys of a row whose values its original and its retrained models share.
        sides: pairs of a pattern of number names and the leaking side, the side of the band on which models that still
            know the forgotten items lie; the first match counts, None: neither side.
        repeated: pattern of the numbers that repeat another one and are not judged.
        size: key of a request with the number of items to forget; None where no number is a share of them.
        retraining: key of a row with the seconds of retraining.
        effect: numbers in which a row has to differ from the baseline to have an effect.
        slack: how far outside the band a value may lie and count as inside.
        original: the row of the model before forgetting.
        baseline: the row of fine-tuning on what is retained; a domain may have none.
        retrained_a_seed: whether earlier versions retrained models for each seed, rather than once for all. The k-th
            models of all seeds are then averaged, as a row is over its seeds.
    """

    keys: tuple[str, ...]
    sides: tuple[tuple[str, str | None], ...]
    repeated: str
    size: str | None
    retraining: str
    effect: tuple[str, ...]
    slack: float = 1e-12
    original: str = "do-nothing"
    baseline: str | None = "finetune"
    retrained_a_seed: bool = False

    def row_of(self, report: Report, row: Row, method: str | None) -> Row | None:
        """Return the row of another method that shares the row's keys."""
        same = (r for r in report["rows"] if all(r[key] == row[key] for key in self.keys))
        return next((r for r in same if r["method"] == method), None)

    def original_of(self, report: Report, row: Row) -> Row | None:
        """Return the row of the model before forgetting."""
        return self.row_of(report, row, self.original)

    def leaking_side(self, name: str, better: str) -> str | None:
        """Return the leaking side of a number: the side of the band that shows knowledge of forgotten items, or None.

        Args:
            name: of the number.
            better: the direction that its metric gives, for numbers that ``sides`` does not name.
        """
        for pattern, side in self.sides:
            if re.search(pattern, name):
                return side
        return {"lower": ABOVE, "higher": BELOW}.get(better)

    def unsure(self, report: Report, row: Row, name: str) -> float:
        """Return the distance from a band without width up to which a value is too few to tell (rule of three).

        It is 0 but for numbers of forgetting and privacy that give models away on one side: these are shares, or AUCs,
        of the things to be forgotten. Utility is measured on others, and distances are no shares.
        """
        size, entry = report["requests"][row["request"]].get(self.size), row["metrics"][name]
        of_request = entry["section"] in COUNTED and self.leaking_side(name, entry["better"]) is not None
        return RULE_OF_THREE / size if size and of_request else 0.0

    def judged_names(self, report: Report, row: Row) -> list[str]:
        """Return the numbers of a row that are judged."""
        original = self.original_of(report, row)
        trees = retrained(row) + [
            part["metrics"] for each in (row, original or {}) for part in each.get("per_seed", [])
        ]
        return [
            name
            for name, entry in row["metrics"].items()
            if not re.search(self.repeated, name)
            if band_of([tree.get(name) for tree in retrained(row)]) is not None
            if len({tree.get(name) for tree in trees} - {None}) > 1
        ]


def entry_of(row: Row, name: str) -> Entry | None:
    """Return a number of a row; None where the row has none of this name."""
    found: Entry | None = row["metrics"].get(name)
    return found


def retrained(row: Row) -> list[Numbers]:
    """Return the numbers of the row's retrained models."""
    return [model["metrics"] for model in row.get("retrain_band", [])]


def enough_retrained(row: Row) -> bool:
    """Return whether there are enough retrained models for a band."""
    return len(retrained(row)) >= LEAST


def seeds_of(row: Row, entry: Entry) -> int:
    """Return the number of seeds in the row's mean, relative to the number in a retrained model's value; at least 1."""
    of = max(model.get("of", 1) for model in row["retrain_band"])
    return max(int(entry["seeds"]) // int(of), 1)


def means(values: Sequence[Numbers]) -> dict[str, Entry]:
    """Return each number's mean over seeds, ``value``, its 95% t-interval ``low`` to ``high``, and ``seeds``."""
    found: dict[str, Entry] = {}
    for name in dict.fromkeys(name for tree in values for name in tree):
        known = [float(value) for tree in values if (value := tree.get(name)) is not None]
        low, high = t_interval(known)
        found[name] = {"value": fmean(known) if known else None, "low": low, "high": high, "seeds": len(known)}
    return found


def place_of(value: float, band: Band, seeds: int, judged: int, slack: float, unsure: float = 0.0) -> str:
    """Return where a value lies: inside, above, below, or too few to tell.

    Args:
        value: a mean over seeds.
        band: of the retrained models.
        seeds: how many.
        judged: how many numbers are judged together.
        slack: how far outside still counts as inside.
        unsure: distance from a band without width up to which a value is too few to tell.
    """
    low, high = band.limits(seeds, judged)
    if low - slack <= value <= high + slack:
        return INSIDE
    if not has_width(band) and abs(value - band.mean) <= unsure:
        return TOO_FEW
    return ABOVE if value > band.mean else BELOW


def has_width(band: Band) -> bool:
    """Return whether the retrained models differ by more than rounding."""
    return band.sd > 1e-12


def judge(report: Report, criteria: Criteria) -> Report:
    """Return the report with every row judged; its requests, rows, per-seed numbers and retrained models are there."""
    rows = [_judged(report, row, criteria) for row in report["rows"]]
    return report | {"schema": SCHEMA, "rows": rows}


def upgraded(report: Report, criteria: Criteria) -> Report:
    """Return a report of an earlier version converted to the present format; one of this version unchanged.

    Args:
        report: as ``read_report`` gives it.
        criteria: of its domain.
    """
    if report.get("schema", 1) >= SCHEMA:
        return report
    rows = [row | {"retrain_band": _merged(row, criteria.retrained_a_seed)} for row in report["rows"]]
    return judge(report | {"rows": rows}, criteria)


def _merged(row: Row, a_seed: bool) -> list[Row]:
    """Return an earlier version's retrained models, each with its numbers' means over seeds."""
    seeds = [part["seed"] for part in row["per_seed"]]
    found: dict[int, list[Row]] = {}
    for model in row["retrain_band"]:
        if model["seed"] in seeds:
            found.setdefault(model["retrain"], []).append(model)
    return [
        {
            "retrain": number,
            "of": len(models) if a_seed else 1,
            "metrics": {name: entry["value"] for name, entry in means([m["metrics"] for m in models]).items()},
        }
        for number, models in found.items()
    ]


def _judged(report: Report, row: Row, criteria: Criteria) -> Row:
    names, models = criteria.judged_names(report, row), row.get("retrain_band", [])
    unsure = {name: criteria.unsure(report, row, name) for name in row["metrics"]}
    entries = {
        name: entry | _place(row, name, entry, len(names) if name in names else None, criteria.slack, unsure[name])
        for name, entry in row["metrics"].items()
    }
    out = {model["retrain"]: _outside(row, k, names, criteria.slack, unsure) for k, model in enumerate(models)}
    return row | {
        "metrics": entries,
        "judged": {
            "numbers": len(names),
            "retrains": len(retrained(row)),
            "false_alarms": joint_false_alarms(len(names)) if names else None,
            "held_out_inside": sum(not found for found in out.values()) if names else None,
            "held_out_outside": {str(number): found for number, found in out.items() if found},
        },
        "share_of_retraining": share_of_retraining(report, row, criteria),
        "effect": _effect(row, criteria.row_of(report, row, criteria.baseline), criteria),
    }


def _place(row: Row, name: str, entry: Entry, judged: int | None, slack: float, unsure: float) -> Entry:
    """Return band, place, inside and noticed of a number; ``judged``: numbers judged together, None if it is not."""
    band = band_of([tree.get(name) for tree in retrained(row)], pairs=entry.get("pairs", False))
    if band is None:
        return {"band": None, "place": None, "inside": None, "noticed": None}
    seeds, together, wide = seeds_of(row, entry), judged or 1, max(slack, entry.get("step", 0.0))
    low, high = band.limits(seeds, together)
    place = None
    if judged is not None:
        value = entry["value"]
        place = NO_VALUE if value is None else place_of(value, band, seeds, judged, wide, unsure)
    return {
        "band": {"mean": band.mean, "sd": band.sd, "low": low - wide, "high": high + wide, "count": band.count},
        "place": place,
        "inside": None if place in (None, TOO_FEW) else place == INSIDE,
        "noticed": band.smallest_shift(seeds, together) + wide if judged and has_width(band) else None,
    }


def _outside(row: Row, number: int, names: Sequence[str], slack: float, unsure: Mapping[str, float]) -> list[str]:
    """Return the judged numbers of one retrained model that lie outside the band of the others.

    Means over pairs need no wider band here, for all of these models share their pairs alike (``band``).
    """
    models = retrained(row)
    others = models[:number] + models[number + 1 :]
    found = []
    for name in names:
        value, band = models[number].get(name), band_of([tree.get(name) for tree in others], LEAST - 1)
        if value is None or band is None:
            continue
        wide = max(slack, row["metrics"][name].get("step", 0.0))
        if place_of(value, band, 1, len(names), wide, unsure[name]) in (ABOVE, BELOW):
            found.append(name)
    return found


def share_of_retraining(report: Report, row: Row, criteria: Criteria) -> float | None:
    """Return a row's seconds as a share of retraining's; of a stream that is answered one by one, per request."""
    if not row.get(criteria.retraining) or row["seconds"] is None:
        return None
    one_by_one = (row.get("facts") or {}).get("answered") == "one by one"
    answers = report["requests"][row["request"]].get("requests", 1) if one_by_one else 1
    return float(row["seconds"] / answers / row[criteria.retraining])


def inside_share(row: Row) -> float | None:
    """Return the share of a row's judged numbers that are inside; 1 is like a retrained model."""
    judged = [entry["inside"] for entry in row["metrics"].values() if entry["inside"] is not None]
    return sum(judged) / len(judged) if judged else None


def _effect(row: Row, baseline: Row | None, criteria: Criteria) -> str | None:
    """Return ``NO_EFFECT`` for a row whose difference from fine-tuning is within the spread of seeds; else None."""
    if baseline is None or row["method"] in (criteria.original, criteria.baseline, "retrain"):
        return None
    pairs = [pair for name in criteria.effect if all(pair := (_values(row, name), _values(baseline, name)))]
    if not pairs or any(len(values) < 2 for pair in pairs for values in pair):
        return None
    if any(len(mine) < len(row["per_seed"]) for mine, _ in pairs):  # it made a number impossible to take: an effect
        return None
    return NO_EFFECT if all(_alike(mine, other, len(pairs)) for mine, other in pairs) else None


def _values(row: Row, name: str) -> list[float]:
    return [value for part in row["per_seed"] if (value := part["metrics"].get(name)) is not None]


def _alike(mine: Sequence[float], other: Sequence[float], compared: int) -> bool:
    """Return whether two means differ by no more than the pooled spread of seeds lets them, at 1 - .05 / compared."""
    a, b = len(mine), len(other)
    pooled = ((a - 1) * variance(mine) + (b - 1) * variance(other)) / (a + b - 2)
    reach = quantile(a + b - 2, compared)
    return bool(abs(fmean(mine) - fmean(other)) <= reach * math.sqrt(pooled * (1 / a + 1 / b)) + 1e-12)


def shown_limits(number: Mapping[str, Any], of: Mapping[str, Any]) -> tuple[float, float]:
    """Return ``low`` and ``high`` of a number or of its band, as they are shown: within the number's bounds."""
    least, greatest = number.get("bounds") or (-math.inf, None)
    return max(of["low"], least), of["high"] if greatest is None else min(of["high"], greatest)


def half_interval(entry: Entry) -> float | None:
    """Return half of the 95% t-interval of a number's mean over seeds; None of one seed."""
    low, high = entry["low"], entry["high"]
    return None if low is None or high is None else (high - low) / 2


def beside_band(entry: Entry) -> str:
    """Return a value beside its band as text; the value alone where there is no band."""
    value, band = NO_VALUE if entry["value"] is None else f"{entry['value']:z.3g}", entry["band"]
    if band is None:
        return value
    low, high = shown_limits(entry, band)
    return f"{value}; retrained models {band['mean']:z.3g}, band [{low:z.3g}, {high:z.3g}]"


def judged_note(row: Row, columns: Mapping[str, tuple[str, int]]) -> str:
    """Return a note on a row's judgement: how many numbers were judged, its error rate, smallest shifts noticed.

    Args:
        row: the judged row.
        columns: the numbers to name, with heading and scale.
    """
    found = row["judged"]
    if found["retrains"] < LEAST:
        return f"{found['retrains']} of at least {LEAST} retrained models: numbers stand here without verdicts."
    if not found["numbers"]:
        return "No number differs between the original, the retrained models and the row: nothing is judged."
    shifts = [
        f"{heading} {entry['noticed'] * scale:.2g}"
        for name, (heading, scale) in columns.items()
        if (entry := row["metrics"].get(name, {})).get("noticed") is not None
    ]
    out = "; ".join(f"{number}: {', '.join(names)}" for number, names in found.get("held_out_outside", {}).items())
    noticed = f" Smallest shift noticed in 80 of 100 cases: {', '.join(shifts)}." if shifts else ""
    return (
        f"{found['numbers']} numbers are judged together against {found['retrains']} retrained models: a further one "
        f"has some number outside in at most {FALSE_ALARMS:.0%} of cases ({found['false_alarms']:.1%} if numbers were "
        f"independent); of these models, each against the others, {found['held_out_inside']} of {found['retrains']} "
        f"have all inside{f' (outside: {out})' if out else ''}.{noticed}"
    )
