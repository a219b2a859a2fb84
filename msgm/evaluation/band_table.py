"""The table of rows, averaged over seeds, beside the models that were retrained without the request."""

from collections.abc import Sequence
from statistics import fmean

from msgm.evaluation.metrics.base import NOT_MEASURED, Report, Row
from msgm.study.judging import (
    INSIDE,
    NO_EFFECT,
    Entry,
    enough_retrained,
    half_interval,
    judged_note,
    retrained,
    shown_limits,
)

EXPLAINED = (
    f"{NO_EFFECT}: from plain fine-tuning (unseen) it differs by less than the spread of seeds, in the unlearning "
    "ratio and the likelihood of items to forget."
)
Lines = tuple[str, list[str], list[list[str]], list[str]]


def band_table(report: Report) -> Lines | None:
    """Return title, headings, lines and notes; None for one seed without retrained models of their own."""
    seeds, rows, models = report["seeds"], report["rows"], report["retrains"]
    if (len(seeds) < 2 and not models) or not rows:
        return None
    title = f"Over {_counted(len(seeds), 'seed')}" + (f", beside {len(models)} retrained models" if models else "")
    headings = list(dict.fromkeys(heading for row in rows for heading in row["metrics"]))
    lines = [_line(row, headings) for row in rows] + _references(report, headings)
    notes = ["Mean over seeds ± half of its 95% t-interval."] if len(seeds) > 1 else []
    notes += [judged_note(_fullest(rows), {})] if models else []
    notes += [EXPLAINED] if any(row["effect"] for row in rows) else []
    return title, ["row", "seeds", "seconds", *headings, "verdict"], lines, notes


def without_band(report: Report, row: str = "") -> list[str]:
    """Return a sentence for each comparison that has retrained models which this report of its rows is without.

    >>> without_band({"comparisons": {"redirect": "../digits"}})[0][:50]
    'No band: how redirect lies to the retrained models'

    Args:
        report: of models that were evaluated by themselves.
        row: the one row to speak of; by default all.
    """
    by_place: dict[str, list[str]] = {}
    for name, place in report.get("comparisons", {}).items():
        if name == row or not row:
            by_place.setdefault(place, []).append(name)
    return [
        f"No band: how {', '.join(names)} lies to the retrained models of {place} is told by the report and cards of "
        "that comparison, which measures all of them alike, and not here."
        for place, names in by_place.items()
    ]


def written(heading: str, value: float) -> str:
    """Return a number as text: per cent with one decimal, others with two.

    >>> written("junk %", -0.04), written("NLL retain", 2.345)
    ('0.0', '2.35')
    """
    return f"{value:z.1f}" if "%" in heading else f"{value:z.2f}"


def _line(row: Row, headings: Sequence[str]) -> list[str]:
    seconds = [part["seconds"] for part in row["per_seed"]]
    cells = [_cell(heading, row["metrics"].get(heading)) for heading in headings]
    return [row["name"], str(len(seconds)), f"{fmean(seconds):.0f}", *cells, _verdict(row)]


def _cell(heading: str, entry: Entry | None) -> str:
    if entry is None:
        return NOT_MEASURED
    if entry["value"] is None:
        return "no value"
    text = written(heading, entry["value"])
    half = half_interval(entry)
    if half is not None:
        text += f" ± {written(heading, half)}"
    side = "in" if entry["place"] == INSIDE else entry["place"]
    return f"{text} {side}" if side else text


def _verdict(row: Row) -> str:
    judged = [entry["inside"] for entry in row["metrics"].values() if entry["inside"] is not None]
    parts = [f"{sum(judged)} of {len(judged)} inside"] if judged else []
    return "; ".join(parts + ([row["effect"]] if row["effect"] else []))


def _fullest(rows: Sequence[Row]) -> Row:
    """Return the row with most seeds and most judged numbers, whose band is shown."""
    return max(rows, key=lambda row: (len(row["per_seed"]), row["judged"]["numbers"]))


def _references(report: Report, headings: Sequence[str]) -> list[list[str]]:
    """Return the lines of the retrained models: their mean, the band's ends, and the smallest shift noticed."""
    if not report["retrains"]:
        return []
    row = _fullest(report["rows"])
    models, seconds = retrained(row), row["retrain_seconds"]
    means = [_mean([model.get(heading) for model in models], heading) for heading in headings]
    lines = [["retrained models, mean", str(len(models)), f"{seconds:.0f}", *means, ""]]
    if enough_retrained(row):
        ends = [_ends(heading, row["metrics"].get(heading)) for heading in headings]
        label = f"band, for a mean of {_counted(len(row['per_seed']), 'seed')}"
        lines.append([label, "", "", *ends, ""])
        shifts = [_noticed(heading, row["metrics"].get(heading)) for heading in headings]
        lines.append(["smallest shift noticed", "", "", *shifts, ""])
    return lines


def _ends(heading: str, entry: Entry | None) -> str:
    if entry is None or entry["band"] is None:
        return NOT_MEASURED
    return " to ".join(written(heading, end) for end in shown_limits(entry, entry["band"]))


def _noticed(heading: str, entry: Entry | None) -> str:
    return NOT_MEASURED if entry is None or entry["noticed"] is None else written(heading, entry["noticed"])


def _mean(values: Sequence[float | None], heading: str) -> str:
    known = [value for value in values if value is not None]
    return written(heading, fmean(known)) if len(known) == len(values) else NOT_MEASURED


def _counted(count: int, noun: str) -> str:
    return f"{count} {noun}" if count == 1 else f"{count} {noun}s"
