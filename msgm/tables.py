"""Tables as text: aligned for a terminal, and in Markdown."""

from collections.abc import Sequence
from dataclasses import dataclass


@dataclass(frozen=True)
class Table:
    """A table with its title and the notes below it."""

    title: str
    head: list[str]
    rows: list[list[str]]
    notes: list[str]

    def text(self) -> str:
        """Return the table for a terminal."""
        return "\n".join([self.title, *aligned(self.head, self.rows), *self.notes])

    def markdown(self) -> list[str]:
        """Return the table as a section in Markdown, by lines."""
        lines = [f"## {self.title}", "", *markdown_table(self.head, self.rows), ""]
        return [*lines, *(f"- {note}" for note in self.notes), ""]


def aligned(head: Sequence[str], rows: Sequence[Sequence[str]]) -> list[str]:
    """Return the lines of a table for a terminal: the first column to the left, the others to the right."""
    lines = [head, *rows]
    widths = [max(len(line[i]) for line in lines) for i in range(len(head))]
    found = []
    for line in lines:
        first, *rest = (cell.rjust(width) for cell, width in zip(line, widths, strict=True))
        found.append("  ".join([first.strip().ljust(widths[0]), *rest]))
    return found


def markdown_table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> list[str]:
    """Return the lines of a table in Markdown: the first column to the left, the others to the right."""
    rule = ["---"] + ["---:" for _ in head[1:]]
    return ["| " + " | ".join(line) + " |" for line in [head, rule, *rows]]
