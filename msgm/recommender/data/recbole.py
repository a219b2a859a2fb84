"""RecBole's atomic files: tab-separated text whose header names and types the columns, such as ``user_id:token``."""

from dataclasses import dataclass
from pathlib import Path

from msgm.errors import UserError, nearest
from msgm.folders import is_hidden
from msgm.recommender.data.base import SOURCES, Interactions
from msgm.recommender.data.rating_rows import RatedSource, RatingRows, with_attributes
from msgm.tabular import Column, Table, read_delimited

TYPES = ("token", "float", "token_seq", "float_seq")


@SOURCES.register("recbole")
@dataclass
class RecBole(RatedSource):
    """A ``.inter`` file; a ``.user`` file of the same name beside it gives attributes: its columns but the sequences.

    Example:
        >>> settings = RecBole(path="data/films.inter", threshold=4.0)  # columns user_id, item_id, rating, timestamp
        >>> data = settings.load()
        >>> data.explicit, data.times is not None
        (False, True)

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
        table, titles = _read(path)
        users, items = (_column(table, titles, name).ids() for name in (self.user, self.item))
        ratings = table[titles[self.rating]].numbers() if self.rating in titles else None
        times = table[titles[self.time]].seconds() if self.time in titles else None
        data = self.rated(RatingRows(users, items, table.where, ratings, times))
        beside = path.with_suffix(".user")
        return self._with_users(data, beside) if beside.is_file() else data

    def _file(self) -> Path:
        if self.path is None:
            raise UserError("data.path: say which .inter file to read.")
        path = Path(self.path)
        found = sorted(file for file in path.glob("*.inter") if not is_hidden(file.name)) if path.is_dir() else [path]
        if len(found) != 1:
            raise UserError(f"data.path: {path} holds {len(found)} .inter files; name one.")
        return found[0]

    def _with_users(self, data: Interactions, path: Path) -> Interactions:
        table, titles = _read(path)
        ids = _column(table, titles, self.user).ids()
        plain = {name: title for name, title in titles.items() if name != self.user and not title.endswith("_seq")}
        columns = {name: table[title].values("an attribute", optional=True) for name, title in plain.items()}
        return with_attributes(data, ids, columns, table.where)


def _read(path: Path) -> tuple[Table, dict[str, str]]:
    """Return a file, and the title in its header of every name, such as ``user_id:token`` of ``user_id``."""
    table = read_delimited(path, "\t")
    titles: dict[str, str] = {}
    for title in table.names:
        name, _, kind = title.partition(":")
        if kind not in TYPES:
            raise UserError(f"{path}, line 1: expected name:type with a type of {', '.join(TYPES)}, got {title!r}.")
        if name in titles:
            raise UserError(f"{path}, line 1: a column is named twice: {name!r}.")
        titles[name] = title
    return table, titles


def _column(table: Table, titles: dict[str, str], name: str) -> Column:
    if name not in titles:
        known = list(titles)
        raise UserError(f"{table.path}, line 1: no column {name!r}; found {', '.join(known)}.{nearest(name, known)}")
    return table[titles[name]]
