"""Interactions of users and items as a sparse matrix, with the ids of its rows and columns."""

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray
from scipy.sparse import csr_array

from msgm.digests import short_digest
from msgm.errors import UserError, nearest
from msgm.ids import as_id
from msgm.registry import Registry
from msgm.tabular import moments, narrowed
from msgm.tabular.columns import parsed


class IdMap:
    """Maps ids of the data to row or column numbers; numbers are never reused.

    Forgetting drops interactions but never renumbers, so numbers stay valid after a request.
    """

    def __init__(self, ids: Iterable[Any], kind: str) -> None:
        self.ids = [name if type(name) is str else as_id(name, f"a {kind}") for name in ids]
        self.kind = kind
        self._numbers = {name: number for number, name in enumerate(self.ids)}
        if len(self._numbers) < len(self.ids):
            raise UserError(f"the {kind} ids are not unique.")

    def __len__(self) -> int:
        return len(self.ids)

    def number(self, name: object) -> int:
        """Return the number of an id, a text or a whole number; spaces around it are no part of it.

        Raises:
            UserError: there is no such id; to protect other users' ids, no similar id is suggested.
        """
        text = as_id(name, f"the {self.kind}").strip()
        found = self._numbers.get(text)
        if found is None:
            hint = "" if self.kind == "user" else nearest(text, self.ids[:10_000])
            raise UserError(f"unknown {self.kind} {text!r}.{hint}")
        return found

    def numbers(self, names: Iterable[object]) -> NDArray[np.int64]:
        """Return the numbers of ids; errors as ``number``."""
        return np.array([self.number(name) for name in names], dtype=np.int64)


@dataclass(frozen=True, eq=False)
class Interactions:
    """Interactions of users with items, with times, attributes and tags.

    Attributes:
        matrix: (U, I) float32 in CSR form with sorted columns: a rating, or 1 for implicit feedback; no stored zeros.
        users: the ids of its rows.
        items: the ids of its columns.
        times: seconds since 1970 of every stored cell, in the order of ``matrix.data``; None without.
        attributes: of users: name to (U,) text; empty text where it is not known.
        tags: of items: name to (I,) booleans.
        explicit: whether values are ratings.
        test: which stored cells are of the published test part, in the order of ``matrix.data``; None without.
    """

    matrix: csr_array
    users: IdMap
    items: IdMap
    times: NDArray[np.int64] | None = None
    attributes: Mapping[str, NDArray[np.str_]] = field(default_factory=dict)
    tags: Mapping[str, NDArray[np.bool_]] = field(default_factory=dict)
    explicit: bool = False
    test: NDArray[np.bool_] | None = None

    @classmethod
    def of(
        cls,
        users: Sequence[Any],
        items: Sequence[Any],
        values: NDArray[np.number[Any]],
        times: NDArray[np.number[Any]] | None = None,
        explicit: bool = False,
        test: NDArray[np.bool_] | None = None,
        where: Callable[[int], str] = lambda row: f"row {row + 1}",
    ) -> "Interactions":
        """Return the interactions of columns of equal length; ids are numbered in sorted order.

        Args:
            users: (n,) ids: texts or whole numbers; spaces around them are no part of them.
            items: (n,) ids.
            values: (n,) ratings, or ones.
            times: (n,) seconds since 1970; None without.
            explicit: whether values are ratings.
            test: (n,) which rows are of the published test part; None without.
            where: maps a row number, from 0, to its place in the source, for error messages.

        Raises:
            UserError: no row, columns of different lengths, an id that is missing or no text or whole number, a value
                that is no finite number of float32, an explicit rating of 0, which a sparse matrix cannot tell from
                none, a time outside 1970 to 2200, or a pair of user and item given twice.
        """
        if not len(users):
            raise UserError("the data hold no interaction.")
        lengths = {len(column) for column in (users, items, values, times, test) if column is not None}
        if len(lengths) > 1:
            raise UserError(f"the columns of interactions differ in length: {sorted(lengths)}.")
        if not isinstance(values, np.ndarray) or values.dtype != np.float32:
            cells = np.asarray(values)
            values = narrowed(parsed(cells), cells, _refusal(where, "value", cells))
        unfit = np.flatnonzero(~np.isfinite(values) | (explicit & (values == 0)))
        if len(unfit):
            value = values[unfit[0]]
            rule = "0 stands for no interaction" if value == 0 else "expected a finite number"
            raise UserError(f"{where(int(unfit[0]))}: the value is {value:g}; {rule}.")
        times = None if times is None else moments(np.asarray(times), _refusal(where, "time", times))
        users = as_ids(users, lambda row: f"{where(row)}, user")
        items = as_ids(items, lambda row: f"{where(row)}, item")
        names_u, rows = _numbered(users)
        names_i, columns = _numbered(items)
        return cls.of_numbers(
            IdMap(names_u, "user"), rows, IdMap(names_i, "item"), columns, values, times, explicit, test, where
        )

    @classmethod
    def of_numbers(
        cls,
        users: IdMap,
        rows: NDArray[np.int64],
        items: IdMap,
        columns: NDArray[np.int64],
        values: NDArray[np.number[Any]],
        times: NDArray[np.int64] | None = None,
        explicit: bool = False,
        test: NDArray[np.bool_] | None = None,
        where: Callable[[int], str] = lambda row: f"row {row + 1}",
    ) -> "Interactions":
        """Return the interactions of (n,) rows and columns of a matrix, in any order; the rest is as for ``of``.

        Raises:
            UserError: a pair of user and item is given twice.
        """
        code = rows * len(items) + columns
        order = np.argsort(code, kind="stable")
        repeated = order[1:][np.diff(code[order]) == 0]
        if len(repeated):
            at = int(repeated.min())
            raise UserError(
                f"{where(at)}: user {users.ids[rows[at]]} and item {items.ids[columns[at]]} are given twice; "
                "set data.duplicates to last to keep the last one."
            )
        starts = np.concatenate([[0], np.cumsum(np.bincount(rows, minlength=len(users)))])
        matrix = csr_array((values[order], columns[order].astype(np.int32), starts), (len(users), len(items)))
        return cls(
            matrix,
            users,
            items,
            None if times is None else times[order],
            explicit=explicit,
            test=None if test is None else test[order],
        )

    @property
    def shape(self) -> tuple[int, int]:
        """Numbers of users and of items."""
        return self.matrix.shape[0], self.matrix.shape[1]

    def digest(self) -> str:
        """Return a short hash of ids, cells and values."""
        ids = "\n".join([*self.users.ids, "", *self.items.ids])
        cells = (self.matrix.indptr.astype(np.int64), self.matrix.indices.astype(np.int64), self.matrix.data)
        return short_digest([ids.encode(), *(np.ascontiguousarray(part).tobytes() for part in cells)])


def as_ids(ids: Sequence[Any], where: Callable[[int], str]) -> list[str]:
    """Return ids as text without spaces around them.

    Args:
        ids: texts or whole numbers.
        where: what an error of row ``k``, counted from 0, begins with.

    Raises:
        UserError: one is missing, or is no text and no whole number.
    """
    kinds = set(map(type, ids))
    unfit = {kind for kind in kinds if kind is bool or not issubclass(kind, str | int | np.integer)}
    texts = list(map(str.strip, ids if kinds == {str} else map(str, ids)))
    if unfit or "" in texts:
        row = next(row for row, name in enumerate(ids) if type(name) in unfit or not texts[row])
        as_id(ids[row], where(row))
    return texts


def _refusal(where: Callable[[int], str], what: str, cells: Any) -> Callable[[int, str], UserError]:
    return lambda row, expected: UserError(f"{where(row)}, {what}: expected {expected}, got {cells[row]}.")


def _numbered(ids: list[str]) -> tuple[list[str], NDArray[np.int64]]:
    """Return the distinct ids, sorted, and the (n,) number of each; a dictionary is faster than sorting all of them."""
    names = sorted(set(ids))
    number = dict(zip(names, range(len(names)), strict=True))
    return names, np.fromiter(map(number.__getitem__, ids), dtype=np.int64, count=len(ids))


@dataclass(frozen=True, eq=False)
class Split:
    """Training, validation and test cells of the same users and items, disjoint; CSR matrices of one shape.

    ``train_times`` are those of the training cells, in the order of ``train.data``; None without.
    """

    train: csr_array
    validation: csr_array
    test: csr_array
    train_times: NDArray[np.int64] | None = None


class Source(ABC):
    """Where interactions come from; subclasses are dataclasses whose fields are their settings."""

    name: ClassVar[str]

    @abstractmethod
    def load(self) -> Interactions:
        """Read or generate the interactions; UserError for missing files, malformed or duplicate rows."""


SOURCES: Registry[Source] = Registry("data")


def load_interactions(settings: Mapping[str, Any] | str) -> Interactions:
    """Load interactions by a source's name or by the ``data`` section of a configuration."""
    return SOURCES.build({"name": settings} if isinstance(settings, str) else settings).load()
