"""Makes docstrings, which are plain text with ``literals`` and indented formulas, valid reStructuredText.

Formulas such as ``x_``, ``|x|^2`` and ``a * b`` mean something else there, and indented ones would be quotations.
"""

import re
from typing import Any

SECTION = re.compile(
    r"(Args|Attributes|Returns|Raises|Yields|Example|Examples|Note|Notes|Warning|Keyword Args|References):\s*$"
)
LITERAL = re.compile(r"(``.+?``)")
SPECIAL = re.compile(r"(?<!`)[\\*|`]|_(?!\w)")


def escaped(line: str) -> str:
    """Return a line whose special characters outside of ``literals`` stand for themselves."""
    parts = LITERAL.split(line)
    parts[::2] = [SPECIAL.sub(r"\\\g<0>", part) for part in parts[::2]]
    return "".join(parts)


def readable(lines: list[str]) -> list[str]:
    """Return the lines with formulas as literal blocks, examples as they are, and everything else escaped."""
    found: list[str] = []
    section = example = formula = False
    for line in lines:
        indented = line.startswith("    ")
        if line.strip() and not indented:
            section, formula = bool(SECTION.match(line)), False
        example = line.lstrip().startswith(">>>") or (example and bool(line.strip()))
        if indented and not section and not example and not formula and not (found and found[-1].strip()):
            found += ["::", ""]
            formula = True
        found.append(line if example or formula or SECTION.match(line) else escaped(line))
    return found


def process(app: Any, what: str, name: str, thing: Any, options: Any, lines: list[str]) -> None:
    """Rewrite the docstring of whatever autodoc shows, in place; what Python itself says is left out."""
    if what == "class" and lines and lines[0].startswith(f"{getattr(thing, '__name__', '')}("):
        lines[:] = []  # the signature that ``dataclass`` writes where there is no docstring
    lines[:] = readable(lines)
