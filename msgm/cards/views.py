"""Views of a report card: Markdown with pictures beside it, and one self-contained HTML page.

A card is a JSON tree with: ``title``, ``name``, ``level``, ``level_name``, ``statement``; ``request``, ``method``,
``reference``, ``header`` (facts by name; null was not recorded or not tested); ``claims`` and ``controls`` as
``claims`` makes them; ``columns`` (key to heading) and ``numbers`` (section to lines of ``test``, ``number``, a text or
null for each column, ``better``, ``note``); ``figures`` (name to ``caption`` and ``look``: plot, pixels or wide);
``protocol`` (name to text); ``not_tested``, ``cannot_say`` (lines); ``artifacts`` (``found``: files of ``path``,
``megabytes``, ``what``, or null; ``note``).
"""

import base64
from collections.abc import Mapping
from typing import Any

from msgm import markdown as md
from msgm.cards.claims import FAIL, NOT_TESTED
from msgm.cards.pages import SIGNS, render, state_of
from msgm.cards.words import NOT_RECORDED, WRONG_REFERENCE

Card = dict[str, Any]
NOT_CLAIMED = "not claimed"
HISTORY = "What the model was asked so far"
HISTORY_HEADINGS = ["", "request", "answered by", "date", "items", "now", "evidence", "numbers"]
PARTS = {"What was asked": "request", "Method": "method", "Reference": "reference", "Record": "header"}
TESTED = {"near_duplicates_searched", "oracle_passes_own_audit", "original_flagged"}
"""Facts that are found by testing: null says that nobody tested."""


def shown(value: Any, missing: str = NOT_RECORDED) -> str:
    """Return a value of a card as text; null becomes "not recorded" or "not tested"."""
    if value is None:
        return missing
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, dict):
        return ", ".join(f"{key} {shown(part, missing)}" for key, part in value.items()) or "none"
    return f"{value:g}" if isinstance(value, float) else str(value)


def headline(card: Card) -> tuple[str, str]:
    """Return the level with its name, and the statement; C0's name would say the statement twice."""
    lead = card["level"] if card["level"] == "C0" else f"{card['level']}, {card['level_name']}"
    return lead, card["statement"]


def verdict(claim: dict[str, Any]) -> str:
    """Return a claim's verdict as it is shown; a FAIL of a claim that the method does not make is "not claimed"."""
    return NOT_CLAIMED if claim["verdict"] == FAIL and not claim["claimed"] else str(claim["verdict"])


def facts(card: Card) -> dict[str, list[tuple[str, str]]]:
    """Return the card's parts that are lists of facts, as title and lines."""
    return {
        title: [
            (key.replace("_", " "), shown(value, NOT_TESTED if key in TESTED else NOT_RECORDED))
            for key, value in card[part].items()
            if key != "note" or value is not None
        ]
        for title, part in PARTS.items()
    }


def number_headings(card: Card) -> list[str]:
    """Return the headings of ``number_table``."""
    return ["test", "number", *card["columns"].values(), "note"]


def number_table(card: Card, section: str) -> list[list[str]]:
    """Return the numbers of a section as text: test, number, the card's columns, note."""
    return [
        [line["test"], line["number"], *(shown(line[key], NOT_TESTED) for key in card["columns"]), _note(line)]
        for line in card["numbers"][section]
    ]


def _note(line: dict[str, Any]) -> str:
    better = f"{line['better']} is better" if line["better"] else ""
    return "; ".join(filter(None, [better, line["note"]]))


def history_table(card: Card) -> list[list[str]]:
    """Return the requests that the model answered as text, a line each; cards of the first version have none."""
    lines = (card.get("history") or {}).get("lines", [])
    keys = ("number", "text", "by", "date", "items", "verdict", "evidence")
    return [[*(shown(line[key]) for key in keys), "; ".join(map(": ".join, line["numbers"].items()))] for line in lines]


def card_notes(card: Card) -> list[str]:
    """Return the notes on a card's history."""
    notes: list[str] = (card.get("history") or {}).get("notes", [])
    return notes if notes or history_table(card) else ["Nothing is recorded of earlier requests."]


def artifact_lines(card: Card) -> list[str]:
    """Return the files that still hold the data, a line each."""
    found = card["artifacts"]["found"]
    if found is None:
        return [NOT_RECORDED]
    return [f"{a['path']} ({a['megabytes']:g} MB): {a['what']}" for a in found] or ["none found in this folder"]


def not_tested(card: Card, pictures: Mapping[str, Any]) -> list[str]:
    """Return the lines on missing tests, with one for each figure that could not be drawn."""
    captions = [figure["caption"] for name, figure in card["figures"].items() if name not in pictures]
    return card["not_tested"] + [f"figure: {caption.split('. ')[0].rstrip('.')}" for caption in captions]


def card_markdown(card: Card, links: Mapping[str, str]) -> str:
    """Return a card as Markdown; ``links`` are the paths of its figures."""
    lead, statement = headline(card)
    lines = [*md.heading(f"{card['title']}: {card['name']}", 1), f"**{md.cell(lead)}.** {md.cell(statement)}"]
    lines += _facts(card, "What was asked")
    lines += [*md.heading(HISTORY), *_table(HISTORY_HEADINGS, history_table(card)), "", *md.bullets(card_notes(card))]
    lines += _claims(card)
    controls = [[c["name"], c["expected"], c["verdict"], c["evidence"]] for c in card["controls"]]
    lines += [*md.heading("Controls"), *_table(["control", "expected", "verdict", "evidence"], controls)]
    for section in card["numbers"]:
        rows = number_table(card, section)
        lines += [*md.heading(section.capitalize()), *(_table(number_headings(card), rows) if rows else [NOT_TESTED])]
    for name, path in links.items():
        caption = md.text(card["figures"][name]["caption"])
        lines += ["", f"![{caption}]({path})", "", caption]
    lines += md.section(NOT_TESTED, not_tested(card, links))
    lines += md.section("What cannot be said", card["cannot_say"])
    lines += md.section("Files here that still hold the data", artifact_lines(card))
    for title in ("Method", "Reference", "Record"):
        lines += _facts(card, title)
    lines += md.section("Protocol", (f"{name}: {about}" for name, about in card["protocol"].items()))
    return md.document(lines)


def _facts(card: Card, title: str) -> list[str]:
    return md.section(title, (f"{key}: {value}" for key, value in facts(card)[title]))


def _claims(card: Card) -> list[str]:
    rows = [[f"{c['level']} {c['name']}", verdict(c), c["rule"]] for c in card["claims"]]
    checks = [
        f"{claim['level']}, {check['name']}: {_holds(check)}; {check['evidence']}"
        for claim in card["claims"]
        for check in claim["checks"]
    ]
    reasons = [f"{c['level']} is {verdict(c)}: {reason}" for c in card["claims"] for reason in c["reasons"]]
    lines = [*md.heading("What was shown, by level"), *_table(["level", "verdict", "rule"], rows)]
    return [*lines, "", *md.bullets(checks), "", *md.bullets(reasons)]


def _holds(check: dict[str, Any]) -> str:
    return {True: "yes", False: "no", None: "unknown"}[check["holds"]]


def _table(head: list[str], rows: list[list[str]]) -> list[str]:
    return md.table(head, rows, left=len(head))


def card_html(card: Card, pictures: Mapping[str, bytes]) -> str:
    """Return a card as one HTML page with its figures inside."""
    return render(
        "card.html",
        card=card,
        headline=headline(card),
        state=state_of(card),
        sign=SIGNS[state_of(card)],
        verdict=verdict,
        facts=facts(card),
        headings=number_headings(card),
        history={"title": HISTORY, "headings": HISTORY_HEADINGS, "lines": history_table(card)},
        history_notes=card_notes(card),
        tables={section: number_table(card, section) for section in card["numbers"]},
        pictures={name: base64.b64encode(picture).decode() for name, picture in pictures.items()},
        not_tested=not_tested(card, pictures),
        artifacts=artifact_lines(card),
        holds=_holds,
        untested=NOT_TESTED,
        wrong_reference=WRONG_REFERENCE,
    )
