"""A row's numbers over its seeds, and whether they lie inside the band of models retrained without the request.

The band and its statistics are those of ``msgm.study.band``. All headings that every retrained model has a number for
are judged together, but for the attacks on changed copies of a model, which are matters of C2. A number that counts
samples moves in steps of one sample, so that it is inside, too, where it lies at most one step beyond the band: else
five retrained models without a single copy would leave no room for one.
"""

import math
from dataclasses import dataclass
from statistics import fmean
from typing import Any

from msgm.evaluation.metrics.base import METRICS, Report, Row
from msgm.study.band import LEAST, Band, band_of, joint_false_alarms, t_interval

PLAIN = "unseen"
"""The row of plain fine-tuning, which a method has to differ from."""
EFFECTS = ("UR %", "NLL forget")
"""The numbers in which a method that does anything differs from plain fine-tuning."""
ON_COPIES = ("relearning", "resurgence", "weights", "quantisation")
"""Attacks that change a copy of the model: what they show is judged by C2 alone."""


def numbers(row: Row, report: Report) -> dict[str, float | None]:
    """Return by heading the numbers that a model was measured by; None where one could not be taken."""
    return {heading: value for name in row["measured"] for heading, value in _of_metric(name, row, report).items()}


def _of_metric(name: str, row: Row, report: Report) -> dict[str, float | None]:
    return METRICS.entries[name].numbers(row, report) if name in METRICS.entries else {}


def headings_of(name: str, row: Row, report: Report) -> list[str]:
    """Return the headings of a metric's numbers, where the row was measured by it."""
    return list(_of_metric(name, row, report)) if name in row["measured"] else []


def over_seeds(rows: list[Row], report: Report) -> list[Row]:
    """Return one row a name: what the first of its seeds has, and under ``per_seed`` every seed's numbers.

    Args:
        rows: measured models, one a name and ``seed``.
        report: what numbers are read against.
    """
    found: dict[str, list[Row]] = {}
    for row in rows:
        found.setdefault(row["name"], []).append(row)
    return [of_name[0] | {"per_seed": [_of_seed(row, report) for row in of_name]} for of_name in found.values()]


def _of_seed(row: Row, report: Report) -> dict[str, Any]:
    facts = {key: row.get(key) for key in ("seed", "seconds", "cached", "folder", "model")}
    return facts | {"numbers": numbers(row, report)}


def per_seed(row: Row, report: Report) -> list[dict[str, float | None]]:
    """Return a row's numbers, one tree a seed; a report of an earlier version has one seed."""
    known = row.get("per_seed")
    return [seed["numbers"] for seed in known] if known else [numbers(row, report)]


def retrained(report: Report) -> list[dict[str, float | None]]:
    """Return the numbers of the retrained models that make the band."""
    return [per_seed(row, report)[0] for row in report.get("retrains", [])]


def bands(report: Report) -> dict[str, Band]:
    """Return by heading the bands that rows are judged by; empty where fewer than five models were retrained."""
    return _judged(_bands(retrained(report), LEAST), report)


def on_copies(report: Report) -> list[str]:
    """Return the headings of the attacks that change a copy of the model."""
    rows = [*report["rows"], *report.get("retrains", [])]
    found = (headings_of(name, row, report) for name in ON_COPIES for row in rows)
    return list(dict.fromkeys(heading for of_row in found for heading in of_row))


def _judged(known: dict[str, Band], report: Report) -> dict[str, Band]:
    apart = on_copies(report)
    return {heading: band for heading, band in known.items() if heading not in apart}


def _bands(models: list[dict[str, float | None]], least: int) -> dict[str, Band]:
    if not models:
        return {}
    shared = [heading for heading in models[0] if all(model.get(heading) is not None for model in models)]
    found = {heading: band_of([model[heading] for model in models], least) for heading in shared}
    return {heading: band for heading, band in found.items() if band is not None}


def written(heading: str, value: float) -> str:
    """Return a number as text: per cent with one decimal, others with two.

    >>> written("junk %", -0.04), written("NLL retain", 2.345)
    ('0.0', '2.35')
    """
    return f"{value:z.1f}" if "%" in heading else f"{value:z.2f}"


@dataclass(frozen=True)
class Standing:
    """Where a row's mean over seeds lies.

    Attributes:
        heading: of the number.
        value: the mean over seeds; None where it could not be taken at every seed.
        low: lower end of its 95% t-interval over seeds; None from one seed.
        high: upper end.
        seeds: how many there are.
        band: of the retrained models; None where there are too few.
        judged: how many numbers are judged together.
        step: the smallest amount by which the number can differ, 0 where it is continuous.
    """

    heading: str
    value: float | None
    low: float | None
    high: float | None
    seeds: int
    band: Band | None
    judged: int
    step: float

    @property
    def limits(self) -> tuple[float, float] | None:
        """The ends of the band for a mean of as many seeds, a step of the number added at either side."""
        if self.band is None:
            return None
        low, high = self.band.limits(self.seeds, self.judged)
        return low - self.step, high + self.step

    @property
    def shown_limits(self) -> tuple[float, float] | None:
        """The limits as they are shown: shares end at 0 and at 100%."""
        if self.limits is None:
            return None
        least, most = (0.0, 100.0) if "%" in self.heading else (-math.inf, math.inf)
        low, high = self.limits
        return max(low, least), min(high, most)

    def ends(self) -> str:
        """Return the limits as text."""
        return " to ".join(written(self.heading, end) for end in self.shown_limits or ())

    @property
    def side(self) -> str | None:
        """``inside``, ``above`` or ``below`` the band, ``no value`` where none could be taken; None without a band."""
        if self.limits is None:
            return None
        if self.value is None:
            return "no value"
        low, high = self.limits
        return "below" if self.value < low - 1e-12 else "above" if self.value > high + 1e-12 else "inside"

    @property
    def smallest_shift(self) -> float | None:
        """The smallest shift of the mean that would have been found outside in 80 of 100 cases."""
        return None if self.band is None else self.band.smallest_shift(self.seeds, self.judged) + self.step

    def text(self) -> str:
        """Return the value beside its band, as a card says it.

        >>> Standing("UR %", 2.5, None, None, 1, Band(2.0, 0.5, 5), 1, 0.0).text()
        '2.5 beside 0.5 to 3.5 of 5 retrained models; a shift of 2.1 would have been noticed'
        """
        value = "no value" if self.value is None else written(self.heading, self.value)
        value += f" over {self.seeds} seeds" if self.seeds > 1 else ""
        if self.limits is None or self.band is None or self.smallest_shift is None:
            return value
        shift = f"a shift of {written(self.heading, self.smallest_shift)} would have been noticed"
        return f"{value} beside {self.ends()} of {self.band.count} retrained models; {shift}"

    def tree(self) -> dict[str, Any]:
        """Return it as a report holds it."""
        low, high = self.limits or (None, None)
        band = self.band and {"mean": self.band.mean, "sd": self.band.sd, "count": self.band.count}
        return {
            "value": self.value,
            "low": self.low,
            "high": self.high,
            "seeds": self.seeds,
            "band": band and band | {"low": low, "high": high, "smallest_shift": self.smallest_shift},
            "side": self.side,
        }


def standings(report: Report, row: Row, headings: list[str] | None = None) -> dict[str, Standing]:
    """Return by heading where a row lies.

    Args:
        report: with its retrained models.
        row: of the report, or one of its retrained models.
        headings: what is judged together; None: all numbers of ``bands``.
    """
    known = bands(report) if headings is None else _bands(retrained(report), LEAST)
    judged = [heading for heading in known if headings is None or heading in headings]
    seeds, steps = per_seed(row, report), _steps(row)
    found = {}
    for heading in dict.fromkeys(heading for tree in seeds for heading in tree):
        values = [tree.get(heading) for tree in seeds]
        whole = [value for value in values if value is not None]
        complete = len(whole) == len(values)
        low, high = t_interval(whole) if complete else (None, None)
        band = known.get(heading) if heading in judged else None
        mean = fmean(whole) if complete else None
        step = steps.get(heading, 0.0)
        found[heading] = Standing(heading, mean, low, high, len(values), band, max(len(judged), 1), step)
    return found


def _steps(row: Row) -> dict[str, float]:
    known = [METRICS.entries[name] for name in row["measured"] if name in METRICS.entries]
    return {heading: step for metric in known for heading, step in metric.granularity(row).items()}


def band_facts(report: Report) -> dict[str, Any] | None:
    """Return what a report says of its band; None where fewer than five models were retrained.

    Returns:
        how many models were ``retrained``, the numbers ``judged``, the joint ``false_alarms``, and ``left_out``.
    """
    known = bands(report)
    if not known:
        return None
    models = retrained(report)
    return {
        "retrained": len(models),
        "judged": list(known),
        "false_alarms": joint_false_alarms(len(known)),
        "left_out": left_out(report),
    }


def left_out(report: Report) -> dict[str, list[str]]:
    """Return by name the retrained models that lie outside the band of the others, and by which numbers."""
    rows, models = report.get("retrains", []), retrained(report)
    found = {}
    for number, (row, model) in enumerate(zip(rows, models, strict=True)):
        others = _judged(_bands(models[:number] + models[number + 1 :], 2), report)
        steps = _steps(row)
        out = [
            heading
            for heading, band in others.items()
            if (value := model.get(heading)) is None or not band.holds([value], len(others), steps.get(heading, 1e-12))
        ]
        if out:
            found[row["name"]] = out
    return found


def no_effect(report: Report, row: Row) -> bool:
    """Return whether a row differs from plain fine-tuning by less than the spread of seeds.

    Both ran at the same seeds, from the same base models: it does where the 95% t-interval of their differences holds 0
    in the unlearning ratio and in the likelihood of items to forget, whichever were measured. Three seeds are needed.
    """
    plain = next((other for other in report["rows"] if other["name"] == PLAIN), None)
    if plain is None or row["name"] == PLAIN or row["start"] != "finetune":
        return False
    pairs = _paired(row, plain)
    known = [heading for heading in EFFECTS if pairs and all(heading in mine for mine, _ in pairs)]
    intervals = []
    for heading in known:
        values = [(mine[heading], other.get(heading)) for mine, other in pairs]
        if any(None in pair for pair in values):
            return False
        intervals.append(t_interval([mine - other for mine, other in values]))
    # One seed has no interval.
    return len(pairs) >= 3 and bool(intervals) and all((low or 0) <= 0 <= (high or 0) for low, high in intervals)


def _paired(row: Row, other: Row) -> list[tuple[dict[str, Any], dict[str, Any]]]:
    """Return the numbers of two rows at the seeds that both have."""
    others = {seed["seed"]: seed["numbers"] for seed in other.get("per_seed", [])}
    return [(seed["numbers"], others[seed["seed"]]) for seed in row.get("per_seed", []) if seed["seed"] in others]
