"""Tables with named columns: CSV, tab-separated text and Parquet."""

from dataclasses import dataclass
from importlib import import_module
from pathlib import Path

from msgm.errors import UserError, nearest
from msgm.recommender.data.base import SOURCES, Interactions
from msgm.recommender.data.records import RatedSource, Records, with_attributes
from msgm.recommender.data.rows import Rows, read_rows

DELIMITERS = {".csv": ",", ".tsv": "\t"}


@SOURCES.register("table")
@dataclass
class Table(RatedSource):
    """A ``.csv``, ``.tsv`` or ``.parquet`` file; columns that no setting names are left alone.

    Attributes:
        path: the file.
        user: name of the column of users.
        item: name of the column of items.
        rating: name of the column of ratings; None: there are none, or they are not read.
        time: name of the column of seconds since 1970, or of dates as in ISO 8601; None: there are none, or they are
            not read.
        attributes: a file of the same kinds with the column ``user`` and one column for every attribute; None: none.
    """

    path: str | None = None
    user: str = "user"
    item: str = "item"
    rating: str | None = None
    time: str | None = None
    attributes: str | None = None

    def load(self) -> Interactions:
        if self.path is None:
            raise UserError("data.path: say which table to read.")
        table = _open(Path(self.path))
        user, item = _texts(table, "user", self.user), _texts(table, "item", self.item)
        ratings = None if self.rating is None else table.numbers(_position(table, "rating", self.rating))
        times = None if self.time is None else table.seconds(_position(table, "time", self.time))
        data = self.rated(Records(user, item, table.where, ratings, times))
        if self.attributes is None:
            return data
        table = _open(Path(self.attributes))
        ids = _texts(table, "user", self.user)
        columns = {name: table.columns[k] for k, name in enumerate(table.header) if name != self.user}
        unknown = len(set(ids) - set(data.users.ids))
        if unknown:
            print(f"{self.attributes}: {unknown} of {len(ids)} users have no interaction in the data and are left out")
        return with_attributes(data, ids, columns, table.where)


class ParquetRows(Rows):
    """Rows of a Parquet file, as text; an absent value is the empty text."""

    def where(self, row: int) -> str:
        return f"{self.path}, row {row + 1}"


def _open(path: Path) -> Rows:
    if path.suffix == ".parquet":
        return _read_parquet(path)
    if path.suffix not in DELIMITERS:
        raise UserError(f"data.path: {path} is no table known here; expected .csv, .tsv or .parquet.")
    return read_rows(path, DELIMITERS[path.suffix], header=True)


def _read_parquet(path: Path) -> Rows:
    """Read a Parquet file.

    Raises:
        UserError: pyarrow is not installed, or the file cannot be read, is damaged or empty.
    """
    try:
        parquet = import_module("pyarrow.parquet")
    except ImportError as error:
        raise UserError(f"{path}: reading Parquet needs pyarrow; get it with pip install pyarrow.") from error
    try:
        table = parquet.read_table(path)
    except (OSError, ValueError) as error:  # pyarrow's ArrowInvalid is a ValueError
        raise UserError(f"cannot read {path}: {' '.join(str(error).split()).rstrip('.')}.") from error
    if not table.num_rows:
        raise UserError(f"{path} holds no rows.")
    columns = [["" if v is None else str(v) for v in column.to_pylist()] for column in table.columns]
    return ParquetRows(path, "", table.column_names, columns, "")


def _position(table: Rows, key: str, name: str) -> int:
    if name not in table.header:
        known = ", ".join(table.header)
        hint = nearest(name, table.header)
        raise UserError(f"data.{key}: {table.path} has no column {name!r}; its columns are {known}.{hint}")
    return table.header.index(name)


def _texts(table: Rows, key: str, name: str) -> list[str]:
    return table.columns[_position(table, key, name)]
