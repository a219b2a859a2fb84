"""Where the report cards of a comparison lie, and writing them."""

from msgm.classifier.assemble import Report
from msgm.runs import Run


def card_links(report: Report) -> dict[tuple[str, str], str]:
    """Return where each row's card stands, relative to the report and without its ending, by request and method."""
    return {}


def write_cards(run: Run, report: Report) -> None:
    """Write card.json, card.md and card.html of every row."""
