"""What report pages have in common: their templates, and their methods with settings and cards."""

from collections.abc import Mapping
from functools import cache
from typing import TYPE_CHECKING, Any

from msgm import markdown as md

if TYPE_CHECKING:
    from jinja2 import Template


@cache
def template(package: str, name: str) -> "Template":
    """Return a template of a package, which may build on those of ``msgm.cards``: page.html and parts.html."""
    from jinja2 import ChoiceLoader, Environment, PackageLoader, select_autoescape

    loader = ChoiceLoader([PackageLoader(package), PackageLoader("msgm.cards")])
    return Environment(loader=loader, autoescape=select_autoescape(), trim_blocks=True).get_template(name)


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
