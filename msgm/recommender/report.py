"""Views of a recommender report: tables for the terminal and Markdown, and a self-contained HTML page."""

import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any
from urllib.parse import quote

from msgm import markdown as md
from msgm.cards import pages
from msgm.cards.chart import Chart
from msgm.cards.pages import (
    Page,
    Picture,
    Verdict,
    listed,
    methods_markdown,
    methods_of,
    report_html,
    table_of,
    verdict_of,
)
from msgm.cards.solves import NOT_CONVERGED, converged, solver_notes
from msgm.cards.views import Card
from msgm.folders import place, write_text
from msgm.recommender.assemble import Report
from msgm.recommender.card import WORDS
from msgm.recommender.config import CONTROLS
from msgm.recommender.figures import request_figures
from msgm.recommender.ladder import EXACT
from msgm.runs import Run
from msgm.study.card import write_card
from msgm.study.charts import chart_of, kind_of
from msgm.study.judging import judged_note
from msgm.tables import Outside, Table

COLUMNS = {
    "ndcg": "NDCG",
    "recall": "Recall",
    "rmse": "RMSE",
    "completeness_auc": "AUC",
    "membership_scores_auc": "MIA",
    "score_distance": "distance",
    "score_distance_units": "in units",
    "lists_with_forgotten_items": "items served",
    "forgotten_users_served": "users served",
    "promoted_exposure": "exposure",
}
"""Numbers that the tables show where they exist, with their headings; report.json holds all."""
UTILITY, COMPLETENESS = "NDCG of retained users", "AUC, forgotten against held-out"
CHOOSING = (
    "Across stands what is left of the model's use, up how far it still ranks forgotten interactions above held-out "
    "ones (AUC; 0.5: it does not). Look for a row inside the band: further up it knows more than retrained models, "
    "further left it has lost something."
)
READING = (
    "Means over seeds, ± half the 95% t-interval where there are two or more; -: does not apply, or was not measured; "
    "* lies outside the band of retrained models by more than .005. "
    "seconds: of the answer; time: as a share of a refit's, for a stream per request; prepared: seconds spent before "
    "any request, shards above all. A method that fits shards makes another model: its exactness is against the same "
    "shards fitted to the rest, not against the retrained models of the band."
)


def rows_of(report: Report, request: str) -> list[dict[str, Any]]:
    """Return a request's rows: model by model, the controls first."""
    rows = [row for row in report["rows"] if row["request"] == request]
    models = list(report["models"])
    return sorted(rows, key=lambda row: (models.index(row["model"]), _place(row["method"])))


def _place(method: str) -> int:
    return CONTROLS.index(method) if method in CONTROLS else len(CONTROLS)


def tables(report: Report) -> dict[str, Table]:
    """Return the table of every request that has rows, or reasons why it has none."""
    found = {name: _table(report, name) for name in report["requests"]}
    return {name: table for name, table in found.items() if table.rows or table.notes}


def _table(report: Report, request: str) -> Table:
    rows, asked = rows_of(report, request), report["requests"][request]
    shown = {
        name: heading
        for name, heading in COLUMNS.items()
        if any(row["metrics"].get(name, {}).get("value") is not None for row in rows)
    }
    head = ["model", "method", *shown.values(), "exactness", "seconds", "time", "prepared"]
    lines = [
        [
            row["model"],
            row["method"],
            *(_cell(row["metrics"].get(name)) for name in shown),
            _exactness(row),
            f"{row['seconds']:.3f}",
            _share(row),
            f"{row['preparation_seconds']:.2f}",
        ]
        for row in rows
    ]
    title = f"{request}: {asked['text']}, {asked['cells']} training cells"
    return Table(title, head, lines, _notes(report, request))


def _cell(number: dict[str, Any] | None) -> str:
    if number is None or number["value"] is None:
        return "-"
    if number["inside"] is False:
        return Outside(f"{number['value']:.3f}*{_half(number)}")
    return f"{number['value']:.3f}{_half(number)}"


def _half(number: dict[str, Any]) -> str:
    """Return half the interval of a mean; nothing from one seed."""
    if number["low"] is None:
        return ""
    half = (number["high"] - number["low"]) / 2
    return f" ± {half:.3f}".replace(" 0.", " .")


def _exactness(row: dict[str, Any]) -> str:
    """Return how exact an answer is; one of shards equals those fitted anew, and not a model of all the data."""
    of_shards = row["exactness"] == "bit-exact" and "shards_refitted" in row["facts"]
    shown = f"{row['exactness']} (of its shards)" if of_shards else str(row["exactness"])
    return shown if converged(row) else f"{shown}, {NOT_CONVERGED}"


def _share(row: dict[str, Any]) -> str:
    share = row["share_of_retraining"]
    return "-" if share is None else f"{share:.1%}"


def _notes(report: Report, request: str) -> list[str]:
    """Return why rows are left out (methods that are not for a model together), and whose solver did not converge."""
    reasons: dict[tuple[str, str], list[str]] = {}
    for line in report["left_out"]:
        if line["request"] == request:
            text = line["reason"].rstrip(".")
            reasons.setdefault((line["method"], f"{line['status']}: {text}"), []).append(line["model"])
    left_out = [f"{method} on {', '.join(models)} {text}." for (method, text), models in reasons.items()]
    rows = rows_of(report, request)
    by_model = {row["model"]: row for row in reversed(rows)}
    columns = {name: (heading, 1) for name, heading in COLUMNS.items()}
    judged = [f"{model}: {judged_note(row, columns)}" for model, row in reversed(by_model.items())]
    return [*judged, *left_out, *solver_notes(rows)]


def summary(report: Report) -> list[str]:
    """Return a line a request: how many answers are exact, and the fastest of them."""
    return [f"{name}: {_exact(report, name)}." for name in tables(report)]


def _exact(report: Report, request: str) -> str:
    rows = [row for row in rows_of(report, request) if row["method"] not in CONTROLS]
    exact = [row for row in rows if row["exactness"] in EXACT]
    if not exact:
        return f"none of {len(rows)} answers is exact"
    fastest = min(exact, key=lambda row: _order(row["share_of_retraining"]))
    name = f"{fastest['method']} on {fastest['model']}, {_exactness(fastest)}"
    return f"{len(exact)} of {len(rows)} answers exact; fastest: {name}, {_share(fastest)} of a refit's time"


def _order(share: float | None) -> float:
    return math.inf if share is None else share


def print_report(report: Report) -> None:
    """Print the tables and how to read them."""
    for table in tables(report).values():
        print(f"\n{table.text()}")
    print("\n" + "\n".join(map(md.line, _reading(report))))


def _reading(report: Report) -> list[str]:
    """Return how to read the tables, and what they leave out."""
    others = report.get("other_settings", 0)
    many = f"{others} rows of other settings left out." if others > 1 else "1 row of other settings left out."
    return [_legend(report), READING, *([many] if others else [])]


def _legend(report: Report) -> str:
    """Return what the shown numbers are, in the words of their metrics."""
    texts = {
        name: number["text"]
        for row in report["rows"]
        for name, number in row["metrics"].items()
        if number["value"] is not None
    }
    return "; ".join(f"{heading}: {texts[name]}" for name, heading in COLUMNS.items() if name in texts) + "."


def to_markdown(report: Report) -> str:
    """Return the report as Markdown."""
    lines = md.section(report["title"], summary(report), level=1)
    lines += [line for each in _reading(report) for line in ("", md.text(each))]
    for table in tables(report).values():
        lines += table.markdown()
    lines += md.heading("Report cards")
    lines += [f"- {md.link(place, f'{place}.md')}" for place in map(card_link, report["rows"])]
    lines += md.section("Protocol", (f"{name}: {about}" for name, about in _protocol(report).items()))
    lines += md.section("Models", (f"{name}: {listed(own)}" for name, own in report["models"].items()))
    return md.document(lines + methods_markdown(report))


def _protocol(report: Report) -> dict[str, str]:
    data = report["data"]
    versions = ", ".join(f"{name} {version}" for name, version in report["environment"]["versions"].items())
    return report["protocol"] | {
        "data": f"{data['name']} (digest {data['digest']}): {data['users']} users, {data['items']} items, "
        f"{data['interactions']} interactions",
        "software": versions,
    }


def to_html(report: Report, cards: Mapping[str, Card]) -> str:
    """Return the report as one HTML page with its figures inside; ``cards`` by where they stand."""
    shown = tables(report)
    return report_html(
        Page(
            title=report["title"],
            kind="recommenders",
            lead=summary(report),
            verdicts={name: [_verdict(row, cards) for row in rows_of(report, name)] for name in shown},
            charts=[chart for name in shown for chart in _charts(report, name, cards)],
            choosing=CHOOSING,
            reading=_reading(report),
            tables=[_on_page(report, name, table) for name, table in shown.items()],
            figures=[
                Picture(png=png, caption=f"{name}: {caption}")
                for name in shown
                for caption, png in request_figures(rows_of(report, name)).items()
            ],
            facts={
                "Protocol": _protocol(report) | {"seeds": ", ".join(map(str, report["seeds"]))},
                "Models": {name: listed(own) for name, own in report["models"].items()},
            },
            methods=methods_of(report),
        )
    )


def _verdict(row: dict[str, Any], cards: Mapping[str, Card]) -> Verdict:
    return verdict_of(cards[card_link(row)], f"{row['model']}: {row['method']}", card_link(row))


def _on_page(report: Report, request: str, table: Table) -> pages.Table:
    hrefs = {k: f"{quote(card_link(row))}.html" for k, row in enumerate(rows_of(report, request))}
    return table_of(table, words=2, hrefs=hrefs)


def _charts(report: Report, request: str, cards: Mapping[str, Card]) -> list[Chart]:
    """Return one chart a model: each has a band of its own."""
    found = []
    for model in report["models"]:
        rows = [row for row in rows_of(report, request) if row["model"] == model]
        kinds = {row["method"]: (row, kind_of(row["method"], cards[card_link(row)]["level"])) for row in rows}
        found.append(chart_of(f"{request}: {model}", kinds, ("ndcg", UTILITY), ("completeness_auc", COMPLETENESS)))
    return found


def card_link(row: dict[str, Any]) -> str:
    """Return where a row's card stands, relative to the report and without its ending."""
    return place(
        Path("cards"), row["model"], row["request"], row["method"], "card", key="rows[] of the report"
    ).as_posix()


def write_views(run: Run, report: Report) -> None:
    """Write report.md, report.html and every row's card."""
    write_text(run.path / "report.md", to_markdown(report))
    cards = {
        card_link(row): write_card((run.path / card_link(row)).parent, report, row, WORDS) for row in report["rows"]
    }
    write_text(run.path / "report.html", to_html(report, cards))
