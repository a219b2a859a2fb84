"""Tables with named columns, from every kind of file."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from msgm.errors import UserError, nearest
from msgm.ids import listed
from msgm.tabular.arrays import from_numpy, from_parquet
from msgm.tabular.columns import Cells, Column, Place
from msgm.tabular.text import read_text, split_cells

DELIMITERS = {".csv": ",", ".tsv": "\t"}
OTHERS = {".parquet": from_parquet, ".npz": from_numpy, ".npy": from_numpy}
KINDS = "expected a .csv, .tsv, .parquet, .npz or .npy file"


@dataclass(frozen=True, eq=False)
class Table:
    """Columns of equal length, made only when they are asked for.

    Attributes:
        path: the file.
        names: of the columns, no two the same.
        where: file and line, or file and row, of a row counted from 0.
    """

    path: Path
    names: list[str]
    where: Place
    _cells: Callable[[str], Cells] = field(repr=False)

    def __getitem__(self, name: str) -> Column:
        """Return a column by its name, which must be known; UserError where its kind of cells is not read here."""
        return Column(name, self._cells(name), self.where)

    def find(self, name: str, key: str) -> Column:
        """Return the column that the setting ``key`` names.

        Raises:
            UserError: there is none of that name, or its kind of cells is not read here.
        """
        if name not in self.names:
            hint = nearest(name, self.names)
            raise UserError(f"{key}: {self.path} has no column {name!r}; its columns are {listed(self.names)}.{hint}")
        return self[name]


def read_table(path: Path, key: str = "data.path") -> Table:
    """Read a table: CSV or tab-separated text with a header, Parquet, or NumPy arrays.

    Endings may be in capitals. An ``.npz`` file holds one array a column; a two-dimensional one, such as ``features``,
    gives several, which are named ``features.0``, ``features.1`` and so on. The columns of an ``.npy`` array are named
    ``0``, ``1`` and so on.

    Args:
        path: the file.
        key: the setting that names it, for errors.

    Raises:
        UserError: the file is of another kind, cannot be read, is damaged, or holds no row; a row has another number
            of columns, or two columns have one name.
    """
    suffix = path.suffix.lower()
    if suffix in DELIMITERS:
        return read_delimited(path, DELIMITERS[suffix])
    if suffix not in OTHERS:
        raise UserError(f"{key}: {path} is of no known kind; {KINDS}.")
    names, columns = OTHERS[suffix](path)
    _check_names(path, names)
    loaders = dict(zip(names, columns, strict=True))
    return Table(path, names, lambda row: f"{path}, row {row + 1}", lambda name: loaders[name]())


def read_delimited(
    path: Path, delimiter: str, names: Sequence[str] | None = None, quotes: bool = True, encoding: str = "utf-8-sig"
) -> Table:
    """Read text with a delimiter between columns.

    Args:
        path: the file.
        delimiter: between columns; ``::`` too.
        names: of the columns; None: the first row holds them.
        quotes: whether cells may stand in double quotes, as in CSV.
        encoding: of the file; UTF-8 by default.

    Raises:
        UserError: as ``read_table``.
    """
    text = read_text(path, encoding)
    if names is None:
        _check_delimiter(path, text, delimiter)
    cells = split_cells(path, text, delimiter, None if names is None else len(names), names is None, quotes)
    titles = cells.header or list(names or [])
    _check_names(path, titles)
    columns = dict(zip(titles, cells.columns, strict=True))
    return Table(path, titles, lambda row: f"{path}, line {cells.line(row)}", columns.__getitem__)


def _check_names(path: Path, names: Sequence[str]) -> None:
    again = next((name for at, name in enumerate(names) if name in names[:at]), None)
    if again is not None:
        raise UserError(f"{path}: two columns are named {again!r}.")


def _check_delimiter(path: Path, text: str, delimiter: str) -> None:
    """Refuse a header that another character parts, such as the semicolons of some spreadsheets."""
    first = text.lstrip("\r\n").partition("\n")[0]
    other = next((mark for mark in (";", "\t", ",") if mark in first), None)
    if delimiter not in first and other is not None:
        expected = {",": "commas", "\t": "tabs"}[delimiter]
        raise UserError(f"{path}, line 1: the columns are separated by {other!r}; expected {expected}.")
