r"""Text that msgm did not write itself, made safe for Markdown files, figures and the terminal.

A title, a class, a method or a note may hold anything: line breaks, ``|``, backticks, HTML, ``$``. Every view writes
such text through this file, so that it reads as it was written and never becomes a heading, a table, a picture or HTML.
"""

import re
import unicodedata
from collections.abc import Iterable, Sequence
from urllib.parse import quote

_BREAKS = {"Cc", "Zl", "Zp"}
_TURNS = dict.fromkeys(map(ord, "\u202a\u202b\u202c\u202d\u202e\u2066\u2067\u2068\u2069"))
"""Characters that change the direction of text, so that it reads as something else."""
_SPECIAL = re.compile(
    r"""
      \\(?=[!-/:-@\[-`{-~]|$)       # a backslash that would escape what follows
    | [`*~$|<]                      # code, emphasis, strikethrough, formulas, cells, tags
    | (?<![^\W_])_+ | _+(?![^\W_])  # emphasis; inside a word an underscore is one
    | \](?=[(\[:])                  # links and pictures
    | (?<!\S)\#                     # headings, and what closes one
    | &(?=\#?\w+;)                  # entities
    """,
    re.VERBOSE,
)
_IN_LINK = re.compile(_SPECIAL.pattern + r"| [\[\]]", re.VERBOSE)
_START = re.compile(r"[-+=](?!\w)|[>\[]|\d{1,9}(?=[.)](\s|$))")
"""What at the start of a line is a list, a rule, a quotation, or defines a link."""


def line(text: object) -> str:
    """Return a text as one line: line breaks and other control characters become spaces."""
    plain = str(text).translate(_TURNS).encode("utf-8", "replace").decode()
    return " ".join("".join(" " if unicodedata.category(c) in _BREAKS else c for c in plain).split())


def cell(text: object) -> str:
    """Return a text as one line that Markdown shows as it stands, within a line or a table."""
    return _plain(text, _SPECIAL)


def text(text: object) -> str:
    """Return a text as ``cell`` does, for the start of a line: no list, quotation or heading begins with it."""
    made = cell(text)
    if not _START.match(made):
        return made
    number = re.match(r"\d+", made)
    return f"{number[0]}\\{made[number.end() :]}" if number else _escaped(made[0]) + made[1:]


def _plain(text: object, special: re.Pattern[str]) -> str:
    return special.sub(lambda found: "".join(map(_escaped, found[0])), line(text))


def _escaped(character: str) -> str:
    """Return a character escaped for Markdown; tags become entities, as not all readers support the backslash."""
    return {"<": "&lt;", ">": "&gt;", "&": "&amp;"}.get(character, f"\\{character}")


def heading(title: object, level: int = 2) -> list[str]:
    """Return a heading with the blank lines around it, as lines."""
    return ["", f"{'#' * level} {text(title)}", ""]


def bullets(lines: Iterable[object]) -> list[str]:
    """Return texts as the lines of a list."""
    return [f"- {text(each)}" for each in lines]


def section(title: object, lines: Iterable[object], level: int = 2) -> list[str]:
    """Return a heading with a list below it, as lines."""
    return [*heading(title, level), *bullets(lines)]


def document(lines: Iterable[str]) -> str:
    """Return lines as a file, with one blank line where there are several."""
    return re.sub(r"\n{3,}", "\n\n", "\n".join(lines)).strip() + "\n"


def link(label: object, path: str) -> str:
    """Return a link to a file beside the document."""
    return f"[{_plain(label, _IN_LINK)}]({quote(path)})"


def table(head: Sequence[str], rows: Sequence[Sequence[str]], left: int = 1) -> list[str]:
    """Return the lines of a table, its first ``left`` columns to the left and the others to the right."""
    rule = ["---" if column < left else "---:" for column in range(len(head))]
    return ["| " + " | ".join(cells) + " |" for cells in [map(cell, head), rule, *(map(cell, row) for row in rows)]]


def label(text: object) -> str:
    """Return a text as matplotlib draws it as it stands: no formula, and no ``_`` that hides it from a legend."""
    return re.sub("^_", " _", line(text)).replace("$", r"\$")
