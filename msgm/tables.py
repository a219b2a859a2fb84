"""Tables as text: aligned for a terminal, and in Markdown."""

from collections.abc import Sequence
from dataclasses import dataclass

from msgm.markdown import bullets, heading, line, table


class Outside(str):
    """A cell whose number lies outside its band; pages colour it."""

    outside = True


@dataclass(frozen=True)
class Table:
    """A table with its title and the notes below it."""

    title: str
    head: list[str]
    rows: list[list[str]]
    notes: list[str]

    def text(self) -> str:
        """Return the table for a terminal."""
        return "\n".join([line(self.title), *aligned(self.head, self.rows), *map(line, self.notes)])

    def markdown(self) -> list[str]:
        """Return the table as a section in Markdown, by lines."""
        return [*heading(self.title), *table(self.head, self.rows), "", *bullets(self.notes)]


def aligned(head: Sequence[str], rows: Sequence[Sequence[str]]) -> list[str]:
    """Return the lines of a table for a terminal: the first column to the left, the others to the right."""
    lines = [[line(cell) for cell in cells] for cells in [head, *rows]]
    widths = [max(len(cells[i]) for cells in lines) for i in range(len(head))]
    found = []
    for cells in lines:
        first, *rest = (cell.rjust(width) for cell, width in zip(cells, widths, strict=True))
        found.append("  ".join([first.strip().ljust(widths[0]), *rest]))
    return found
