"""A log's rows in numbers: read block by block, malformed rows left out, and the last row of each pair kept."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from msgm.errors import UserError
from msgm.recommender.data.base import IdMap
from msgm.tabular import Column, moments
from msgm.tabular.judged import Judged, are_dates, judged_ids, judged_numbers, judged_seconds
from msgm.tabular.logs import Block, Log

SHOWN = 10
"""Rows of a kind that are told one by one."""
NOTHING = np.array([None], dtype=object)


@dataclass(frozen=True, eq=False)
class LogRows:
    """Rows of a log in numbers.

    Attributes:
        users: ids of the rows of the matrix.
        items: ids of its columns.
        numbers: (n,) lines, or rows of a Parquet file.
        rows: (n,) of the matrix.
        columns: (n,) of the matrix.
        values: (n,) ratings; None where none are read.
        times: (n,) seconds since 1970; None where none are read.
    """

    users: IdMap
    items: IdMap
    numbers: NDArray[np.int64]
    rows: NDArray[np.int64]
    columns: NDArray[np.int64]
    values: NDArray[np.float32] | None
    times: NDArray[np.int64] | None

    def last(self) -> tuple["LogRows", NDArray[np.int64]]:
        """Return the last row of each pair, by time and then by line, and the lines of the others, in rising order."""
        order = np.lexsort([*([] if self.times is None else [self.times]), self.columns, self.rows])
        same = (np.diff(self.rows[order]) == 0) & (np.diff(self.columns[order]) == 0)
        keep = np.ones(len(order), dtype=bool)
        keep[order[:-1][same]] = False
        return self._at(keep), self.numbers[~keep]

    def _at(self, keep: NDArray[np.bool_]) -> "LogRows":
        values = None if self.values is None else self.values[keep]
        times = None if self.times is None else self.times[keep]
        return LogRows(self.users, self.items, self.numbers[keep], self.rows[keep], self.columns[keep], values, times)


@dataclass(eq=False)
class Numbering:
    """Numbers of ids, in the order in which they were met."""

    numbers: dict[str, int] = field(default_factory=dict)

    def of(self, texts: Sequence[str], places: NDArray[np.int64]) -> NDArray[np.int32]:
        """Return the numbers of the ids at (n,) places of ``texts``."""
        used, which = np.unique(places, return_inverse=True)
        found = [self.numbers.setdefault(texts[at], len(self.numbers)) for at in used.tolist()]
        return np.array(found, dtype=np.int32)[which]

    def sorted(self, kind: str, numbers: NDArray[np.int32]) -> tuple[IdMap, NDArray[np.int64]]:
        """Return the ids in sorted order, and the (n,) ``numbers`` as places in it."""
        names = sorted(self.numbers)
        rank = np.empty(len(names), dtype=np.int64)
        rank[[self.numbers[name] for name in names]] = np.arange(len(names))
        return IdMap(names, kind), rank[numbers]


class LogReader:
    """Reads a log into numbers.

    Args:
        log: the file.
        columns: names of its columns by what they hold: ``user``, ``item``, and ``rating`` and ``time`` if wanted.
        explicit: whether ratings are kept, so that 0 is refused, which a sparse matrix cannot tell from none.
        strict: whether a malformed row is an error; else it is left out.

    Attributes:
        count: rows, malformed ones included.
        refused: malformed rows.
        first: what is wrong with the first of them, with their places.
    """

    def __init__(self, log: Log, columns: Mapping[str, str], explicit: bool, strict: bool) -> None:
        self.log, self.columns, self.explicit, self.strict = log, columns, explicit, strict
        self.count, self.refused = 0, 0
        self.first: list[str] = []
        self._ids = {"user": Numbering(), "item": Numbering()}
        self._dates: bool | None = None

    def read(self) -> LogRows:
        """Return the rows that are not malformed.

        Raises:
            UserError: there is none, one is malformed and that is an error, or all times read as days.
        """
        parts = [self._kept(block) for block in self.log.blocks(list(self.columns.values()))]
        keys = list(parts[0]) if parts else []
        found = {key: np.concatenate([part.pop(key) for part in parts]) for key in keys}
        if not len(found.get("number", ())):
            raise UserError(f"{self.log.path} holds no interaction; {self.refused} rows are malformed.")
        if "time" in found:
            self._refuse_days(found["number"], found["time"])
        users, rows = self._ids["user"].sorted("user", found["user"])
        items, columns = self._ids["item"].sorted("item", found["item"])
        return LogRows(users, items, found["number"], rows, columns, found.get("rating"), found.get("time"))

    def _kept(self, block: Block) -> dict[str, NDArray[Any]]:
        """Return the fit rows of a block, and count the others."""
        fit, faults = (
            np.ones(len(block.numbers), dtype=bool),
            [(number, f": {fault}") for number, fault in block.refused],
        )
        judged = {key: self._judged(key, block.columns[name][0]) for key, name in self.columns.items()}
        for key, name in self.columns.items():
            cells, places = block.columns[name]
            unfit = np.zeros(len(cells) + 1, dtype=bool)
            unfit[[*judged[key].faults, -1]] = True  # A place of -1 is nothing.
            for row in np.flatnonzero(unfit[places] & fit).tolist():
                fit[row] = False
                faults.append((int(block.numbers[row]), self._fault(key, cells, int(places[row]))))
        self._count(len(block.numbers) + len(block.refused), sorted(faults))
        found: dict[str, NDArray[Any]] = {"number": block.numbers[fit]}
        for key, name in self.columns.items():
            places, values = block.columns[name][1][fit], judged[key].values
            found[key] = self._ids[key].of(values, places) if key in self._ids else values[places]
        return found

    def _judged(self, key: str, cells: Any) -> Judged:
        if key in self._ids:
            return judged_ids(cells)
        if key == "time":
            if self._dates is None and len(cells):
                self._dates = are_dates(cells)
            return judged_seconds(cells, bool(self._dates))
        found = judged_numbers(cells)
        zeros = np.flatnonzero(found.values == 0).tolist() if self.explicit else []
        return Judged(found.values, dict.fromkeys(zeros, "a rating other than 0, which stands for none") | found.faults)

    def _fault(self, key: str, cells: Any, place: int) -> str:
        if place < 0:
            cells, place = NOTHING, 0
        expected = self._judged(key, cells[place : place + 1]).faults[0]
        return str(Column(self.columns[key], cells, lambda _: "").unfit(place, expected)).rstrip(".")

    def _count(self, rows: int, faults: Sequence[tuple[int, str]]) -> None:
        self.count += rows
        self.refused += len(faults)
        told = [f"{self.log.place(number)}{fault}" for number, fault in faults[: SHOWN - len(self.first)]]
        if told and self.strict:
            raise UserError(f"{told[0]}; set data.malformed to drop to leave such rows out.")
        self.first += told

    def _refuse_days(self, numbers: NDArray[np.int64], times: NDArray[np.int64]) -> None:
        """Refuse times that all read as days, such as 20240531."""

        def unfit(row: int, expected: str) -> UserError:
            name = self.columns["time"]
            return UserError(
                f"{self.log.place(int(numbers[row]))}, column {name!r}: expected {expected}, got {times[row]}."
            )

        moments(times, unfit)
