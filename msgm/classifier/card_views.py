"""Where the report cards of a comparison lie, and writing them."""

from msgm.classifier.assemble import Report
from msgm.classifier.card import write_card
from msgm.runs import Run


def card_links(report: Report) -> dict[tuple[str, str], str]:
    """Return where each row's card stands, relative to the report and without its ending, by request and method."""
    keys = [(row["request"], row["method"]) for row in report["rows"]]
    return {(request, method): f"cards/{request}/{method}/card" for request, method in keys}


def write_cards(run: Run, report: Report) -> None:
    """Write card.json, card.md and card.html of every row."""
    places = card_links(report)
    for row in report["rows"]:
        write_card((run.path / places[row["request"], row["method"]]).parent, report, row)
