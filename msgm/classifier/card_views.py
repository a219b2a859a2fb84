"""The report cards of a comparison, one folder a row, and the files of a run that still hold the data."""

from pathlib import Path
from typing import Any

from msgm.classifier.assemble import Report
from msgm.classifier.card import write_card
from msgm.folders import place
from msgm.runs import Run

HOLDERS = {
    "models/*/original/model.safetensors": "weights of the original, trained on all items",
    "outputs/*/*/original.npz": "logits of the original on the forget items and others",
    "shadows/*.npz": "logits of models that a metric trained, most of them on forget items too",
    "outputs/*/*/methods/*.npz": "logits of an unlearned model on the forget items and others",
}
"""Files of a run folder that the forget items left traces in."""


def card_links(report: Report) -> dict[tuple[str, str], str]:
    """Return where each row's card stands, relative to the report and without its ending, by request and method."""
    return {(row["request"], row["method"]): _card(row) for row in report["rows"]}


def _card(row: dict[str, Any]) -> str:
    return place(Path("cards"), row["request"], row["method"], "card", key="rows[] of the report").as_posix()


def write_cards(run: Run, report: Report) -> None:
    """Write card.json, card.md and card.html of every row."""
    for row in report["rows"]:
        write_card((run.path / card_links(report)[row["request"], row["method"]]).parent, report, row)


def holders(run: Run) -> list[dict[str, Any]]:
    """Return the files in a run folder that still hold information of the forget items, with their sizes."""
    return [
        {"path": str(path.relative_to(run.path)), "megabytes": round(path.stat().st_size / 2**20, 3), "what": what}
        for pattern, what in HOLDERS.items()
        for path in sorted(run.path.glob(pattern))
    ]
