"""Lists of ids to forget: one user, item or index a line, or a pair; quotes are as in CSV, blank lines are skipped."""

import csv
import io
import re
from collections.abc import Iterator
from pathlib import Path

from msgm.errors import UserError
from msgm.ids import shown
from msgm.tabular.text import read_text

IN_LINE, IN_PAIR = r"\A", r"(?<![^\t,])"
"""Where a cell may begin with a quote: at the start of the line alone, or after a tab or a comma as well."""


def read_lines(path: Path, option: str = "request.file") -> list[tuple[int, str]]:
    """Read the lines of a text file that are not blank.

    Args:
        path: the file.
        option: the setting that names the file, for errors.

    Returns:
        The number of each, counted from 1, and the line as written.

    Raises:
        UserError: the file cannot be read, or is no UTF-8 text.
    """
    lines = io.StringIO(read_text(path, option=option), newline=None)
    return [(number, line.rstrip("\n")) for number, line in enumerate(lines, 1) if line.strip()]


def read_ids(path: Path, option: str = "request.file") -> tuple[list[str], list[str]]:
    """Read one id a line; one that holds a line end, or spaces or quotes at its ends, stands in quotes.

    Args:
        path: the file.
        option: the setting that names the file, for errors.

    Returns:
        The ids, and the place of each, for errors to begin with.

    Raises:
        UserError: the file cannot be read, holds none, or a line is not one id.
    """
    ids, places = [], []
    for place, record in _records(path, option, IN_LINE):
        cells = _cells(place, record, ",") if record.startswith('"') else [record]
        if len(cells) != 1 or not cells[0]:
            raise UserError(f"{place}expected one id, got {shown(record)}.")
        ids.append(cells[0])
        places.append(place)
    if not ids:
        raise UserError(f"{option}: {path} holds no id.")
    return ids, places


def read_pairs(path: Path, option: str = "--interactions") -> tuple[list[list[str]], list[str]]:
    """Read pairs of ids, one a line: user and item with a tab or a comma between; the rest is as for ``read_ids``."""
    pairs, places = [], []
    for place, record in _records(path, option, IN_PAIR):
        pair = _cells(place, record, "\t" if "\t" in _unquoted(record, IN_PAIR) else ",")
        if len(pair) != 2 or "" in pair:
            raise UserError(f"{place}expected user and item with a tab or a comma between, got {shown(record)}.")
        pairs.append(pair)
        places.append(place)
    if not pairs:
        raise UserError(f"{option}: {path} holds no pair.")
    return pairs, places


def _records(path: Path, option: str, begins: str) -> Iterator[tuple[str, str]]:
    """Yield each record, one line or several where line ends stand in quotes, with the place where it begins."""
    lines = enumerate(io.StringIO(read_text(path, option=option), newline=""), 1)
    for number, record in lines:
        while re.search(rf'{begins}\s*"', _unquoted(record, begins)):
            for _, more in lines:
                record += more
                if more.count('"') % 2:
                    break
            else:
                raise UserError(f"{_place(path, number)}the quote that opens here is never closed.")
        if record.strip():
            yield _place(path, number), record.strip()


def _unquoted(record: str, begins: str) -> str:
    """Return a record with a plain letter for every cell that stands in quotes."""
    return re.sub(rf'{begins}\s*"(?:[^"]|"")*"', "x", record)


def _cells(place: str, record: str, delimiter: str) -> list[str]:
    try:
        lines = io.StringIO(record, newline="")
        cells = next(csv.reader(lines, delimiter=delimiter, skipinitialspace=True, strict=True))
    except csv.Error as error:
        raise UserError(f"{place}{error}: {shown(record)}.") from error
    return [cell.strip() for cell in cells]


def _place(path: Path, number: int) -> str:
    return f"{path}, line {number}: "
