"""Interaction logs of any length: delimited text, gzipped or not, and Parquet, with an account of what was left out.

The file is read in blocks. Of each row its numbers are kept, about 30 bytes, and each id once.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np

from msgm.errors import UserError, nearest
from msgm.ids import listed
from msgm.recommender.data.base import SOURCES, Interactions
from msgm.recommender.data.log_rows import SHOWN, LogReader
from msgm.recommender.data.rating_rows import RatedSource
from msgm.tabular.logs import Log as OpenLog
from msgm.tabular.logs import open_log

COLUMNS = ("user", "item", "rating", "time")
"""Settings that name a column; in this order the columns of logs without names are taken."""


@dataclass(frozen=True)
class Account:
    r"""What became of the rows of a log.

    Example:
        >>> _ = (out / "log.csv").write_text("user,item\na,x\na,x\nb\n")
        >>> _, account = Log(path="log.csv", malformed="drop", duplicates="last").read()
        >>> account.rows, account.refused, account.repeated
        (3, 1, 1)

    Attributes:
        log: the file, its kind and its columns.
        columns: what is read to the name of its column.
        rows: all of them; blank lines and the names of columns are none.
        refused: malformed rows, left out.
        repeated: rows left out for a later one of the same user and item.
        below: rows left out by ``threshold``.
        rare: rows left out by ``min_count``.
        first_refused: places of the first malformed rows, and what was expected there.
        first_repeated: places of the first repeated rows.
    """

    log: OpenLog
    columns: Mapping[str, str]
    rows: int
    refused: int
    repeated: int
    below: int
    rare: int
    first_refused: list[str]
    first_repeated: list[str]


@SOURCES.register("log")
@dataclass
class Log(RatedSource):
    r"""A file with a row for each interaction, of any length; it needs the extra ``msgm[parquet]``.

    Example:
        >>> lines = ["user::item::stars", "7::31::5", "7::9::2", "8::31::", "8::9::4"]
        >>> _ = (out / "events.dat").write_text("\n".join(lines))
        >>> data, account = Log(path="events.dat", rating="stars", threshold=4.0, malformed="drop").read()
        >>> data.matrix.nnz, account.rows, account.below
        (2, 4, 1)
        >>> account.first_refused
        ["events.dat, line 4, column 'stars': expected a number, got an empty cell"]

    Attributes:
        path: delimited text, gzipped where its name ends in ``.gz``, or Parquet by its ending ``.parquet``.
        user: name of the column of users.
        item: name of the column of items.
        rating: name of the column of ratings; None: there are none, or they are not read.
        time: name of the column of seconds since 1970, or of dates as in ISO 8601; None: there are none, or they are
            not read.
        separator: between columns, ``::`` or one character; None takes the first of ``::``, tab, comma, semicolon and
            ``|`` that the first line holds.
        header: whether the first line names the columns; None: it does if none of its cells is a number. Columns
            without names are ``user``, ``item``, ``rating`` and ``time``, in this order.
        malformed: ``error`` refuses the file at a row with another number of columns, or with a cell that is no id,
            number or time; ``drop`` leaves such rows out and says how many.
    """

    path: str | None = None
    user: str = "user"
    item: str = "item"
    rating: str | None = None
    time: str | None = None
    separator: str | None = None
    header: bool | None = None
    malformed: Literal["error", "drop"] = "error"

    def __post_init__(self) -> None:
        super().__post_init__()
        mark = "::" if self.separator is None else self.separator
        if mark != "::" and (len(mark) != 1 or not mark.isascii() or mark in '"\r\n'):
            raise UserError(f"data.separator must be :: or one character of ASCII, got {mark!r}.")
        if self.rating is None and (self.feedback == "explicit" or self.threshold is not None):
            key = "feedback explicit" if self.feedback == "explicit" else "threshold"
            raise UserError(f"data.{key} needs ratings; name their column with data.rating.")

    def load(self) -> Interactions:
        data, account = self.read()
        if account.refused:
            print(f"{account.log.path}: {account.refused} of {account.rows} rows are malformed and left out")
        return data

    def read(self) -> tuple[Interactions, Account]:
        """Return the interactions, and the account of what was left out.

        Raises:
            UserError: as ``load``.
        """
        if self.path is None:
            raise UserError("data.path: say which log to read.")
        explicit = self.feedback == "explicit"
        log = open_log(Path(self.path), self.separator, self.header, COLUMNS)
        reader = LogReader(log, self._columns(log), explicit, self.malformed == "error")
        rows, repeated = reader.read(), np.empty(0, dtype=np.int64)
        if self.duplicates == "last":
            rows, repeated = rows.last()
        values = np.ones(len(rows.rows), dtype=np.float32) if rows.values is None else rows.values
        places, times = (rows.users, rows.rows, rows.items, rows.columns), rows.times
        data = Interactions.of_numbers(
            *places, values, times, explicit, where=lambda row: log.place(int(rows.numbers[row]))
        )
        above = data.matrix.nnz if self.threshold is None else int((data.matrix.data >= self.threshold).sum())
        left = self.left(data, self.threshold)
        return left, Account(
            log,
            reader.columns,
            reader.count,
            reader.refused,
            len(repeated),
            data.matrix.nnz - above,
            above - left.matrix.nnz,
            reader.first,
            [log.place(number) for number in repeated[:SHOWN].tolist()],
        )

    def _columns(self, log: OpenLog) -> dict[str, str]:
        """Return what is read to the name of its column.

        Raises:
            UserError: a setting names a column that is not there, or two name the same.
        """
        found = {key: getattr(self, key) for key in COLUMNS if getattr(self, key) is not None}
        for key, name in found.items():
            if name not in log.names:
                known, hint = listed(log.names), nearest(name, log.names)
                raise UserError(f"data.{key}: {log.path} has no column {name!r}; its columns are {known}.{hint}")
        if len(set(found.values())) < len(found):
            raise UserError(f"data: two of {', '.join(found)} name the same column of {log.path}.")
        return found
