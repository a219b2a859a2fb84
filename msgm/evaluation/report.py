"""Views of report.json: a table for the terminal and Markdown, a self-contained HTML page, one picture of all rows."""

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from urllib.parse import quote

from msgm import markdown as md
from msgm.cards import pages
from msgm.cards.chart import ORIGINAL, RETRAINED, SHOWN, UNSHOWN, Chart, Point
from msgm.cards.claims import level
from msgm.cards.pages import Page, Picture, listed, report_html, verdict_of
from msgm.cards.words import levels_reached
from msgm.evaluation import near
from msgm.evaluation.band_table import band_table, without_band
from msgm.evaluation.card import card
from msgm.evaluation.card_views import card_links, write_cards
from msgm.evaluation.deletion import of_shards, removing
from msgm.evaluation.figures import report_figures
from msgm.evaluation.found import found_text
from msgm.evaluation.ladder import (
    ATTACKS,
    FURTHER,
    GUIDED,
    LADDER,
    TRUSTED_ACCURACY,
    TRUSTED_RECALL,
    UNTOUCHED,
    reason_untested,
    references,
    trusted,
)
from msgm.evaluation.metrics.base import METRICS, NOT_MEASURED, Column, Metric, Report, measured
from msgm.evaluation.metrics.unlearning_ratio import percent
from msgm.evaluation.rows import REQUEST
from msgm.evaluation.sweeps import sweep_png
from msgm.folders import inside, write_bytes, write_text
from msgm.pictures import strips
from msgm.runs import Run
from msgm.study.judging import shown_limits
from msgm.tables import aligned

OVERVIEW = "Overview"
WORDS = ("row", "start")
"""Columns that hold words, by their headings."""
COSTS = {"NLL retain": "NLL of items to retain", "junk %": "junk (% of samples)"}
"""What forgetting costs, by the number's heading: the name of its axis."""
CHOOSING = (
    "The lower a row stands, the less forgotten content its samples show; the further left, the less that costs. Look "
    "for one that is as low as the retrained model, and no further right. A model that makes junk stands low, too."
)


def _fact_columns() -> list[Column]:
    return [
        Column("row", "", lambda row, _: row["name"]),
        Column("start", "", lambda row, _: row["start"]),
        Column("steps", "", lambda row, _: str(row["steps"])),
        Column("seconds", "lower", lambda row, _: f"{row['seconds']:.0f}"),
    ]


@dataclass(frozen=True)
class Table:
    """One table of a report: the columns of the metrics that share its title, a row a model; notes stand below it."""

    title: str
    columns: list[Column]
    rows: list[list[str]]
    notes: list[str] = field(default_factory=list)


def tables(report: Report) -> list[Table]:
    """Return the tables of a report: over seeds, the overview with rows' facts, one a further title, the paper's."""
    names = dict.fromkeys(name for row in report["rows"] for name in row["measured"])
    metrics = [METRICS.entries[name] for name in names if name in METRICS.entries]
    titles = dict.fromkeys([OVERVIEW, *(metric.table for metric in metrics)])
    measured_tables = [_table(title, [m for m in metrics if m.table == title], report) for title in titles]
    return _over_seeds(report) + measured_tables + [_paper_table(table) for table in report.get("paper", [])]


def _over_seeds(report: Report) -> list[Table]:
    """Return the table of all seeds and the band, where there are any; the tables after it show the first seed."""
    found = band_table(report)
    if found is None:
        return []
    title, headings, rows, notes = found
    notes = [*notes, f"The tables below, the pictures and the curves are of seed {report['seed']}."]
    return [Table(title, [Column(heading, "", lambda *_: "") for heading in headings], rows, notes)]


def _paper_table(table: dict[str, Any]) -> Table:
    columns = [Column(heading, "", lambda *_: "") for heading in table["columns"]]
    return Table(table["title"], columns, table["rows"], table["notes"])


def _table(title: str, metrics: list[type[Metric]], report: Report) -> Table:
    facts = _fact_columns() if title == OVERVIEW else _fact_columns()[:1]
    columns = facts + [column for metric in metrics for column in metric.columns]
    notes = [note for metric in metrics for note in metric.notes(report)]
    found = Table(title, columns, [_cells(row, facts, metrics, report) for row in report["rows"]], notes)
    return _with_failed(found, report) if title == OVERVIEW else found


def _with_failed(table: Table, report: Report) -> Table:
    """Return the table with a line, and the reason below, for each model that could not be made or measured."""
    failed = report["failed"]
    empty = [NOT_MEASURED] * (len(table.columns) - 2)
    rows = [[label, "failed", *empty] for label in failed]
    notes = [f"{name} failed: {why}" for name, why in failed.items()]
    return Table(
        table.title,
        table.columns,
        table.rows + rows,
        notes
        + without_band(report)
        + near.notes(report)
        + from_cache(report)
        + of_guidance(report)
        + of_shards(report),
    )


def from_cache(report: Report) -> list[str]:
    """Return a note on models taken from the cache, if any, on the meaning of their seconds."""
    models = [*report["rows"], *report["retrains"]]
    names = [row["name"] for row in models if any(seed.get("cached") for seed in row.get("per_seed", [row]))]
    if not names:
        return []
    return [f"Taken from the cache, with the seconds that training took when it was done: {', '.join(names)}."]


def of_guidance(report: Report) -> list[str]:
    """Return notes on rows with guidance, if any: what was left as it was, and what has no likelihood."""
    names = [row["name"] for row in report["rows"] if row["start"] == GUIDED]
    if not names:
        return []
    note = f"{UNTOUCHED.capitalize()}: {', '.join(names)}. Attacks on weights, and membership, are of the base model's."
    reasons = {
        reason: None
        for row in report["rows"]
        for name in ("nll", "vlb")
        if measured(row, name) and (reason := reason_untested(row, name)) is not None
    }
    return [note, *(f"No likelihood of {reason}." for reason in reasons)]


def _cells(row: dict[str, Any], facts: list[Column], metrics: list[type[Metric]], report: Report) -> list[str]:
    cells = [column.cell(row, report) for column in facts]
    for metric in metrics:
        known = measured(row, metric.name)
        cells += [column.cell(row, report) if known else NOT_MEASURED for column in metric.columns]
    return cells


def headline(report: Report) -> str:
    """Return the report's first line: the judge's accuracy and recall, and whether it can be relied on."""
    judge, floor = report["judge"], report["real"]["unlearning_ratio"]
    held, recall = judge["heldout"], judge["forget_recall"]
    text = f"right on {percent(held['value'])}% of {held['n']} held-out items"
    if recall is None:
        return f"The judge cannot be assessed: it is {text}, but none of them is to be forgotten."
    text += f", finds {percent(recall['value'])}% of the {recall['n']} to be forgotten"
    text += f" by its rule ({judge['rule']})" if "rule" in judge else ""
    if not trusted(report):
        wanted = f"{percent(TRUSTED_ACCURACY)}% and {percent(TRUSTED_RECALL)}%"
        less = f"it is {text}, where {wanted} are asked for"
        return f"The judge cannot be relied on: {less}. Read its unlearning ratios accordingly."
    sees = f"it sees forgotten content in {percent(floor['value'])}% of {floor['n']} real items to retain"
    return f"Judge: {text}. Floor: {sees}."


def verdict(report: Report) -> list[tuple[str, str]]:
    """Return (heading, text) of the request, of what was measured, and of what cannot be concluded."""
    goal, asked = (report["requests"][REQUEST][key] for key in ("goal", "text"))
    unsaid = (
        f"The weights may still hold the information: {_attacked(report)}. A higher NLL of forget items alone is no "
        "evidence that they are not generated. A model that makes junk makes no forgotten content either: read the "
        "unlearning ratio beside the junk rate."
    )
    if goal == "removal":
        others = f" of rows other than {', '.join(names)}" if (names := removing(report)) else ""
        unsaid = f"Removal was asked for, and this report cannot show it{others}. {unsaid}"
    return [
        ("Asked", f"{asked[0].upper()}{asked[1:]}."),
        ("Shown", _shown(report)),
        ("Cannot be said", unsaid),
    ]


def _shown(report: Report) -> str:
    """Return which level each row's card reaches, and what was measured."""
    reached = levels_reached({row["name"]: level(LADDER.claims(report, row)) for row in report["rows"]})
    exact = (
        f" Removal of the listed items, exact by algorithm: {', '.join(names)}." if (names := removing(report)) else ""
    )
    text = (
        f"{reached[0].upper()}{reached[1:]}.{exact} How often samples show the content, and how likely real items are"
    )
    if any(reason_untested(row, name) is None for row in report["rows"] for name in (*ATTACKS, *FURTHER)):
        return f"{text}, was measured; and what some attacks on copies of the weights bring back."
    return f"{text}, was measured: outputs, not weights."


def _attacked(report: Report) -> str:
    """Return a sentence on the attacks that no row was tested with, or on the limits of those that were run."""
    missing = [name for name in ATTACKS if all(reason_untested(row, name) for row in report["rows"])]
    if missing:
        return f"{', '.join(missing)} {'was' if len(missing) == 1 else 'were'} not tested here"
    return "attacks bound only what they try; each model's card says which told it from a retrained one"


def to_markdown(report: Report) -> str:
    """Return the report as Markdown."""
    lines = [md.text(headline(report)), *md.heading(report["title"], 1)]
    lines += [f"**{name}.** {md.cell(said)}  " for name, said in verdict(report)]
    for table in tables(report):
        lines += [*md.heading(table.title), *md.table([c.heading for c in table.columns], table.rows), ""]
        for better in ("lower", "higher"):
            headings = [c.heading for c in table.columns if c.better == better]
            lines += [md.text(f"{better.capitalize()} is better: {', '.join(headings)}."), ""] if headings else []
        lines += md.bullets(table.notes)
    links = card_links(report)
    lines += [*md.heading("Report cards"), *(f"- {md.link(name, f'{path}.md')}" for name, path in links.items())]
    lines += md.section("Protocol", (f"{name}: {about}" for name, about in report["protocol"].items()))
    lines += md.heading("Objectives")
    for row in report["rows"]:
        if row["card"]:
            lines += [
                *md.heading(row["name"], 3),
                md.text(f"Here: {_settings(row)}."),
                "",
                *md.bullets(row["card"].splitlines()),
                "",
            ]
    return md.document(lines)


def print_table(report: Report) -> None:
    """Print the headline and the tables, aligned."""
    print(f"\n{headline(report)}")
    found = tables(report)
    for table in found:
        print(f"\n{md.line(table.title)}" if table is not found[0] or table.title != OVERVIEW else "")
        print("\n".join(aligned([c.heading for c in table.columns], table.rows)))
        for note in table.notes:
            print(md.line(note))
    units = {row["nll"]["unit"] for row in report["rows"] if "unit" in row.get("nll", {})}
    for unit in units:
        print(f"\nNLL: {unit}, mean (median)")


def write_views(run: Run, report: Report) -> None:
    """Write report.md, samples.png, sweep.png if there are sweeps, the self-contained report.html and the cards."""
    write_pages(run, report)
    write_cards(run, report)


def write_pages(run: Run, report: Report) -> None:
    """Write all views except the cards; the cards list these views among the files that hold items of the request."""
    grids = {row["name"]: inside(run.path, row["grid"], "rows[].grid of the report") for row in report["rows"]}
    write_text(run.path / "report.md", to_markdown(report))
    write_bytes(run.path / "samples.png", strips(grids))
    sweep = sweep_png(report)
    if sweep:
        write_bytes(run.path / "sweep.png", sweep)
    write_text(run.path / "report.html", to_html(report, grids, sweep))


def to_html(report: Report, grids: dict[str, Path], sweep: bytes | None = None) -> str:
    """Return the report as one HTML page with the sample grids, and the picture of the sweeps, inside."""
    cards = {row["name"]: card(report, row) for row in report["rows"]}
    links = card_links(report)
    verdicts = [verdict_of(made, name, links[name]) for name, made in cards.items()]
    drawn = report_figures(report) | ({"Measures against the swept settings.": sweep} if sweep else {})
    page = Page(
        title=report["title"],
        kind="generators",
        lead=[headline(report)],
        weak=not trusted(report),
        asked=dict(verdict(report)),
        verdicts={"": verdicts},
        charts=_charts(report, {name: made["level"] for name, made in cards.items()}),
        choosing=CHOOSING,
        tables=[_on_page(table, links) for table in tables(report)],
        figures=[Picture(png=png, caption=caption) for caption, png in drawn.items()],
        samples=[_samples(report, row, grids[row["name"]], links[row["name"]]) for row in report["rows"]],
        facts={"Protocol": report["protocol"] | _facts(report)},
        methods={row["name"]: (_settings(row), row["card"]) for row in report["rows"] if row["card"]},
    )
    return report_html(page)


def _on_page(table: Table, links: dict[str, str]) -> pages.Table:
    columns = [
        pages.Column(heading=column.heading, better=column.better, words=column.heading in WORDS)
        for column in table.columns
    ]
    hrefs = {k: f"{quote(links[cells[0]])}.html" for k, cells in enumerate(table.rows) if cells[0] in links}
    return pages.Table(title=table.title, columns=columns, rows=table.rows, notes=table.notes, hrefs=hrefs)


def _charts(report: Report, levels: dict[str, str]) -> list[Chart]:
    """Return the charts of the unlearning ratio against each measured cost."""
    return [_chart(report, levels, *cost) for cost in COSTS.items()]


def _chart(report: Report, levels: dict[str, str], cost: str, axis: str) -> Chart:
    retrained, base = {row["name"] for row in references(report).retrains}, references(report).base
    points: list[Point] = []
    bands: dict[str, tuple[float, float]] = {}
    for row in report["rows"]:
        found = {heading: row["metrics"].get(heading) for heading in (cost, "UR %")}
        x, y = (entry and entry["value"] for entry in found.values())
        if x is None or y is None:
            continue
        bands |= {heading: shown_limits(entry, entry["band"]) for heading, entry in found.items() if entry["band"]}
        kind = SHOWN if levels[row["name"]] != "C0" else UNSHOWN
        kind = RETRAINED if row["name"] in retrained else ORIGINAL if base and row["name"] == base["name"] else kind
        points.append(Point(name=row["name"], x=x, y=y, kind=kind))
    band = (bands[cost], bands["UR %"]) if len(bands) == 2 else None
    return Chart(title=f"Unlearning ratio against {axis}", x=axis, y="UR (% of samples)", points=points, band=band)


def _samples(report: Report, row: dict[str, Any], grid: Path, link: str) -> Picture:
    """Return a row's sample grid, with how many samples the judge sees of every class."""
    counts = row.get("class_histogram", {})
    bars = [(name, n, name in report["judge"]["forgotten"]) for name, n in counts.items() if name != "none"]
    junk = f"{counts['none']} of {row['unlearning_ratio']['n']} samples are junk." if bars else ""
    name = row["name"]
    return Picture(
        png=grid.read_bytes(),
        caption=name,
        alt=f"samples of {name}",
        pixels=True,
        href=f"{quote(link)}.html",
        bars=bars,
        note=f"{junk} * was to be forgotten." if junk else "",
    )


def _facts(report: Report) -> dict[str, str]:
    data, base = report["data"], report["base"]
    items = "; ".join(f"{part}: {n['retain']} retain, {n['forget']} forget" for part, n in data["items"].items())
    copies = f", among them {data['copies']} copies that data.repeat adds" if data.get("copies") else ""
    facts = {"data": f"{data['name']} (digest {data['digest']}); {items}{copies}"}
    if base:
        made = f"taken from {base['source']}" if base["source"] else f"trained here in {base['seconds']:.0f} seconds"
        facts["base model"] = made
    return facts | {"seed": str(report["seed"]), "software": listed(report["environment"]["versions"])}


def _settings(row: dict[str, Any]) -> str:
    rate = "" if row["lr"] is None else f"; learning rate {row['lr']:g}"
    found = found_text(row)
    return f"{listed(row['settings'])}{rate}" + (f"; found in preparation: {found}" if found else "")
