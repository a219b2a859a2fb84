"""From a file's rows to a matrix: duplicate pairs, ratings or implicit feedback, and rare users and items."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray
from scipy.sparse import csr_array

from msgm.checks import at_least
from msgm.errors import UserError
from msgm.recommender.data.base import IdMap, Interactions, Source
from msgm.recommender.sparse import rows_of


@dataclass(frozen=True, eq=False)
class RatingRows:
    """Rows of a file, as columns of length n.

    Attributes:
        users: ids.
        items: ids.
        where: maps a row number, from 0, to its place in the file, for error messages.
        ratings: finite numbers; None where the file has none.
        times: seconds since 1970; None where the file has none.
        test: rows of the published test part; None where there is none.
    """

    users: Sequence[str]
    items: Sequence[str]
    where: Callable[[int], str]
    ratings: NDArray[np.floating[Any]] | None = None
    times: NDArray[np.int64] | None = None
    test: NDArray[np.bool_] | None = None

    def last(self) -> "RatingRows":
        """Return the last row of each pair of user and item: the latest by time, then by row."""
        rows = range(len(self.users)) if self.times is None else np.argsort(self.times, kind="stable").tolist()
        # A dictionary keeps the last value of a key.
        last = {(self.users[row], self.items[row]): row for row in rows}
        kept = np.sort(np.fromiter(last.values(), dtype=np.int64))
        return RatingRows(
            [self.users[row] for row in kept],
            [self.items[row] for row in kept],
            lambda row: self.where(int(kept[row])),
            None if self.ratings is None else self.ratings[kept],
            None if self.times is None else self.times[kept],
            None if self.test is None else self.test[kept],
        )


@dataclass
class FileSource(Source):
    """Settings of every file of interactions.

    Attributes:
        duplicates: ``error`` refuses a pair of user and item that is given twice; ``last`` keeps its last row,
            by time where there are times.
        min_count: users and items with fewer interactions are dropped, again and again until all have as many
            (the k-core).
    """

    duplicates: Literal["error", "last"] = "error"
    min_count: int = 1

    def __post_init__(self) -> None:
        at_least(1, self, "data", "min_count")

    def collect(self, rows: RatingRows, explicit: bool = False, threshold: float | None = None) -> Interactions:
        """Return the interactions of ``rows``, those with a rating below ``threshold`` left out.

        Raises:
            UserError: as ``Interactions.of``, or nothing is left.
        """
        rows = rows.last() if self.duplicates == "last" else rows
        values = np.ones(len(rows.users)) if rows.ratings is None else rows.ratings
        data = Interactions.of(rows.users, rows.items, values, rows.times, explicit, rows.test, rows.where)
        return self.left(data, threshold)

    def left(self, data: Interactions, threshold: float | None = None) -> Interactions:
        """Return what ``threshold`` and ``min_count`` leave of ``data``, of which implicit feedback is made 1.

        Raises:
            UserError: nothing is left.
        """
        if threshold is not None:
            data = select(data, data.matrix.data >= threshold, f"data.threshold {threshold:g}")
        data = core(data, self.min_count)
        if not data.explicit:
            data.matrix.data[:] = 1
        return data


@dataclass
class RatedSource(FileSource):
    """Settings of files that may hold ratings.

    Attributes:
        feedback: ``implicit``: every row is a positive, whatever its rating; ``explicit``: values are the ratings.
        threshold: of implicit feedback: rows with a lower rating are left out; None keeps all.
    """

    feedback: Literal["implicit", "explicit"] = "implicit"
    threshold: float | None = None

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.feedback == "explicit" and self.threshold is not None:
            raise UserError(f"data.threshold is for implicit feedback, got {self.threshold:g} with explicit.")

    def rated(self, rows: RatingRows) -> Interactions:
        """Return the interactions of ``rows`` by ``feedback`` and ``threshold``; errors as ``collect``."""
        if rows.ratings is None and (self.feedback == "explicit" or self.threshold is not None):
            key = "feedback explicit" if self.feedback == "explicit" else "threshold"
            raise UserError(f"data.{key} needs ratings, and the data hold none.")
        return self.collect(rows, self.feedback == "explicit", self.threshold)


def select(data: Interactions, keep: NDArray[np.bool_], reason: str) -> Interactions:
    """Return the cells that ``keep`` marks, with the users and items that still have one, renumbered.

    Only for building data: a request never renumbers. ``reason`` is named in the error.

    Raises:
        UserError: nothing is left.
    """
    if not keep.any():
        raise UserError(f"{reason} leaves none of the {len(keep)} interactions.")
    rows = rows_of(data.matrix)[keep]
    users, rows = np.unique(rows, return_inverse=True)
    items, columns = np.unique(data.matrix.indices[keep], return_inverse=True)
    starts = np.concatenate([[0], np.cumsum(np.bincount(rows))])
    cells = (data.matrix.data[keep], columns.astype(np.int32), starts)
    return Interactions(
        csr_array(cells, (len(users), len(items))),
        IdMap([data.users.ids[user] for user in users], "user"),
        IdMap([data.items.ids[item] for item in items], "item"),
        None if data.times is None else data.times[keep],
        {name: values[users] for name, values in data.attributes.items()},
        {name: marks[items] for name, marks in data.tags.items()},
        data.explicit,
        None if data.test is None else data.test[keep],
    )


def core(data: Interactions, least: int) -> Interactions:
    """Return the largest part of ``data`` in which every user and every item has ``least`` interactions (the k-core).

    Raises:
        UserError: it is empty.
    """
    rows = rows_of(data.matrix)
    columns, keep = data.matrix.indices, np.ones(len(rows), dtype=bool)
    while True:
        active = np.bincount(rows[keep], minlength=data.shape[0]) >= least
        popular = np.bincount(columns[keep], minlength=data.shape[1]) >= least
        smaller = keep & active[rows] & popular[columns]
        if smaller.sum() == keep.sum():
            return data if keep.all() else select(data, keep, f"data.min_count {least}")
        keep = smaller


def with_attributes(
    data: Interactions, ids: Sequence[str], columns: Mapping[str, Sequence[str]], where: Callable[[int], str]
) -> Interactions:
    """Return ``data`` with attributes of its users; users without a row have the empty text, others are left out.

    Args:
        data: the interactions.
        ids: of users, in the order of the columns.
        columns: name to texts.
        where: maps a row number to its place in the file, for error messages.

    Raises:
        UserError: a user is given twice.
    """
    row = dict(zip(ids, range(len(ids)), strict=True))
    if len(row) < len(ids):
        again = next(at for at, name in enumerate(ids) if row[name] != at)
        raise UserError(f"{where(row[ids[again]])}: user {ids[again]} is given twice.")
    rows = [row.get(name) for name in data.users.ids]
    attributes = {
        name: np.array(["" if at is None else texts[at] for at in rows], dtype=str) for name, texts in columns.items()
    }
    return replace(data, attributes={**data.attributes, **attributes})
