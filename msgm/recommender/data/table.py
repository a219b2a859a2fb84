"""Tables with named columns: CSV, tab-separated text, Parquet and NumPy arrays."""

from dataclasses import dataclass
from pathlib import Path

from msgm.errors import UserError
from msgm.recommender.data.base import SOURCES, Interactions
from msgm.recommender.data.rating_rows import RatedSource, RatingRows, with_attributes
from msgm.tabular import read_table


@SOURCES.register("table")
@dataclass
class Table(RatedSource):
    """A ``.csv``, ``.tsv``, ``.parquet`` or ``.npz`` file; columns that no setting names are left alone.

    Example:
        >>> import numpy as np
        >>> np.savez(out / "plays.npz", who=[7, 7, 8], song=[1, 2, 2])
        >>> data = Table(path="plays.npz", user="who", item="song").load()
        >>> data.shape, data.users.ids
        ((2, 2), ['7', '8'])

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
        table = read_table(Path(self.path))
        users, items = table.find(self.user, "data.user").ids(), table.find(self.item, "data.item").ids()
        ratings = None if self.rating is None else table.find(self.rating, "data.rating").numbers()
        times = None if self.time is None else table.find(self.time, "data.time").seconds()
        data = self.rated(RatingRows(users, items, table.where, ratings, times))
        return data if self.attributes is None else self._with_attributes(data, Path(self.attributes))

    def _with_attributes(self, data: Interactions, path: Path) -> Interactions:
        table = read_table(path, "data.attributes")
        ids = table.find(self.user, "data.user").ids()
        columns = {name: table[name].values("an attribute", optional=True) for name in table.names if name != self.user}
        unknown = len(set(ids) - set(data.users.ids))
        if unknown:
            print(f"{path}: {unknown} of {len(ids)} users have no interaction in the data and are left out")
        return with_attributes(data, ids, columns, table.where)
