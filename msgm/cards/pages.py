"""The HTML page of a report: its contents as plain data, for reports of every kind, and the template.

A page shows, in this order: a verdict for every row, what forgetting costs (``chart``), tables of numbers, pictures,
how it was measured, and the methods. It is self-contained, loads nothing over the network, and can be read without
JavaScript, which only sorts tables.
"""

import base64
import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cache
from typing import TYPE_CHECKING, Any
from urllib.parse import quote

from msgm import markdown as md
from msgm import tables
from msgm.cards.chart import Chart, draw
from msgm.cards.claims import FAIL, INCONCLUSIVE, PASS

if TYPE_CHECKING:
    from jinja2 import Environment

SIGNS = {PASS: "✓", FAIL: "✗", INCONCLUSIVE: "?"}
"""What stands beside a verdict, so that colour alone says nothing."""


FEW = 40
"""So many verdicts are shown with their sentences at once; more are opened heading by heading."""
LADDER = (
    "Levels, the weakest first: C0, nothing shown; C1, behavioural; C2, attack-bounded; C3, not told from retrained "
    "models within a band; C4, exact by algorithm; C5, a proven bound. Below C4 nothing is said of the weights."
)


@dataclass(frozen=True, kw_only=True)
class Verdict:
    """The verdict on one row.

    Attributes:
        name: of the row.
        level: of the ladder, with its name; or another verdict in a word or two.
        state: PASS where anything was shown, else FAIL or INCONCLUSIVE.
        sentence: the card's statement.
        why: why no higher level was reached; may be empty.
        href: of the row's card; empty where there is none.
    """

    name: str
    level: str
    state: str
    sentence: str
    why: str = ""
    href: str = ""

    @property
    def sign(self) -> str:
        """A sign for the state."""
        return SIGNS[self.state]


def state_of(card: Mapping[str, Any]) -> str:
    """Return PASS for a card with a level above C0, else the verdict of its first claim."""
    first = card["claims"][0]
    return PASS if card["level"] != "C0" else str(first["verdict"]) if first["claimed"] else INCONCLUSIVE


def verdict_of(card: Mapping[str, Any], name: str, place: str) -> Verdict:
    """Return a card's verdict.

    Args:
        card: as ``msgm.cards.views`` describes it.
        name: of the row.
        place: where the card stands, without its ending.
    """
    shown = card["level"] != "C0"
    next_claim = next((c for c in card["claims"] if c["claimed"] and c["verdict"] != PASS and c["reasons"]), None)
    why = f"{next_claim['level']}, {next_claim['verdict']}: {next_claim['reasons'][0]}" if next_claim else ""
    return Verdict(
        name=name,
        level=f"{card['level']}, {card['level_name']}",
        state=state_of(card),
        sentence=card["statement"] if shown else "",
        why=why,
        href=quote(f"{place}.html"),
    )


def alike(verdicts: Sequence[Verdict]) -> list[list[Verdict]]:
    """Group equal verdicts, each group at the place of its first member."""
    found: dict[tuple[str, ...], list[Verdict]] = {}
    for verdict in verdicts:
        key = (verdict.level, verdict.state, verdict.sentence, verdict.why)
        found.setdefault(key, []).append(verdict)
    return list(found.values())


@dataclass(frozen=True, kw_only=True)
class Column:
    """A column of a table: its heading, which way is better (empty: neither), and whether it holds words."""

    heading: str
    better: str = ""
    words: bool = False


@dataclass(frozen=True, kw_only=True)
class Table:
    """A table of numbers.

    Attributes:
        title: its caption.
        columns: in their order.
        rows: a text for every column; an ``Outside`` is marked.
        notes: sentences below the table.
        name: the column that names the row.
        hrefs: by row, where its name leads to.
    """

    title: str
    columns: Sequence[Column]
    rows: Sequence[Sequence[str]]
    notes: Sequence[str] = ()
    name: int = 0
    hrefs: Mapping[int, str] = field(default_factory=dict)


def table_of(table: tables.Table, words: int = 1, hrefs: Mapping[int, str] | None = None) -> Table:
    """Convert a terminal table to a table of a page.

    Args:
        table: with its title and notes.
        words: how many columns, from the left, hold words; the last of them names the row.
        hrefs: by row, where its name leads to.
    """
    columns = [Column(heading=heading, words=k < words) for k, heading in enumerate(table.head)]
    return Table(
        title=table.title, columns=columns, rows=table.rows, notes=table.notes, name=words - 1, hrefs=hrefs or {}
    )


@dataclass(frozen=True, kw_only=True)
class Picture:
    """A picture with its caption.

    Attributes:
        png: its bytes.
        caption: what it shows.
        alt: the same for those who do not see it, where the caption alone would not do.
        pixels: whether it shows items, whose pixels are drawn as squares.
        href: of the card that belongs to it.
        bars: names and counts of a histogram, and whether each was to be forgotten.
        note: a sentence on the bars.
    """

    png: bytes
    caption: str
    alt: str = ""
    pixels: bool = False
    href: str = ""
    bars: Sequence[tuple[str, int, bool]] = ()
    note: str = ""

    @property
    def source(self) -> str:
        """The picture as a URL."""
        return f"data:image/png;base64,{base64.b64encode(self.png).decode()}"


@dataclass(frozen=True, kw_only=True)
class Page:
    """The contents of a report's page.

    Attributes:
        title: of the report.
        kind: of the report, in words.
        lead: sentences that stand first.
        weak: whether the lead warns that the numbers are unreliable.
        asked: the request and what the report can show, by name.
        levels: what the verdicts mean.
        verdicts: of rows, by heading; an empty heading where there is only one list.
        charts: forgetting against cost; charts without points are left out.
        choosing: how to read the charts.
        legend: how to read the tables.
        tables: of numbers.
        figures: other plots.
        samples: pictures of the models' samples.
        facts: how it was measured, by section.
        methods: settings and card of each, by name.
    """

    title: str
    kind: str
    lead: Sequence[str] = ()
    weak: bool = False
    asked: Mapping[str, str] = field(default_factory=dict)
    levels: str = LADDER
    verdicts: Mapping[str, Sequence[Verdict]]
    charts: Sequence[Chart] = ()
    choosing: str
    legend: Sequence[str] = ()
    tables: Sequence[Table]
    figures: Sequence[Picture] = ()
    samples: Sequence[Picture] = ()
    facts: Mapping[str, Mapping[str, str]]
    methods: Mapping[str, tuple[str, str]]


def render(name: str, **values: Any) -> str:
    """Return a template of ``msgm.cards`` filled with values, as one HTML page that needs nothing else."""
    return _environment().get_template(name).render(values)


def report_html(page: Page) -> str:
    """Return the page of a report."""
    verdicts = {heading: alike(found) for heading, found in page.verdicts.items()}
    return render(
        "report.html",
        page=page,
        verdicts=verdicts,
        few=sum(map(len, verdicts.values())) <= FEW,
        drawings=[(chart, draw(chart)) for chart in page.charts if chart.points],
    )


@cache
def _environment() -> "Environment":
    from jinja2 import Environment, PackageLoader, select_autoescape

    found = Environment(loader=PackageLoader("msgm.cards"), autoescape=select_autoescape(), trim_blocks=True)
    script = found.get_template("page.js").render()
    # Browsers run the script of this hash and no other, whatever names and notes hold.
    digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
    found.globals |= {"script": script, "script_digest": digest}
    return found


def listed(settings: Mapping[str, Any]) -> str:
    """Return settings as text."""
    return ", ".join(f"{key} {value}" for key, value in settings.items()) or "no settings"


def methods_of(report: Mapping[str, Any]) -> dict[str, tuple[str, str]]:
    """Return every method's settings, as text, and card, from the first of its rows."""
    return {row["method"]: (listed(row["settings"]), row["card"]) for row in reversed(report["rows"])}


def methods_markdown(report: Mapping[str, Any]) -> list[str]:
    """Return the section on the methods, as lines of Markdown."""
    lines = md.heading("Methods")
    for name, (settings, card) in methods_of(report).items():
        lines += [*md.heading(name, 3), md.text(f"Here: {settings}."), "", *md.bullets(card.splitlines()), ""]
    return lines
