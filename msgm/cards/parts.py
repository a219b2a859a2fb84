"""Parts of a card of one row of a report that are the same for classifiers and recommenders."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from msgm.cards.claims import NOT_TESTED, PASS, Control
from msgm.cards.reading import Entry, Row, oracles
from msgm.cards.views import Card, card_html, card_markdown
from msgm.cards.words import WRONG_REFERENCE
from msgm.folders import write_json, write_text

SECTIONS = ("utility", "forgetting", "privacy", "residue")


def write_plain_card(folder: Path, card: Card) -> None:
    """Write card.json, card.md and card.html of a card without figures into a folder."""
    write_json(folder / "card.json", card)
    write_text(folder / "card.md", card_markdown(card, {}))
    write_text(folder / "card.html", card_html(card, {}))


def method_lines(card: str | None) -> dict[str, str]:
    """Return the lines of a method's own card, such as its formula and source, by their names."""
    return dict(line.split(": ", 1) for line in (card or "").split("\n") if ": " in line)


def kept(row: Row, where: str) -> str:
    """Return what is known of where the data still are: ``where``, and in what the method keeps."""
    if not row["storage_bytes"]:
        return where
    return f"{where} The method keeps {row['storage_bytes'] / 2**20:.2f} MB between requests, made from the data."


def reference(row: Row, checked: Sequence[Control], power: str, observed: bool) -> dict[str, Any]:
    """Return what is known of the retrained models.

    Args:
        row: of the report.
        checked: the two controls: the original model, then each retrained model held out.
        power: how many held-out retrained models pass C3's rule, in words.
        observed: whether retraining answers the request exactly.
    """
    flagged, passed = ({PASS: True, NOT_TESTED: None}.get(control.verdict, False) for control in checked)
    return {
        "oracle_kind": "retrain" if oracles(row) else "none",
        "n_oracles": oracles(row),
        "oracle_passes_own_audit": passed,
        "original_flagged": flagged,
        "power_of_c3": power,
        "note": None if observed else WRONG_REFERENCE,
    }


def columns(observed: bool) -> dict[str, str]:
    """Return the columns of the numbers, with their headings."""
    note = "" if observed else f" ({WRONG_REFERENCE})"
    return {
        "this": "this model",
        "original": "original",
        "band": f"band of retrained models{note}",
        "inside": f"inside the band{note}",
    }


def inside(entry: Entry) -> str | None:
    """Return in how many seeds a number lies inside its band, as text."""
    if entry["inside"] is None:
        return None
    if entry["seeds"] == 1:
        return "yes" if entry["inside"] else "no"
    return f"{entry['inside']} of {entry['seeds']} seeds"


def metric_of(number: str, metrics: Mapping[str, Any]) -> str:
    """Return the metric that gives a number; the number's own name for a metric that is not known here."""
    return next((name for name, metric in metrics.items() if number in metric.numbers), number)


def like_the_original(row: Row, original: Row | None, numbers: Sequence[str]) -> bool:
    """Return whether a row has the same values as the original, in those of the numbers that both have."""
    if original is None or original["method"] == row["method"]:
        return False
    mine, other = row["metrics"], original["metrics"]
    values = [(mine[name]["value"], other[name]["value"]) for name in numbers if name in mine and name in other]
    return bool(values) and all(a is not None and b is not None and abs(a - b) < 1e-3 for a, b in values)
