"""Reads the text files that list items, one index or one name a line."""

from pathlib import Path

from msgm.ids import as_index
from msgm.tabular import read_ids, read_lines


def read_names(path: Path) -> list[str]:
    """Read one name of a file a line, as written; blank lines are skipped.

    Raises:
        UserError: the file cannot be read.
    """
    return [line for _, line in read_lines(path)]


def lists_names(path: Path) -> bool:
    """Return whether a file lists names of files: whether any of its lines is no number."""
    return not all(name.strip().removeprefix("-").isdecimal() for name in read_names(path))


def read_indices(path: Path) -> list[int]:
    """Read one index a line, in decimal digits: ``010`` is 10; quotes are as in CSV, blank lines are skipped.

    Raises:
        UserError: the file cannot be read, holds none, or a line is no index.
    """
    texts, places = read_ids(path)
    return [as_index(text, f"request.file: {place.rstrip(': ')}") for text, place in zip(texts, places, strict=True)]
