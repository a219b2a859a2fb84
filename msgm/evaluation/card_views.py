"""Views of report cards: Markdown with pictures beside it, and one self-contained HTML page."""

import base64
from pathlib import Path
from typing import Any
from urllib.parse import quote

from msgm.evaluation.card import FORBIDDEN, NOT_RECORDED, SECTIONS, card
from msgm.evaluation.claims import NOT_TESTED, WRONG_REFERENCE
from msgm.evaluation.figures import FIGURES, card_figures
from msgm.evaluation.metrics.base import Report, Row
from msgm.runs import Run, write_bytes, write_json, write_text

Card = dict[str, Any]
SHOWN = {"this": "this model", "base": "base", "retrain": "retrained", "random": "random weights"}


def write_cards(run: Run, report: Report) -> None:
    """Write card.json, card.md with its figures, and card.html of every row."""
    for row in report["rows"]:
        place = run.path / card_place(report, row)
        made = card(report, row)
        pictures = card_figures(run, report, row)
        write_json(_with_ending(place, ".json"), made)
        folder = place.with_name(place.name.removesuffix("card") + "figures")
        for name, picture in pictures.items():
            write_bytes(folder / f"{name}.png", picture)
        links = {name: quote(f"{folder.name}/{name}.png") for name in pictures}
        write_text(_with_ending(place, ".md"), card_markdown(made, links))
        write_text(_with_ending(place, ".html"), card_html(made, pictures))


def _with_ending(place: Path, ending: str) -> Path:
    """Return the path with an ending; names of runs may hold dots, which ``with_suffix`` would cut."""
    return place.with_name(place.name + ending)


def card_place(report: Report, row: Row) -> str:
    """Return where a row's card stands, relative to the report, without its ending.

    In a comparison it is the row's folder; else beside the report, under the row's name unless the report is about the
    run that it lies in.
    """
    if report.get("base") is not None:
        return f"rows/{row['name']}/card"
    return "card" if row.get("model") == "model" else f"{row['name']}-card"


def card_links(report: Report) -> dict[str, str]:
    """Return where each row's card stands, by the row's name, without its ending."""
    return {row["name"]: card_place(report, row) for row in report["rows"]}


def shown(value: Any, missing: str = NOT_RECORDED) -> str:
    """Return a value of a card as text: what is null was not recorded, or not tested."""
    if value is None:
        return missing
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, dict):
        return ", ".join(f"{key} {shown(part, missing)}" for key, part in value.items()) or "none"
    return f"{value:g}" if isinstance(value, float) else str(value)


def facts(made: Card) -> dict[str, list[tuple[str, str]]]:
    """Return the card's parts that are lists of facts, as title and lines."""
    untested = {"near_duplicates_searched", "oracle_passes_own_audit", "original_flagged"}
    parts = {"What was asked": "request", "Method": "method", "Reference": "reference", "Record": "header"}
    return {
        title: [
            (key.replace("_", " "), shown(value, NOT_TESTED if key in untested else NOT_RECORDED))
            for key, value in made[part].items()
            if key != "note" or value is not None
        ]
        for title, part in parts.items()
    }


def number_table(made: Card, section: str) -> list[list[str]]:
    """Return the numbers of a section as text: test, number, this model, references, note."""
    return [
        [line["test"], line["number"], *(shown(line[key], NOT_TESTED) for key in SHOWN), _note(line)]
        for line in made["numbers"][section]
    ]


def _note(line: dict[str, Any]) -> str:
    better = f"{line['better']} is better" if line["better"] else ""
    return "; ".join(filter(None, [better, line["note"]]))


def _retrain_heading(made: Card) -> str:
    """Return the heading of the retrained model's column, which says where it is no reference."""
    return f"{SHOWN['retrain']} ({WRONG_REFERENCE})" if made["reference"]["note"] else SHOWN["retrain"]


def number_headings(made: Card) -> list[str]:
    """Return the headings of ``number_table``."""
    return ["test", "number", SHOWN["this"], SHOWN["base"], _retrain_heading(made), SHOWN["random"], "note"]


def artifact_lines(made: Card) -> list[str]:
    """Return the files that still hold the data, a line each."""
    found = made["artifacts"]["found"]
    if found is None:
        return [NOT_RECORDED]
    return [f"{a['path']} ({a['megabytes']:g} MB): {a['what']}" for a in found] or ["none found in this folder"]


def missing_figures(pictures: dict[str, Any]) -> list[str]:
    """Return a line for each figure that could not be drawn."""
    return [
        f"figure: {caption.split('. ')[0].rstrip('.')}" for name, caption in FIGURES.items() if name not in pictures
    ]


def card_markdown(made: Card, links: dict[str, str]) -> str:
    """Return a card as Markdown; ``links`` are the paths of its figures."""
    lines = [
        f"# {made['title']}: {made['name']}",
        "",
        f"**{made['level']}, {made['level_name']}.** {made['statement']}",
    ]
    lines += _list("What was asked", [f"{key}: {value}" for key, value in facts(made)["What was asked"]])
    lines += ["", "## What was shown, by level", "", *_table(["level", "verdict", "rule"], _claim_rows(made)), ""]
    for claim in made["claims"]:
        lines += [
            f"- {claim['level']}, {check['name']}: {_holds(check)}; {check['evidence']}" for check in claim["checks"]
        ]
    lines += ["", *(f"- {c['level']} is {c['verdict']}: {reason}" for c in made["claims"] for reason in c["reasons"])]
    controls = [[c["name"], c["expected"], c["verdict"], c["evidence"]] for c in made["controls"]]
    lines += ["", "## Controls", "", *_table(["control", "expected", "verdict", "evidence"], controls)]
    for section in SECTIONS:
        rows = number_table(made, section)
        lines += ["", f"## {section.capitalize()}", ""]
        lines += _table(number_headings(made), rows) if rows else [NOT_TESTED]
    for name, caption in FIGURES.items():
        lines += ["", f"![{caption}]({links[name]})", "", caption] if name in links else []
    lines += _list(NOT_TESTED, made["not_tested"] + missing_figures(links))
    lines += _list("What cannot be said", made["cannot_say"])
    lines += _list("Files here that still hold the data", artifact_lines(made))
    for title in ("Method", "Reference", "Record"):
        lines += _list(title, [f"{key}: {value}" for key, value in facts(made)[title]])
    lines += _list("Protocol", [f"{name}: {text}" for name, text in made["protocol"].items()])
    return "\n".join(lines) + "\n"


def _claim_rows(made: Card) -> list[list[str]]:
    return [[f"{c['level']} {c['name']}", c["verdict"], c["rule"]] for c in made["claims"]]


def _holds(check: dict[str, Any]) -> str:
    return {True: "yes", False: "no", None: "unknown"}[check["holds"]]


def _list(title: str, lines: list[str]) -> list[str]:
    return ["", f"## {title}", "", *(f"- {line}" for line in lines)]


def _table(head: list[str], rows: list[list[str]]) -> list[str]:
    return ["| " + " | ".join(_cell(cell) for cell in line) + " |" for line in [head, ["---"] * len(head), *rows]]


def _cell(text: str) -> str:
    return text.replace("|", "\\|")


def _encoded(picture: bytes) -> str:
    """Return a picture as base64 in which no withheld word stands by chance: browsers skip the line break in it."""
    return FORBIDDEN.sub(lambda found: f"{found[0][0]}\n{found[0][1:]}", base64.b64encode(picture).decode())


def card_html(made: Card, pictures: dict[str, bytes]) -> str:
    """Return a card as one HTML page with its figures inside."""
    from jinja2 import Environment, PackageLoader, select_autoescape

    environment = Environment(loader=PackageLoader("msgm.evaluation"), autoescape=select_autoescape(), trim_blocks=True)
    return environment.get_template("card.html").render(
        card=made,
        facts=facts(made),
        headings=number_headings(made),
        tables={section: number_table(made, section) for section in SECTIONS},
        captions=FIGURES,
        pictures={name: _encoded(picture) for name, picture in pictures.items()},
        not_tested=made["not_tested"] + missing_figures(pictures),
        artifacts=artifact_lines(made),
        holds=_holds,
    )
