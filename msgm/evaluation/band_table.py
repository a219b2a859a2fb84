"""The table of rows over their seeds, against the models that were retrained without the request."""

from statistics import fmean
from typing import Any

from msgm.evaluation.evidence import attacked
from msgm.evaluation.metrics.base import NOT_MEASURED, Report, Row
from msgm.evaluation.numbers import Standing, band_facts, bands, no_effect, on_copies, retrained, standings, written
from msgm.study.band import LEAST

NO_EFFECT = "no effect at this budget"
EXPLAINED = (
    f"{NO_EFFECT}: from plain fine-tuning (unseen) it differs by less than the spread of seeds, in the unlearning "
    "ratio and the likelihood of items to forget."
)
ON_C2 = (
    "With the numbers of membership and of partly noised items to forget these are judged together by C2, on the cards."
)
SIDES = {"inside": "in", None: ""}


Lines = tuple[str, list[str], list[list[str]], list[str]]


def band_tables(report: Report) -> list[Lines]:
    """Return title, headings, lines and notes of the numbers over seeds, and of attacks on copies if any were made.

    There are none for one seed without retrained models of their own.
    """
    seeds, models = report.get("seeds", []), retrained(report)
    if len(seeds) < 2 and not models:
        return []
    title = f"ver {_counted(len(seeds), 'seed')}" + (f", beside {len(models)} retrained models" if models else "")
    found = {row["name"]: standings(report, row) for row in report["rows"]}
    apart = on_copies(report)
    headings = [heading for heading in _headings(found) if heading not in apart]
    lines = [_line(report, row, found[row["name"]], headings) for row in report["rows"]]
    notes = _notes(report, len(seeds)) + ([EXPLAINED] if any(NO_EFFECT in cells[-1] for cells in lines) else [])
    first = ["row", "seeds", "seconds"]
    tables = [(f"O{title}", [*first, *headings, "verdict"], lines + _references(report, found, headings), notes)]
    if apart:
        of_attacks = {row["name"]: attacked(report, row) for row in report["rows"]}
        lines = [_line(report, row, of_attacks[row["name"]], apart)[:-1] for row in report["rows"]]
        references = [cells[:-1] for cells in _references(report, of_attacks, apart)]
        tables.append(
            (f"Attacks on changed copies o{title}", [*first, *apart], lines + references, [ON_C2] if models else [])
        )
    return tables


def _headings(found: dict[str, dict[str, Standing]]) -> list[str]:
    return list(dict.fromkeys(heading for standing in found.values() for heading in standing))


def _line(report: Report, row: Row, found: dict[str, Standing], headings: list[str]) -> list[str]:
    seconds = [seed["seconds"] for seed in row.get("per_seed", [row])]
    cells = [_cell(found[heading]) if heading in found else NOT_MEASURED for heading in headings]
    return [row["name"], str(len(seconds)), f"{fmean(seconds):.0f}", *cells, _verdict(report, row, found)]


def _cell(found: Standing) -> str:
    if found.value is None:
        return "no value"
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


def _references(report: Report, found: dict[str, dict[str, Standing]], headings: list[str]) -> list[list[str]]:
    """Return the lines of the retrained models: their mean, the band's ends, and the smallest shift noticed."""
    models = retrained(report)
    if not models:
        return []
    seconds = fmean(row["seconds"] for row in report["retrains"])
    means = [_mean([model.get(heading) for model in models], heading) for heading in headings]
    lines = [["retrained models, mean", str(len(models)), f"{seconds:.0f}", *means, ""]]
    if not bands(report):
        return lines
    standing = max((found[row["name"]] for row in report["rows"]), key=_seeds_and_bands)
    shown = [_band_cells(standing.get(heading)) for heading in headings]
    lines.append(
        [f"band, for a mean of {_counted(_seeds_and_bands(standing)[0], 'seed')}", "", "", *(c[0] for c in shown), ""]
    )
    lines.append(["smallest shift noticed", "", "", *(c[1] for c in shown), ""])
    return lines


def _seeds_and_bands(standing: dict[str, Standing]) -> tuple[int, int]:
    """Return how many seeds and how many judged numbers a row has: the fullest row shows the band."""
    return max(each.seeds for each in standing.values()), sum(each.band is not None for each in standing.values())


def _band_cells(found: Standing | None) -> tuple[str, str]:
    if found is None or found.limits is None or found.smallest_shift is None:
        return NOT_MEASURED, NOT_MEASURED
    return found.ends(), written(found.heading, found.smallest_shift)


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
