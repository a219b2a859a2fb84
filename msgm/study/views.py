"""The pages of a report whose rows are judged: tables, report.md, report.html and the cards, for every domain.

A domain's ``Views`` defines the numbers of its tables, the axes of its chart and its words; it may add figures and lay
out tables differently. Everything else is implemented here.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import ClassVar
from urllib.parse import quote

from msgm import markdown as md
from msgm.cards import pages
from msgm.cards.chart import Chart
from msgm.cards.pages import Page, Picture, listed, methods_markdown, methods_of, report_html, table_of, verdict_of
from msgm.cards.solves import NOT_CONVERGED, converged, solver_notes
from msgm.cards.views import Card
from msgm.cards.words import levels_reached, unsaid_of_goal
from msgm.folders import place, write_text
from msgm.runs import Run
from msgm.study.band import LEAST
from msgm.study.card import Words, write_card
from msgm.study.charts import chart_of, kind_of
from msgm.study.judging import (
    CONTROLS,
    TOO_FEW,
    Entry,
    Report,
    Row,
    half_interval,
    inside_share,
    judged_note,
    shown_limits,
)
from msgm.tables import Outside, Table

Axis = tuple[str, str]
Columns = Mapping[str, tuple[str, int]]
Cards = Mapping[str, Card]
LEGEND = (
    "Means over seeds, ± half a 95% t-interval; * lies outside the band of retrained models; ? is too few things to "
    "tell. inside: share of the judged numbers that lie in their band; numbers that are the same for every model are "
    "not judged. time: seconds as a share of retraining's."
)
EXPLAINED = "not told from fine-tuning on the retain set by the spread of seeds"
WANTED = 0.9
"""Share of numbers inside their bands from which on a method is listed as near to retraining."""


class Views:
    """How the report of a domain is shown.

    Attributes:
        kind: a word for the compared models.
        words: of the cards.
        columns: numbers that the tables show, each with its heading and scale (1, or 100 for per cent).
        axes: the numbers of the chart's horizontal and vertical axis, each with its label.
        choosing: how to read the chart.
        names: keys of a row that name it among those of one request; the last one is ``method``.
        folder: keys of a row that make the folder of its card.
    """

    kind: ClassVar[str]
    words: ClassVar[Words]
    columns: ClassVar[Columns]
    axes: ClassVar[tuple[Axis, Axis]]
    choosing: ClassVar[str]
    names: ClassVar[tuple[str, ...]] = ("method",)
    folder: ClassVar[tuple[str, ...]] = ("request", "method")

    def write(self, run: Run, report: Report) -> None:
        """Write report.md, report.html and every row's card."""
        write_text(run.path / "report.md", self.markdown(report))
        write_text(run.path / "report.html", self.html(report, self.write_cards(run, report)))

    def print(self, report: Report) -> None:
        """Print the tables, how to read them, and a line a request."""
        for table in self.tables(report).values():
            print(f"\n{table.text()}")
        print("\n" + "\n".join(map(md.line, [*self.legend(report), *self.summary(report)])))

    def link(self, row: Row) -> str:
        """Return where a row's card stands, relative to the report and without its ending.

        Raises:
            UserError: a name, as a received report may hold, that leads out of the folder.
        """
        names = [row[key] for key in self.folder]
        return place(Path("cards"), *names, "card", key="rows[] of the report").as_posix()

    def write_cards(self, run: Run, report: Report) -> dict[str, Card]:
        """Write card.json, card.md and card.html of every row; return the cards by where they stand."""
        links = {self.link(row): row for row in report["rows"]}
        return {link: write_card((run.path / link).parent, report, row, self.words) for link, row in links.items()}

    def rows(self, report: Report, request: str) -> list[Row]:
        """Return a request's rows: the controls, then the methods, those with most numbers in their bands first."""
        rows = [row for row in report["rows"] if row["request"] == request]

        def order(row: Row) -> tuple[int, float]:
            name = row["method"]
            return (CONTROLS.index(name), 0.0) if name in CONTROLS else (len(CONTROLS), -(inside_share(row) or 0.0))

        return sorted(rows, key=order)

    def tables(self, report: Report) -> dict[str, Table]:
        """Return the table of every request that has rows, or reasons why it has none."""
        found = {name: self.table(report, name) for name in report["requests"]}
        return {name: table for name, table in found.items() if table.rows or table.notes}

    def table(self, report: Report, request: str) -> Table:
        """Return the table of a request: the band of retrained models, then a line a row, for each band."""
        rows = self.rows(report, request)
        if not rows:
            return Table(self.heading(report, request), list(self.names), [], self.notes(report, request))
        shown, extras, bands = self._shown(rows), self.extras(rows), self._banded(rows)
        head = [*self.names, *(heading for heading, _ in shown.values()), "inside", "seconds", "time", *extras]
        lines, judged = [], []
        for group, own in bands.items():
            lines.append([*self._band_line(own[0], shown), *[""] * len(extras)])
            lines += [[*self._line(row, shown), *(cell(row) for cell in extras.values())] for row in own]
            judged.append(": ".join([*group, judged_note(own[0], shown)]))
        return Table(self.heading(report, request), head, lines, [*judged, *self.notes(report, request)])

    def extras(self, rows: Sequence[Row]) -> Mapping[str, Callable[[Row], str]]:
        """Return further columns of the table of these rows, by heading; by default whether solvers converged."""
        if all(map(converged, rows)):
            return {}
        return {"solver": lambda row: "" if converged(row) else NOT_CONVERGED}

    def _banded(self, rows: Sequence[Row]) -> dict[tuple[str, ...], list[Row]]:
        """Group the rows that share a band: those that agree in all of ``names`` except the method."""
        found: dict[tuple[str, ...], list[Row]] = {}
        for row in rows:
            found.setdefault(tuple(row[key] for key in self.names[:-1]), []).append(row)
        return found

    def _shown(self, rows: Sequence[Row]) -> Columns:
        """Return the columns whose number at least one of these rows has."""
        known = {name for row in rows for name, number in row["metrics"].items() if number["value"] is not None}
        return {name: column for name, column in self.columns_of(rows).items() if name in known}

    def heading(self, report: Report, request: str) -> str:
        """Return the title of a request's table."""
        return f"{request}: {report['requests'][request]['text']}"

    def columns_of(self, rows: Sequence[Row]) -> Columns:
        """Return the numbers that the table of these rows shows; by default ``columns``."""
        return self.columns

    def axes_of(self, rows: Sequence[Row]) -> tuple[Axis, Axis]:
        """Return the axes of the chart of these rows; by default ``axes``."""
        return self.axes

    def notes(self, report: Report, request: str) -> list[str]:
        """Return the notes below a request's table: solvers, rows without effect, and missing rows."""
        rows = self.rows(report, request)
        effects = [f"{self.name(row)}: {row['effect']}, {EXPLAINED}." for row in rows if row["effect"]]
        return [*solver_notes(rows), *effects, *self.left_out(report, request)]

    def left_out(self, report: Report, request: str) -> list[str]:
        """Return a sentence for each row of a request that has no numbers, with the reason."""
        return [
            f"{self.name(line)} {line['status']}{_at_seeds(line)}: {line['reason'].rstrip('.')}."
            for line in report["left_out"]
            if line["request"] == request
        ]

    def name(self, row: Mapping[str, str]) -> str:
        """Return a row's name among those of its request."""
        return ": ".join(row[key] for key in self.names)

    def legend(self, report: Report) -> list[str]:
        """Return how to read the tables: what the numbers are, and the rest."""
        texts = {name: number["text"] for row in report["rows"] for name, number in row["metrics"].items()}
        shown = {heading: texts[name] for name, (heading, _) in self.columns.items() if name in texts}
        return ["; ".join(f"{heading}: {text}" for heading, text in shown.items()) + ".", LEGEND]

    def summary(self, report: Report) -> list[str]:
        """Return a line a request: which methods lie inside the band, at what share of retraining's time."""
        return [f"{request}: {near_retraining(self.rows(report, request))}" for request in report["requests"]]

    def figures(self, rows: Sequence[Row]) -> Mapping[str, bytes]:
        """Return further figures of a request's rows as PNG, by caption; by default none."""
        return {}

    def facts(self, report: Report) -> dict[str, dict[str, str]]:
        """Return the facts on how the report was measured, by section."""
        software = listed(report["environment"]["versions"])
        seeds = ", ".join(map(str, report["seeds"]))
        return {"Protocol": report["protocol"] | self.own_facts(report) | {"seed numbers": seeds, "software": software}}

    def own_facts(self, report: Report) -> dict[str, str]:
        """Return the protocol's facts on data and models."""
        return {"data": f"{report['data']['name']} (digest {report['data']['digest']})"}

    def markdown(self, report: Report) -> str:
        """Return the report as Markdown."""
        lines = md.section(report["title"], self.summary(report), level=1)
        lines += [line for text in self.legend(report) for line in ("", md.text(text))]
        for table in self.tables(report).values():
            lines += table.markdown()
        lines += md.heading("Report cards")
        links = {f"{row['request']}: {self.name(row)}": self.link(row) for row in report["rows"]}
        lines += [f"- {md.link(label, f'{path}.md')}" for label, path in links.items()]
        for section, facts in self.facts(report).items():
            lines += md.section(section, (f"{name}: {text}" for name, text in facts.items()))
        return md.document(lines + methods_markdown(report))

    def html(self, report: Report, cards: Cards) -> str:
        """Return the report as one HTML page with its figures inside; ``cards`` by where they stand."""
        shown = self.tables(report)
        verdicts = {
            request: [verdict_of(cards[self.link(r)], self.name(r), self.link(r)) for r in self.rows(report, request)]
            for request in shown
        }
        page = Page(
            title=report["title"],
            kind=self.kind,
            lead=self.summary(report),
            asked=self.asked(report, list(shown), cards),
            verdicts=verdicts,
            charts=[chart for request in shown for chart in self.charts(report, request, cards)],
            choosing=self.choosing,
            legend=self.legend(report),
            tables=[self._on_page(report, request, table) for request, table in shown.items()],
            figures=[
                Picture(png=png, caption=f"{request}: {caption}")
                for request in shown
                for caption, png in self.figures(self.rows(report, request)).items()
            ],
            facts=self.facts(report),
            methods=methods_of(report),
        )
        return report_html(page)

    def asked(self, report: Report, requests: Sequence[str], cards: Cards) -> dict[str, str]:
        """Return what was asked, which level each row reaches, and what cannot be said of it, in words."""
        asked, shown = [], []
        for name in requests:
            asked.append(f"{name}: {report['requests'][name]['text']}.")
            levels = {self.name(row): cards[self.link(row)]["level"] for row in self.rows(report, name)}
            shown.append(f"{name}: {levels_reached(levels) or 'no row was measured'}.")
        goals = dict.fromkeys(report["requests"][name]["goal"] for name in requests)
        unsaid = [line for goal in goals for line in unsaid_of_goal(goal, "C0")]
        return {"Asked": " ".join(asked), "Shown": " ".join(shown), "Cannot be said": " ".join(unsaid)}

    def charts(self, report: Report, request: str, cards: Cards) -> Iterator[Chart]:
        """Yield the charts of a request: one for all rows that share a band."""
        for group, own in self._banded(self.rows(report, request)).items():
            kinds = {row["method"]: (row, kind_of(row["method"], cards[self.link(row)]["level"])) for row in own}
            yield chart_of(": ".join([request, *group]), kinds, *self.axes_of(own))

    def _on_page(self, report: Report, request: str, table: Table) -> pages.Table:
        """Return a table with a link from every row to its card."""
        count = len(self.names)
        links = {tuple(row[key] for key in self.names): self.link(row) for row in self.rows(report, request)}
        named = {number: links.get(tuple(line[:count])) for number, line in enumerate(table.rows)}
        return table_of(table, count, {number: f"{quote(link)}.html" for number, link in named.items() if link})

    def _band_line(self, row: Row, shown: Columns) -> list[str]:
        cells = []
        for name, (_, scale) in shown.items():
            number = row["metrics"].get(name, {})
            ends = shown_limits(number, number["band"]) if number.get("band") else ()
            cells.append("..".join(short(end, scale) for end in ends))
        seconds = row[self.words.ladder.retraining]
        named = [*(row[key] for key in self.names[:-1]), "band of retrained"]
        return [*named, *cells, "", "" if seconds is None else _seconds(seconds), "100%"]

    def _line(self, row: Row, shown: Columns) -> list[str]:
        share, time = inside_share(row), row["share_of_retraining"]
        return [
            *(row[key] for key in self.names),
            *(_cell(row["metrics"].get(name), scale) for name, (_, scale) in shown.items()),
            "" if share is None else f"{share:.0%}",
            _seconds(row["seconds"]),
            "" if time is None else _share(time),
        ]


def near_retraining(rows: Sequence[Row]) -> str:
    """Return a sentence on the methods with nearly all numbers inside the band, and on the controls' share."""
    judged = [(share, row) for row in rows if (share := inside_share(row)) is not None]
    shares = {row["method"]: (share, row) for share, row in judged}
    if not shares:
        return f"no number is judged: a band needs {LEAST} retrained models that have it."
    near = [
        f"{name} ({share:.0%} inside, {row['share_of_retraining'] or 0:.0%} of the time)"
        for name, (share, row) in shares.items()
        if share >= WANTED and name not in CONTROLS
    ]
    control = ", ".join(f"{name} {shares[name][0]:.0%}" for name in CONTROLS if name in shares)
    text = f"at least {WANTED:.0%} of the numbers inside the band: {', '.join(near) or 'no method'}"
    return f"{text}; controls: {control}." if control else f"{text}."


def _seconds(value: float) -> str:
    return f"{value:.3f}" if value < 10 else f"{value:.1f}"


def _share(value: float) -> str:
    return f"{value:.1%}" if value < 0.1 else f"{value:.0%}"


def short(value: float, scale: int) -> str:
    """Return a number as tables show it: per cent to a tenth, others to three places."""
    return f"{scale * value:z.1f}" if scale == 100 else f"{value:z.3f}"


def _cell(number: Entry | None, scale: int) -> str:
    if number is None or number["value"] is None:
        return "-"
    half = half_interval(number)
    shown = f"{short(number['value'], scale)}{'' if half is None else f' ± {short(half, scale)}'}"
    if number["place"] == TOO_FEW:
        return f"{shown}?"
    return Outside(f"{shown}*") if number["inside"] is False else shown


def _at_seeds(line: Mapping[str, Sequence[int]]) -> str:
    """Return text on the seeds at which a row is missing; empty if it is missing at all of them."""
    return f" (seed {', '.join(map(str, line['seeds']))})" if "seeds" in line else ""
