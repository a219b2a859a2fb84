"""Writes the files of a report's cards, and gives their paths."""

from pathlib import Path
from urllib.parse import quote

from msgm import traces
from msgm.cards.views import card_html, card_markdown
from msgm.evaluation.card import card
from msgm.evaluation.figures import card_figures
from msgm.evaluation.metrics.base import Report, Row
from msgm.folders import check_name, place, write_bytes, write_json, write_text
from msgm.runs import Run

KEY = "rows[].name of the report"
Pictures = dict[str, dict[str, bytes]]
"""By the row's name, its card's figures as PNG by theirs."""


def draw_cards(run: Run, report: Report) -> Pictures:
    """Return the figures of every row's card."""
    return {row["name"]: card_figures(run, report, row) for row in report["rows"]}


def write_cards(run: Run, report: Report, drawn: Pictures | None = None) -> None:
    """Write card.json, card.md with its figures, and card.html of every row; ``drawn`` are the figures, if at hand."""
    drawn = draw_cards(run, report) if drawn is None else drawn
    for row in report["rows"]:
        base = run.path / card_place(report, row)
        made = card(report, row)
        pictures = drawn[row["name"]]
        write_json(_with_ending(base, ".json"), made)
        folder = base.with_name(base.name.removesuffix("card") + "figures")
        for name, picture in pictures.items():
            write_bytes(folder / f"{name}.png", picture)
        links = {name: quote(f"{folder.name}/{name}.png") for name in pictures}
        for path in (folder, _with_ending(base, ".html")) if pictures else ():
            traces.register(run.path, path, "the card's figures: samples, and training items that are nearest to them")
        write_text(_with_ending(base, ".md"), card_markdown(made, links))
        write_text(_with_ending(base, ".html"), card_html(made, pictures))


def _with_ending(path: Path, ending: str) -> Path:
    """Return the path with an ending; names of runs may hold dots, which ``with_suffix`` would cut."""
    return path.with_name(path.name + ending)


def card_place(report: Report, row: Row) -> str:
    """Return where a row's card stands, relative to the report, without its ending.

    In a comparison it is the row's folder; else beside the report, under the row's name unless the report is about the
    run that it lies in.
    """
    if report.get("base") is not None:
        return place(Path("rows"), row["name"], "card", key=KEY).as_posix()
    return "card" if row.get("model") == "model" else f"{check_name(row['name'], KEY)}-card"


def card_links(report: Report) -> dict[str, str]:
    """Return where each row's card stands, by the row's name, without its ending."""
    return {row["name"]: card_place(report, row) for row in report["rows"]}
