"""Logs of any length, read by pyarrow some thousand rows at a time: delimited text, which may be gzipped, and Parquet.

Memory does not grow with the file: whoever reads keeps what they need of a block. A row of text is a line, so a cell
holds no line end. Otherwise cells are read as those of tables.
"""

import csv
import gzip
import zlib
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from importlib import import_module
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray

from msgm.errors import UserError
from msgm.ids import shown
from msgm.tabular.arrays import damaged, from_arrow
from msgm.tabular.columns import Cells, is_number

SEPARATORS = ("::", "\t", ",", ";", "|")
"""What may stand between columns; the first of them that the first line holds does."""
INNER = "\x1f"
"""Stands for ``::``, as pyarrow separates by a single character."""
CHARACTERS, ROWS = 1 << 20, 1 << 16
"""Of a block of text, and of Parquet."""
Lines: TypeAlias = list[tuple[int, str]]


@dataclass(frozen=True, eq=False)
class Block:
    """Consecutive rows of a log.

    Attributes:
        numbers: (n,) line, or row of a Parquet file, of every row, counted from 1.
        refused: lines that are no row, as they have another number of columns, with what was expected.
        columns: by name, the distinct cells and the (n,) place of each row's cell among them; -1 is nothing.
    """

    numbers: NDArray[np.int64]
    refused: list[tuple[int, str]]
    columns: dict[str, tuple[Cells, NDArray[np.int64]]]


@dataclass(frozen=True, eq=False)
class Log:
    """A log whose rows are not read yet.

    Attributes:
        path: the file.
        kind: what it is, in words.
        names: of the columns.
        unit: what rows are counted by: ``line`` or ``row``.
    """

    path: Path
    kind: str
    names: list[str]
    unit: str
    _blocks: Callable[[Sequence[str]], Iterator[Block]]

    def blocks(self, names: Sequence[str]) -> Iterator[Block]:
        """Yield all rows with the columns of these names, in the order of the file; each call begins anew.

        Raises:
            UserError: the file is damaged, is no UTF-8 text, or a quote is not closed on its line.
        """
        return self._blocks(names)

    def place(self, number: int) -> str:
        """Return file and line, or file and row, for errors to begin with."""
        return f"{self.path}, {self.unit} {number}"


def open_log(path: Path, separator: str | None = None, header: bool | None = None, usual: Sequence[str] = ()) -> Log:
    """Open a log: text with a separator between columns, or Parquet, by its ending ``.parquet``.

    Args:
        path: the file; text whose name ends in ``.gz`` is gunzipped.
        separator: between columns; None takes the first of ``SEPARATORS`` that the first line holds.
        header: whether the first line names the columns; None: it does if none of its cells is a number.
        usual: names of the columns of a file that has none; further ones are named by their number, from 0.

    Raises:
        UserError: the file cannot be read, is damaged or holds no row, the first line has no separator, two columns
            have one name, or pyarrow is not installed.
    """
    try:
        import_module("pyarrow.csv")
    except ImportError as error:
        raise UserError(f"{path}: reading logs needs pyarrow; get it with pip install pyarrow.") from error
    log = _open_parquet(path) if path.suffix.lower() == ".parquet" else _open_text(path, separator, header, usual)
    again = next((name for at, name in enumerate(log.names) if name in log.names[:at]), None)
    if again is not None:
        raise UserError(f"{path}: two columns are named {again!r}.")
    return log


def _open_text(path: Path, separator: str | None, header: bool | None, usual: Sequence[str]) -> Log:
    number, line = next((lines[0] for lines in _text(path)), (0, ""))
    if not number:
        raise UserError(f"{path} holds no rows.")
    mark = separator or next((one for one in SEPARATORS if one in line), "")
    if not mark or mark not in line:
        expected = repr(mark) if mark else f"one of {', '.join(map(repr, SEPARATORS))}"
        raise UserError(f"{path}, line {number}: expected {expected} between columns, got {shown(line)}.")
    cells = line.split(mark) if len(mark) > 1 else next(csv.reader([line], delimiter=mark))
    cells = [cell.strip() for cell in cells]
    named = not any(map(is_number, cells)) if header is None else header
    names = cells if named else [*usual[: len(cells)], *map(str, range(len(usual), len(cells)))]
    kind = f"{mark!r} between columns, {f'named by line {number}' if named else 'without names'}"
    return Log(path, kind, names, "line", partial(_text_blocks, path, mark, names, number if named else 0))


def _text(path: Path) -> Iterator[Lines]:
    """Yield the numbers and texts of lines that are not blank, some thousand at a time.

    Raises:
        UserError: the file cannot be read or is no UTF-8 text.
    """
    first, opened = 1, gzip.open if path.suffix.lower() == ".gz" else open
    try:
        with opened(path, "rt", encoding="utf-8-sig") as file:  # every line end is a newline
            while lines := file.readlines(CHARACTERS):
                found = [(number, line) for number, line in enumerate(lines, first) if not line.isspace()]
                first += len(lines)
                if found:
                    yield found
    except UnicodeDecodeError as error:
        raise UserError(f"{path}, after line {first - 1}: this is no UTF-8 text; convert it to UTF-8.") from error
    except (OSError, EOFError, zlib.error) as error:
        raise UserError(f"cannot read {path}: {getattr(error, 'strerror', None) or error}.") from error


def _text_blocks(path: Path, mark: str, names: list[str], header: int, wanted: Sequence[str]) -> Iterator[Block]:
    for lines in _text(path):
        rows = lines[1:] if lines[0][0] == header else lines
        if rows:
            yield _text_block(path, mark, names, rows, wanted)


def _text_block(path: Path, mark: str, names: list[str], lines: Lines, wanted: Sequence[str]) -> Block:
    arrow, reader = import_module("pyarrow"), import_module("pyarrow.csv")
    content = "".join(line for _, line in lines)
    if "\0" in content:
        number = next(number for number, line in lines if "\0" in line)
        raise UserError(f"{path}, line {number}: a null byte, which is no text.")
    quotes, separator = ('"', mark) if len(mark) == 1 else (False, INNER)
    cells = content.replace(mark, separator).encode()
    faults: dict[int, str] = {}

    def note(row: Any) -> str:
        faults[row.number - 1] = f"expected {len(names)} columns, found {row.actual_columns}"
        return "skip"

    table = reader.read_csv(
        arrow.BufferReader(cells),
        reader.ReadOptions(use_threads=False, block_size=len(cells) + 1, column_names=names),
        reader.ParseOptions(delimiter=separator, quote_char=quotes, ignore_empty_lines=False, invalid_row_handler=note),
        reader.ConvertOptions(
            check_utf8=False, include_columns=list(wanted), column_types=dict.fromkeys(wanted, arrow.string())
        ),
    )
    if table.num_rows + len(faults) < len(lines):
        number = next((number for number, line in lines if line.count('"') % 2), lines[0][0])
        raise UserError(f"{path}, line {number}: a quote is not closed on its line.")
    numbers = np.array([number for number, _ in lines])
    return Block(
        np.delete(numbers, list(faults)),
        [(int(numbers[at]), fault) for at, fault in faults.items()],
        {name: _distinct(path, name, table[name]) for name in wanted},
    )


def _open_parquet(path: Path) -> Log:
    with damaged(path):
        file = import_module("pyarrow.parquet").ParquetFile(path)
    if not file.metadata.num_rows:
        raise UserError(f"{path} holds no rows.")
    names = [name.strip() for name in file.schema_arrow.names]
    stored = dict(zip(names, file.schema_arrow.names, strict=True))
    return Log(path, "Parquet", names, "row", partial(_parquet_blocks, path, file, stored))


def _parquet_blocks(path: Path, file: Any, stored: dict[str, str], wanted: Sequence[str]) -> Iterator[Block]:
    arrow, first = import_module("pyarrow"), 1
    batches = file.iter_batches(ROWS, columns=[stored[name] for name in wanted])
    while True:
        with damaged(path):
            batch = next(batches, None)
        if batch is None:
            return
        table = arrow.Table.from_batches([batch])
        columns = {name: _distinct(path, name, table[stored[name]]) for name in wanted}
        yield Block(np.arange(first, first + len(batch)), [], columns)
        first += len(batch)


def _distinct(path: Path, name: str, column: Any) -> tuple[Cells, NDArray[np.int64]]:
    """Return the distinct cells of a column, and the place of each row's cell among them; -1 is nothing."""
    arrow = import_module("pyarrow")
    from_arrow(path, name, column[:0])  # refuses a type that is not read
    if isinstance(column.type, arrow.BaseExtensionType):
        column = arrow.chunked_array([from_arrow(path, name, column)])
    encoded = column.combine_chunks().dictionary_encode()
    cells = from_arrow(path, name, arrow.chunked_array([encoded.dictionary]))
    return cells, encoded.indices.fill_null(-1).to_numpy().astype(np.int64)
