"""Files of ids to forget: one user or item a line, or a pair; quotes are as in CSV, blank lines are skipped."""

import csv
from pathlib import Path

from msgm.errors import UserError


def read_ids(path: Path, option: str = "request.file") -> tuple[list[str], list[str]]:
    """Read one id a line.

    Args:
        path: the file.
        option: what an error names.

    Returns:
        The ids, and the place of each, for errors to begin with.

    Raises:
        UserError: the file cannot be read, holds none, or a line is not one id.
    """
    found = {}
    for place, line in _lines(path, option):
        fields = _fields(line, place) if line.startswith('"') else [line]
        if len(fields) != 1:
            raise UserError(f"{place}expected one id: {line!r}.")
        found[place] = fields[0]
    if not found:
        raise UserError(f"{option}: {path} holds no id.")
    return list(found.values()), list(found)


def read_interactions(path: Path, option: str = "--interactions") -> tuple[list[list[str]], list[str]]:
    """Read pairs of ids, one a line: user and item with a tab or a comma between; the rest is as for ``read_ids``."""
    found = {}
    for place, line in _lines(path, option):
        pair = [part.strip() for part in (line.split("\t") if "\t" in line else _fields(line, place))]
        if len(pair) != 2 or "" in pair:
            raise UserError(f"{place}expected user and item with a tab or a comma between: {line!r}.")
        found[place] = pair
    if not found:
        raise UserError(f"{option}: {path} holds no pair.")
    return list(found.values()), list(found)


def _lines(path: Path, option: str) -> list[tuple[str, str]]:
    """Return the lines that are not blank, each with its place."""
    try:
        lines = path.read_text(encoding="utf-8-sig").split("\n")
    except UnicodeDecodeError as error:
        raise UserError(f"{option}: cannot read {path}: it is no text in UTF-8.") from error
    except OSError as error:
        raise UserError(f"{option}: cannot read {path}: {error.strerror}.") from error
    return [(f"{path}, line {number}: ", line.strip()) for number, line in enumerate(lines, 1) if line.strip()]


def _fields(line: str, place: str) -> list[str]:
    try:
        return next(csv.reader([line], skipinitialspace=True, strict=True))
    except csv.Error as error:
        raise UserError(f"{place}{error}: {line!r}.") from error
