"""The report cards of a comparison, one folder a row."""

from pathlib import Path
from typing import Any

from msgm.cards.views import Card
from msgm.classifier.assemble import Report
from msgm.classifier.card import WORDS
from msgm.folders import place
from msgm.runs import Run
from msgm.study.card import write_card


def card_links(report: Report) -> dict[tuple[str, str], str]:
    """Return where each row's card stands, relative to the report and without its ending, by request and method."""
    return {(row["request"], row["method"]): _card(row) for row in report["rows"]}


def _card(row: dict[str, Any]) -> str:
    return place(Path("cards"), row["request"], row["method"], "card", key="rows[] of the report").as_posix()


def write_cards(run: Run, report: Report) -> dict[tuple[str, str], Card]:
    """Write card.json, card.md and card.html of every row; return the cards by request and method."""
    links = card_links(report)
    rows = {(row["request"], row["method"]): row for row in report["rows"]}
    return {key: write_card((run.path / links[key]).parent, report, row, WORDS) for key, row in rows.items()}
