"""Text files of rows with a fixed number of columns, read whole; errors name file and line."""

import csv
import io
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from msgm.errors import UserError

if TYPE_CHECKING:
    import _csv


def read_text(path: Path, encoding: str = "utf-8-sig") -> str:
    """Read a text file; a byte order mark is dropped.

    Raises:
        UserError: the file cannot be read, or is in another encoding.
    """
    try:
        content = path.read_bytes()
        return content.decode(encoding)
    except OSError as error:
        raise UserError(f"cannot read {path}: {error.strerror}.") from error
    except UnicodeDecodeError as error:
        line = content[: error.start].count(b"\n") + 1
        raise UserError(f"{path}, line {line}: this is no UTF-8 text; convert the file to UTF-8.") from error


@dataclass(frozen=True, eq=False)
class Rows:
    """The columns of a file; blank lines count for nothing but line numbers.

    Attributes:
        path: the file.
        delimiter: between columns; ``::`` too.
        header: names of the columns, if the first row holds them.
        columns: texts, one list a column; all of one length.
    """

    path: Path
    delimiter: str
    header: list[str]
    columns: list[list[str]]
    _text: str = field(repr=False)

    def __len__(self) -> int:
        return len(self.columns[0]) if self.columns else 0

    def where(self, row: int) -> str:
        """Return file and line of row ``row``, counted from 0; the file is gone through again, for errors only."""
        reader = _reader(self._text, self.delimiter)
        filled = (reader.line_num for fields in reader if fields)
        line = next(line for at, line in enumerate(filled) if at == row + bool(self.header))
        return f"{self.path}, line {line}"

    def numbers(self, column: int, what: str = "a number") -> NDArray[np.float64]:
        """Return a column as (n,) numbers; ``what`` is what an error expects.

        Raises:
            UserError: one is no finite number.
        """
        texts = self.columns[column]
        try:
            values = np.fromiter(map(float, texts), dtype=np.float64, count=len(texts))
        except ValueError:
            row = next(row for row, text in enumerate(texts) if not _is_number(text))
        else:
            if np.isfinite(values).all():
                return values
            row = int(np.flatnonzero(~np.isfinite(values))[0])
        raise self._unfit(row, column, what)

    def seconds(self, column: int) -> NDArray[np.int64]:
        """Return a column of seconds, or of ISO 8601 (UTC where no zone is named), as (n,) whole seconds since 1970.

        Raises:
            UserError: one is not like the first.
        """
        texts = self.columns[column]
        if _is_number(texts[0]):
            return self.numbers(column, "seconds since 1970").astype(np.int64)
        seconds = []
        for row, text in enumerate(texts):
            try:
                date = datetime.fromisoformat(text)
            except ValueError:
                raise self._unfit(row, column, "seconds since 1970, or dates as in ISO 8601,") from None
            seconds.append((date if date.tzinfo else date.replace(tzinfo=UTC)).timestamp())
        return np.array(seconds).astype(np.int64)

    def _unfit(self, row: int, column: int, what: str) -> UserError:
        name = repr(self.header[column]) if self.header else column + 1
        return UserError(f"{self.where(row)}: expected {what} in column {name}, got {self.columns[column][row]!r}.")


def read_rows(
    path: Path, delimiter: str, width: int | None = None, header: bool = False, encoding: str = "utf-8-sig"
) -> Rows:
    """Read a file; with the delimiter ``,`` columns may stand in double quotes.

    Args:
        path: the file.
        delimiter: between columns.
        width: number of columns; None takes any, the same for all rows.
        header: whether the first row names the columns.
        encoding: of the file; UTF-8 by default.

    Raises:
        UserError: the file cannot be read, is empty, or a row has another number of columns.
    """
    text = read_text(path, encoding)
    first = text.partition("\n")[0]
    if delimiter == "," and ";" in first and "," not in first:
        raise UserError(f"{path}, line 1: the columns are separated by ';'; expected commas.")
    flat, found = _split(text, delimiter) or _parse(path, text, delimiter, width)
    names = flat[:found] if header else []
    if len(flat) <= len(names):
        raise UserError(f"{path} holds no rows.")
    rows = Rows(path, delimiter, names, [flat[len(names) + k :: found] for k in range(found)], text)
    if width not in (None, found):
        raise UserError(f"{rows.where(0)}: expected {width} columns, found {found}.")
    return rows


def _split(text: str, delimiter: str) -> tuple[list[str], int] | None:
    """Return all cells of a file, row by row, and their number in a row; None for what needs the slower ``_parse``.

    That is quotes, blank lines, carriage returns and rows of different width. No list is made for a row: a million of
    them would cost seconds.
    """
    lines = text.removesuffix("\n").split("\n")
    widths = {line.count(delimiter) for line in lines}
    if len(widths) > 1 or widths == {0} or "\r" in text or (delimiter == "," and '"' in text):
        return None
    return delimiter.join(lines).split(delimiter), widths.pop() + 1


def _parse(path: Path, text: str, delimiter: str, width: int | None) -> tuple[list[str], int]:
    """Do as ``_split`` for any file."""
    reader = _reader(text, delimiter)
    flat: list[str] = []
    try:
        for fields in reader:
            width = width or len(fields)
            if fields and len(fields) != width:
                line = f"{path}, line {reader.line_num}"
                raise UserError(f"{line}: expected {width} columns, found {len(fields)}.")
            flat += fields
    except csv.Error as error:
        raise UserError(f"{path}, line {reader.line_num}: {error}.") from error
    return flat, width or 0


def _reader(text: str, delimiter: str) -> "_csv.Reader":
    # csv wants a delimiter of one character; the files that use "::" hold no tab.
    text, delimiter = (text.replace("::", "\t"), "\t") if delimiter == "::" else (text, delimiter)
    lines = io.StringIO(text, newline="")
    if delimiter == ",":
        return csv.reader(lines)
    return csv.reader(lines, delimiter=delimiter, quoting=csv.QUOTE_NONE)


def _is_number(text: str) -> bool:
    try:
        float(text)
    except ValueError:
        return False
    return True
