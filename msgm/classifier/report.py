"""Views of a classifier report: tables for the terminal and Markdown, and a self-contained HTML page."""

from collections.abc import Mapping
from typing import Any
from urllib.parse import quote

from msgm import markdown as md
from msgm.cards import pages
from msgm.cards.chart import Chart
from msgm.cards.pages import Page, Picture, listed, methods_markdown, methods_of, report_html, table_of, verdict_of
from msgm.cards.solves import NOT_CONVERGED, converged, solver_notes
from msgm.cards.views import Card
from msgm.classifier.assemble import Report
from msgm.classifier.card_views import card_links, write_cards
from msgm.classifier.figures import report_figures, test_accuracy_of
from msgm.classifier.ladder import TARGETS
from msgm.folders import write_text
from msgm.runs import Run
from msgm.study.charts import chart_of, kind_of
from msgm.study.judging import inside_share, judged_note, shown_limits
from msgm.tables import Outside, Table

CONTROLS = ("do-nothing", "retrain")
COLUMNS = {
    "forget_accuracy": ("FA %", 100),
    "retain_accuracy": ("RA %", 100),
    "test_accuracy": ("TA %", 100),
    "fr_fixed": ("FR %", 100),
    "mia_loss_auc": ("MIA", 1),
    "rmia_auc": ("RMIA", 1),
    "tow": ("ToW", 1),
    "js_forget": ("JS", 1),
}
"""Numbers that the tables show, with their headings and scales; report.json holds all."""
AXES = {
    "test_accuracy": "accuracy on test items",
    "test_accuracy_retained": "accuracy on test items of the other classes",
}
CHOOSING = (
    "Across stands what is left of the model's use, up what it still gets right of the items to forget. Look for a row "
    "inside the band: further up it knows more than retrained models, further down it gives away that it forgot, "
    "further left it has lost something."
)
LEGEND = (
    "FA, RA, TA: accuracy on forget, retain and test items, TA where classes are forgotten that on test items of the "
    "others; FR: forgetting rate by the fixed attack; MIA, RMIA: AUC of "
    "forget items against non-members by loss and by RMIA; ToW: tug-of-war, 1 is the retrained models' mean; JS: "
    "Jensen-Shannon divergence (nats) from the retrained models' posteriors on forget items."
)
READING = (
    "Means over seeds, +- half a 95% t-interval; * lies outside the band of retrained models. inside: share of the "
    "judged numbers that lie in their band; numbers that are the same for every model are not judged. time: seconds as "
    "a share of retraining's. No effect at this budget: not told from fine-tuning on the retain set by the spread of "
    "seeds."
)


def rows_of(report: Report, request: str) -> list[dict[str, Any]]:
    """Return a request's rows: the controls, then the methods, those with most numbers in their bands first."""
    rows = [row for row in report["rows"] if row["request"] == request]
    shares = {row["method"]: inside_share(row) or 0.0 for row in rows}

    def place(row: dict[str, Any]) -> tuple[int, float]:
        name = row["method"]
        return (CONTROLS.index(name), 0.0) if name in CONTROLS else (len(CONTROLS), -shares[name])

    return sorted(rows, key=place)


def tables(report: Report) -> list[Table]:
    """Return one table a request."""
    return [_table(report, request) for request in report["requests"]]


def _table(report: Report, request: str) -> Table:
    rows, asked = rows_of(report, request), report["requests"][request]
    shown = {name: column for name, column in _columns(rows).items() if any(name in row["metrics"] for row in rows)}
    head = ["method", *(heading for heading, _ in shown.values()), "inside", "seconds", "time"]
    lines = [_band_line(rows[0], shown)] + [_line(row, shown) for row in rows]
    if not all(map(converged, rows)):
        head.append("solver")
        lines = [[*line, "" if converged(row) else NOT_CONVERGED] for line, row in zip(lines, [{}, *rows], strict=True)]
    title = f"{request}: {asked['text']}, {asked['n']} items ({asked['scope']})"
    return Table(title, head, lines, [judged_note(rows[0], shown), *_notes(report, request)])


def _columns(rows: list[dict[str, Any]]) -> dict[str, tuple[str, int]]:
    """Return ``COLUMNS``; where classes are forgotten, test accuracy is that of the others."""
    other = {"test_accuracy": test_accuracy_of(rows)}
    return {other.get(name, name): column for name, column in COLUMNS.items()}


def _band_line(row: dict[str, Any], shown: dict[str, tuple[str, int]]) -> list[str]:
    cells = []
    for name, (_, scale) in shown.items():
        number = row["metrics"].get(name, {})
        ends = shown_limits(number, number["band"]) if number.get("band") else ()
        cells.append("..".join(_short(end, scale) for end in ends))
    return ["band of retrained", *cells, "", f"{row['retrain_seconds']:.2f}", "100%"]


def _line(row: dict[str, Any], shown: dict[str, tuple[str, int]]) -> list[str]:
    share, time = inside_share(row), row["share_of_retraining"]
    return [
        row["method"],
        *(_cell(row["metrics"].get(name), scale) for name, (_, scale) in shown.items()),
        "" if share is None else f"{share:.0%}",
        f"{row['seconds']:.2f}",
        "" if time is None else f"{time:.0%}",
    ]


def _cell(number: dict[str, Any] | None, scale: int) -> str:
    if number is None or number["value"] is None:
        return "-"
    half = None if number["low"] is None else (number["high"] - number["low"]) / 2
    shown = f"{_short(number['value'], scale)}{'' if half is None else f' +-{_short(half, scale)}'}"
    return Outside(f"{shown}*") if number["inside"] is False else shown


def _short(value: float, scale: int) -> str:
    return f"{scale * value:z.1f}" if scale == 100 else f"{value:z.3f}"


def _notes(report: Report, request: str) -> list[str]:
    asked = report["requests"][request]
    notes = []
    if asked["near_duplicates"]:
        found = asked["near_duplicates"]
        notes.append(
            f"Near-duplicates of the forget items elsewhere: {found['found']}, of which {found['retained']} among the "
            f"retain items; left in ({found['method']})."
        )
    if asked["target"] != "observed":
        notes.append(
            f"A {TARGETS[asked['target']]} was asked for: a model retrained without its items is no full reference for "
            "it, and neither is an attack on membership."
        )
    notes += solver_notes(rows_of(report, request))
    notes += [f"{row['method']}: {row['effect']}." for row in rows_of(report, request) if row["effect"]]
    for row in rows_of(report, request):
        if row["family"] == "exact" and row["method"] not in CONTROLS:
            notes.append(
                f"{row['method']} is exact by its algorithm, and its model is of another kind than those of the band: "
                "lying outside says how the two kinds differ."
            )
    for line in report["left_out"]:
        if line["request"] == request:
            seeds = ", ".join(map(str, line["seeds"]))
            notes.append(f"{line['method']} {line['status']} (seed {seeds}): {line['reason'].rstrip('.')}.")
    return notes


def summary(report: Report) -> list[str]:
    """Return a line a request: which methods lie inside the band, at what share of retraining's time."""
    return [f"{request}: {_verdict(rows_of(report, request))}" for request in report["requests"]]


WANTED = 0.9
"""Share of numbers inside their bands from which on a method is listed as near to retraining."""


def _verdict(rows: list[dict[str, Any]]) -> str:
    shares = {row["method"]: (inside_share(row) or 0.0, row) for row in rows}
    near = [
        f"{name} ({share:.0%} inside, {row['share_of_retraining'] or 0:.0%} of the time)"
        for name, (share, row) in shares.items()
        if share >= WANTED and name not in CONTROLS
    ]
    control = ", ".join(f"{name} {shares[name][0]:.0%}" for name in CONTROLS if name in shares)
    text = f"at least {WANTED:.0%} of the numbers inside the band: {', '.join(near) or 'no method'}"
    return f"{text}; controls: {control}." if control else f"{text}."


def print_report(report: Report) -> None:
    """Print the tables and what to make of them."""
    for table in tables(report):
        print(f"\n{table.text()}")
    print(f"\n{LEGEND}\n{READING}\n")
    print("\n".join(map(md.line, summary(report))))


def to_markdown(report: Report) -> str:
    """Return the report as Markdown."""
    lines = [*md.section(report["title"], summary(report), level=1), "", md.text(LEGEND), "", md.text(READING)]
    for table in tables(report):
        lines += table.markdown()
    lines += md.heading("Report cards")
    links = {f"{request}: {method}": path for (request, method), path in card_links(report).items()}
    lines += [f"- {md.link(label, f'{path}.md')}" for label, path in links.items()]
    lines += md.section("Protocol", (f"{name}: {about}" for name, about in report["protocol"].items()))
    return md.document(lines + methods_markdown(report))


def to_html(report: Report, cards: Mapping[tuple[str, str], Card]) -> str:
    """Return the report as one HTML page with its figures inside; ``cards`` by request and method."""
    links = card_links(report)
    verdicts = {
        request: [
            verdict_of(cards[request, row["method"]], row["method"], links[request, row["method"]])
            for row in rows_of(report, request)
        ]
        for request in report["requests"]
    }
    return report_html(
        Page(
            title=report["title"],
            kind="classifiers",
            lead=summary(report),
            verdicts=verdicts,
            charts=[_chart(report, request, cards) for request in report["requests"]],
            choosing=CHOOSING,
            reading=[LEGEND, READING],
            tables=[_on_page(table, name, links) for name, table in zip(verdicts, tables(report), strict=True)],
            figures=[
                Picture(png=png, caption=f"{request}: {caption}")
                for request in report["requests"]
                for caption, png in report_figures(rows_of(report, request)).items()
            ],
            facts={"Protocol": _protocol(report)},
            methods=methods_of(report),
        )
    )


def _on_page(table: Table, request: str, links: dict[tuple[str, str], str]) -> pages.Table:
    hrefs = {k: f"{quote(links[key])}.html" for k, row in enumerate(table.rows) if (key := (request, row[0])) in links}
    return table_of(table, hrefs=hrefs)


def _chart(report: Report, request: str, cards: Mapping[tuple[str, str], Card]) -> Chart:
    rows = rows_of(report, request)
    kinds = {row["method"]: (row, kind_of(row["method"], cards[request, row["method"]]["level"])) for row in rows}
    test = test_accuracy_of(rows)
    return chart_of(request, kinds, (test, AXES[test]), ("forget_accuracy", "accuracy on forget items"))


def _protocol(report: Report) -> dict[str, str]:
    data = report["data"]
    return report["protocol"] | {
        "data": f"{data['name']} (digest {data['digest']}); {listed(data['n'])}",
        "network": listed(report["network"]),
        "training": listed(report["training"]),
        "seeds": ", ".join(map(str, report["seeds"])),
        "software": listed(report["environment"]["versions"]),
    }


def write_views(run: Run, report: Report) -> None:
    """Write report.md, report.html and every row's card."""
    write_text(run.path / "report.md", to_markdown(report))
    write_text(run.path / "report.html", to_html(report, write_cards(run, report)))
