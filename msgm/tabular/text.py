"""Delimited text as columns of cells; errors name file and line."""

import csv
import io
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from msgm.errors import UserError
from msgm.reading import read_bytes

SPACES = " \t\x0b\x0c\x1c\x1d\x1e\x1f"
"""White space of ASCII, but for line ends."""


def read_text(path: Path, encoding: str = "utf-8-sig", option: str = "") -> str:
    """Read a text file; a byte order mark is dropped.

    Args:
        path: the file.
        encoding: UTF-8 by default.
        option: the setting that names the file, for errors; none by default.

    Raises:
        UserError: the file cannot be read, or is in another encoding.
    """
    about = f"{option}: " if option else ""
    try:
        content = read_bytes(path)
    except UserError as error:
        raise UserError(f"{about}{error}") from error
    try:
        text = content.decode(encoding)
    except UnicodeDecodeError as error:
        line = content[: error.start].count(b"\n") + 1
        raise UserError(f"{about}{path}, line {line}: this is no UTF-8 text; convert the file to UTF-8.") from error
    if "\0" in text:
        line = text[: text.index("\0")].count("\n") + 1
        raise UserError(f"{about}{path}, line {line}: a null byte, which is no text; convert the file to UTF-8.")
    return text


@dataclass(frozen=True, eq=False)
class TextTable:
    """The cells of a file, without the spaces around them.

    Attributes:
        header: names of the columns; none where the file does not give them.
        columns: one list a column, all of one length.
        line: line, counted from 1, of a row, counted from 0 after the header.
    """

    header: list[str]
    columns: list[list[str]]
    line: Callable[[int], int]


def split_cells(
    path: Path, text: str, delimiter: str, width: int | None = None, header: bool = True, quotes: bool = True
) -> TextTable:
    """Split ``text``, the content of ``path``, into cells.

    Args:
        path: for errors.
        text: the content.
        delimiter: between columns; ``::`` too.
        width: number of columns; None takes any, the same for all rows.
        header: whether the first row names the columns.
        quotes: whether cells may stand in double quotes, as in CSV.

    Raises:
        UserError: there is no row, a row has another number of columns, or a quote is not closed.
    """
    # Files with "::" between columns hold no tab.
    text, delimiter = (text.replace("::", "\t"), "\t") if delimiter == "::" else (text, delimiter)
    flat, found = _split(text, delimiter, quotes) or _parse(path, text, delimiter, width, quotes)
    names = flat[:found] if header else []
    if len(flat) <= len(names):
        raise UserError(f"{path} holds no rows.")

    def line(row: int) -> int:
        # The file is gone through again, for errors only.
        lines = (line for line, _ in _records(path, text, delimiter, width, quotes))
        return next(line for at, line in enumerate(lines) if at == row + header)

    if width not in (None, found):
        raise UserError(f"{path}, line {line(0)}: expected {width} columns, found {found}.")
    return TextTable(names, [flat[len(names) + k :: found] for k in range(found)], line)


def _split(text: str, delimiter: str, quotes: bool) -> tuple[list[str], int] | None:
    """Return all cells of a file, row by row, and their number in a row; None for what needs the slower ``_parse``.

    That is quotes, blank lines, single carriage returns and rows of different width. No list is made for a row: a
    million of them would cost seconds.
    """
    if quotes and '"' in text:
        return None
    if "\r" in text:
        text = text.replace("\r\n", "\n")
    lines = text.removesuffix("\n").split("\n")
    widths = {line.count(delimiter) for line in lines}
    if len(widths) > 1 or widths == {0} or "\r" in text:
        return None
    flat = delimiter.join(lines).split(delimiter)
    padded = not text.isascii() or any(space in text for space in SPACES if space != delimiter)
    return list(map(str.strip, flat)) if padded else flat, widths.pop() + 1


def _parse(path: Path, text: str, delimiter: str, width: int | None, quotes: bool) -> tuple[list[str], int]:
    """Do as ``_split`` for any file."""
    flat: list[str] = []
    found = width or 0
    for line, cells in _records(path, text, delimiter, width, quotes):
        found = found or len(cells)
        if len(cells) != found:
            raise UserError(f"{path}, line {line}: expected {found} columns, found {len(cells)}.")
        flat += cells
    return list(map(str.strip, flat)), found


def _records(path: Path, text: str, delimiter: str, width: int | None, quotes: bool) -> Iterator[tuple[int, list[str]]]:
    """Yield the line on which each row begins, and its cells; blank lines are left out."""
    lines = io.StringIO(text, newline="")
    rules: dict[str, Any] = {"strict": True, "skipinitialspace": True} if quotes else {"quoting": csv.QUOTE_NONE}
    reader = csv.reader(lines, delimiter=delimiter, **rules)
    line = 1
    try:
        for cells in reader:
            if cells and (len(cells) > 1 or cells[0].strip() or width == 1):  # "" is a row where there is one column
                width = width or len(cells)
                yield line, cells
            line = reader.line_num + 1
    except csv.Error as error:
        raise UserError(f"{path}, line {line}: {_reason(str(error), delimiter)}.") from error


def _reason(error: str, delimiter: str) -> str:
    """Say in words what the csv module found wrong in a row."""
    if "unexpected end of data" in error:
        return "the quote that opens here is never closed"
    if "expected after" in error:
        return f"expected {delimiter!r} or the end of the line after a closing quote"
    return error
