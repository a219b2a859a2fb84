"""The table of rows over their seeds, against the models that were retrained without the request."""

from statistics import fmean
from typing import Any

from msgm.evaluation.metrics.base import NOT_MEASURED, Report, Row
from msgm.evaluation.numbers import Standing, band_facts, bands, no_effect, retrained, standings, written
from msgm.study.band import LEAST

NO_EFFECT = "no effect at this budget"
EXPLAINED = (
    f"{NO_EFFECT}: from plain fine-tuning (unseen) it differs by less than the spread of seeds, in the unlearning "
    "ratio and the likelihood of items to forget."
)
SIDES = {"inside": "in", None: ""}


def band_table(report: Report) -> tuple[str, list[str], list[list[str]], list[str]] | None:
    """Return title, headings, lines and notes; None for one seed without retrained models of their own."""
    seeds, models = report.get("seeds", []), retrained(report)
    if len(seeds) < 2 and not models:
        return None
    found = {row["name"]: standings(report, row) for row in report["rows"]}
    headings = list(dict.fromkeys(heading for standing in found.values() for heading in standing))
    lines = [_line(report, row, found[row["name"]], headings) for row in report["rows"]]
    title = f"Over {_counted(len(seeds), 'seed')}" + (f", beside {len(models)} retrained models" if models else "")
    verdicts = [cells[-1] for cells in lines]
    notes = _notes(report, len(seeds)) + ([EXPLAINED] if any(NO_EFFECT in verdict for verdict in verdicts) else [])
    return title, ["row", "seeds", "seconds", *headings, "verdict"], lines + _references(report, headings), notes


def _line(report: Report, row: Row, found: dict[str, Standing], headings: list[str]) -> list[str]:
    seconds = [seed["seconds"] for seed in row.get("per_seed", [row])]
    cells = [_cell(found[heading]) if heading in found else NOT_MEASURED for heading in headings]
    return [row["name"], str(len(seconds)), f"{fmean(seconds):.0f}", *cells, _verdict(report, row, found)]


def _cell(found: Standing) -> str:
    if found.value is None:
        return "diverged"
    text = written(found.heading, found.value)
    if found.low is not None and found.high is not None:
        text += f" ± {written(found.heading, (found.high - found.low) / 2)}"
    side = SIDES.get(found.side, found.side)
    return f"{text} {side}" if side else text


def _verdict(report: Report, row: Row, found: dict[str, Standing]) -> str:
    judged = [standing for standing in found.values() if standing.side is not None]
    inside = sum(standing.side == "inside" for standing in judged)
    parts = [f"{inside} of {len(judged)} inside"] if judged else []
    return "; ".join(parts + ([NO_EFFECT] if no_effect(report, row) else []))


def _references(report: Report, headings: list[str]) -> list[list[str]]:
    """Return the lines of the retrained models: their mean, the band's ends, and the smallest shift noticed."""
    models, known = retrained(report), bands(report)
    if not models:
        return []
    seconds = fmean(row["seconds"] for row in report["retrains"])
    means = [_mean([model.get(heading) for model in models], heading) for heading in headings]
    lines = [["retrained models, mean", str(len(models)), f"{seconds:.0f}", *means, ""]]
    if not known:
        return lines
    seeds = max(len(row.get("per_seed", [row])) for row in report["rows"])
    standing = _of_band(report, seeds)
    ends = [standing[heading]["ends"] if heading in known else NOT_MEASURED for heading in headings]
    shifts = [standing[heading]["shift"] if heading in known else NOT_MEASURED for heading in headings]
    lines.append([f"band, for a mean of {_counted(seeds, 'seed')}", "", "", *ends, ""])
    lines.append(["smallest shift noticed", "", "", *shifts, ""])
    return lines


def _of_band(report: Report, seeds: int) -> dict[str, dict[str, str]]:
    """Return each band's ends and the smallest shift noticed as text, for a row of as many seeds."""
    row = next(row for row in report["rows"] if len(row.get("per_seed", [row])) == seeds)
    found = {}
    for heading, standing in standings(report, row).items():
        if standing.limits is not None and standing.smallest_shift is not None:
            ends = " to ".join(written(heading, end) for end in standing.limits)
            found[heading] = {"ends": ends, "shift": written(heading, standing.smallest_shift)}
    return found


def _mean(values: list[float | None], heading: str) -> str:
    known = [value for value in values if value is not None]
    return written(heading, fmean(known)) if len(known) == len(values) else NOT_MEASURED


def _notes(report: Report, seeds: int) -> list[str]:
    facts, count = band_facts(report), len(retrained(report))
    notes = [f"Mean over seeds ± half its 95% t-interval, for {seeds} seeds."] if seeds > 1 else []
    if facts is None:
        return [*notes, f"{_counted(count, 'model')} retrained for a band; {LEAST} are needed for verdicts."]
    return [
        *notes,
        f"in, above, below: where the mean lies beside the band of {count} models that were retrained without the "
        "request, each from a seed of its own.",
        band_text(facts),
        "smallest shift noticed: a row whose mean is shifted by so much lies outside in 80 of 100 cases.",
    ]


def band_text(facts: dict[str, Any]) -> str:
    """Return what a band is worth, in words: its false alarms, and who lies outside when held out."""
    out = ", ".join(f"{name} ({', '.join(numbers)})" for name, numbers in facts["left_out"].items())
    return (
        f"{len(facts['judged'])} numbers are judged together: a further retrained model has one outside in at most 5 "
        f"of 100 cases ({100 * facts['false_alarms']:.1f} where they are independent). Held out one at a time, judged "
        f"by the others, {len(facts['left_out'])} of {facts['retrained']} lie outside{f': {out}' if out else ''}."
    )


def _counted(count: int, noun: str) -> str:
    return f"{count} {noun}" if count == 1 else f"{count} {noun}s"
