"""RecBole's atomic files: tab-separated text whose header names and types the columns, such as ``user_id:token``."""

from dataclasses import dataclass
from pathlib import Path

from msgm.errors import UserError, nearest
from msgm.folders import is_hidden
from msgm.recommender.data.base import SOURCES, Interactions
from msgm.recommender.data.records import RatedSource, Records, with_attributes
from msgm.recommender.data.rows import Rows, read_rows

TYPES = ("token", "float", "token_seq", "float_seq")


@SOURCES.register("recbole")
@dataclass
class RecBole(RatedSource):
    """A ``.inter`` file; a ``.user`` file of the same name beside it gives attributes: its columns but the sequences.

    Attributes:
        path: the ``.inter`` file, or a folder that holds just one.
        user: name of the column of users.
        item: name of the column of items.
        rating: name of the column of ratings; the file may lack it.
        time: name of the column of times in seconds; the file may lack it.
    """

    path: str | None = None
    user: str = "user_id"
    item: str = "item_id"
    rating: str = "rating"
    time: str = "timestamp"

    def load(self) -> Interactions:
        path = self._file()
        rows, types = _read(path)
        user, item = (rows.columns[_column(path, types, name)] for name in (self.user, self.item))
        names = list(types)
        ratings = rows.numbers(names.index(self.rating)) if self.rating in types else None
        times = rows.seconds(names.index(self.time)) if self.time in types else None
        data = self.rated(Records(user, item, rows.where, ratings, times))
        users = path.with_suffix(".user")
        return self._with_users(data, users) if users.is_file() else data

    def _file(self) -> Path:
        if self.path is None:
            raise UserError("data.path: say which .inter file to read.")
        path = Path(self.path)
        found = sorted(file for file in path.glob("*.inter") if not is_hidden(file.name)) if path.is_dir() else [path]
        if len(found) != 1:
            raise UserError(f"data.path: {path} holds {len(found)} .inter files; name one.")
        return found[0]

    def _with_users(self, data: Interactions, path: Path) -> Interactions:
        rows, types = _read(path)
        ids = rows.columns[_column(path, types, self.user)]
        plain = {
            name: column for (name, kind), column in zip(types.items(), rows.columns, strict=True) if "_" not in kind
        }
        plain.pop(self.user)
        return with_attributes(data, ids, plain, rows.where)


def _read(path: Path) -> tuple[Rows, dict[str, str]]:
    """Return the rows of a file, and its columns' names and types in their order."""
    rows = read_rows(path, "\t", header=True)
    types = {}
    for title in rows.header:
        name, _, kind = title.partition(":")
        if kind not in TYPES:
            raise UserError(f"{path}, line 1: expected name:type with a type of {', '.join(TYPES)}, got {title!r}.")
        types[name] = kind
    if len(types) < len(rows.header):
        raise UserError(f"{path}, line 1: a column is named twice.")
    return rows, types


def _column(path: Path, types: dict[str, str], name: str) -> int:
    if name not in types:
        raise UserError(f"{path}, line 1: no column {name!r}; found {', '.join(types)}.{nearest(name, list(types))}")
    return list(types).index(name)
