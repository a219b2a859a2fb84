"""Forget requests of recommenders: users, items or single interactions, by id or as row and column numbers."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray
from scipy.sparse import csr_array

from msgm.errors import UserError
from msgm.ids import as_id, as_list, shown
from msgm.recommender.data.base import Interactions
from msgm.recommender.sparse import dropped, kept, places_of_rows
from msgm.requests import ForgetRequest
from msgm.tabular import read_ids

FOREIGN = (
    *("labels", "positions", "attribute", "group", "concept", "indices", "files", "predicate", "mask", "dataset"),
)
"""Selectors of every ForgetRequest that mean nothing to a recommender."""


@dataclass
class RecommenderRequest(ForgetRequest):
    """A ForgetRequest by the ids of recommenders; the selectors of items in a data set do not apply.

    Attributes:
        users: ids of users whose every interaction is to be forgotten.
        items: ids of items that are to be forgotten, with every interaction with them.
        interactions: pairs [user id, item id].
        file: text file with one user id a line.
        goal: as for every request; ``removal`` by default.
        target: as for every request; ``observed`` by default.

    Raises:
        UserError: ``means`` is given, which tells the items from a condition of a generator.
    """

    users: list[int | str] = field(default_factory=list)
    items: list[int | str] = field(default_factory=list)
    interactions: list[list[int | str]] = field(default_factory=list)
    goal: Literal["removal", "suppression"] = "removal"
    target: Literal["observed", "latent", "concept"] = "observed"

    def __post_init__(self, mask: Any, dataset: Any) -> None:
        super().__post_init__(mask, dataset)
        self.check_means(0)
        self.users = [as_id(user, "request.users") for user in as_list(self.users, "request.users")]
        self.items = [as_id(item, "request.items") for item in as_list(self.items, "request.items")]
        self.interactions = [_pair(pair) for pair in as_list(self.interactions, "request.interactions", "pairs")]

    def deletion(self, data: Interactions, train: csr_array) -> "Deletion":
        """Return the request in numbers.

        Args:
            data: for the ids.
            train: (U, I) the cells that a model knows.

        Raises:
            UserError: none or several of users, items, interactions and file are given; an unknown id, one given
                twice, a pair that the model never saw; or nothing would be left.
        """
        other = [name for name in self.given() if name in FOREIGN]
        if other:
            raise UserError(f"request.{other[0]} is not for recommenders; use users, items, interactions or file.")
        given = [key for key in ("users", "items", "interactions", "file") if getattr(self, key)]
        if len(given) != 1:
            found = " and ".join(f"request.{key}" for key in given) or "none"
            raise UserError(f"a request needs exactly one of users, items, interactions and file; found {found}.")
        made = self._resolve(given[0], data)
        made.check(train, data)
        return made

    def _resolve(self, key: str, data: Interactions) -> "Deletion":
        if key == "items":
            return Deletion(items=_once(data.items.numbers(self.items), self.items, "item"))
        if key == "interactions":
            rows = data.users.numbers(pair[0] for pair in self.interactions)
            columns = data.items.numbers(pair[1] for pair in self.interactions)
            cells = np.stack([rows, columns], axis=1)
            _once(rows * len(data.items) + columns, self.interactions, "interaction")
            return Deletion(cells=cells)
        names: Sequence[int | str] = self.users
        if key == "file":
            names, places = read_ids(Path(str(self.file)))
            check_ids(data, "users", names, places)
        return Deletion(users=_once(data.users.numbers(names), names, "user"))

    def describe(self) -> str:
        """Return the request as half a sentence, for reports."""
        what = next((k for k in ("users", "items", "interactions") if getattr(self, k)), None)
        if what is None:
            return f"{self.goal} of the users of {self.file}"
        count = len(getattr(self, what))
        return f"{self.goal} of {count} {what if count > 1 else what.removesuffix('s')}"


def _pair(pair: Any) -> list[int | str]:
    if not isinstance(pair, list | tuple) or len(pair) != 2:
        raise UserError(f"request.interactions: expected pairs [user, item], got {shown(pair)}.")
    return [as_id(one, "request.interactions") for one in pair]


def _once(numbers: NDArray[np.int64], names: Sequence[Any], kind: str) -> NDArray[np.int64]:
    values, first, counts = np.unique(numbers, return_index=True, return_counts=True)
    if (counts > 1).any():
        raise UserError(f"{kind} {names[int(first[counts > 1][0])]} is given twice.")
    return values


def check_ids(data: Interactions, kind: str, ids: Sequence[Any], places: Sequence[str]) -> None:
    """Refuse ids, or pairs of them, that are unknown or given twice; an error begins with the place of the id.

    Args:
        data: for the ids.
        kind: ``users``, ``items`` or ``interactions``.
        ids: as the fields of ``RecommenderRequest``.
        places: of the ids, such as file and line.

    Raises:
        UserError: one is unknown or given twice.
    """
    maps = {"users": [data.users], "items": [data.items], "interactions": [data.users, data.items]}[kind]
    found = set()
    for one, place in zip(ids, places, strict=True):
        names = one if kind == "interactions" else [one]
        try:
            numbers = tuple(ids_of.number(name) for ids_of, name in zip(maps, names, strict=True))
        except UserError as error:
            raise UserError(f"{place}{error}") from error
        if numbers in found:
            raise UserError(f"{place}{kind.removesuffix('s')} {' with '.join(map(str, names))} is given twice.")
        found.add(numbers)


def _none() -> NDArray[np.int64]:
    return np.empty(0, dtype=np.int64)


@dataclass(frozen=True, eq=False)
class Deletion:
    """A request in numbers.

    Attributes:
        users: rows to forget.
        items: columns to forget.
        cells: (n, 2) single cells to forget, as row and column.
    """

    users: NDArray[np.int64] = field(default_factory=_none)
    items: NDArray[np.int64] = field(default_factory=_none)
    cells: NDArray[np.int64] = field(default_factory=lambda: np.empty((0, 2), dtype=np.int64))

    def places(self, matrix: csr_array) -> NDArray[np.int64]:
        """Return the places in ``matrix.data`` (columns sorted) of the stored cells to forget, in rising order.

        Without items this takes the time of the rows that lose cells, and not of the whole matrix.
        """
        return self._found(matrix)[0]

    def mask(self, matrix: csr_array) -> NDArray[np.bool_]:
        """Return the mask of stored cells of ``matrix`` (columns sorted) to forget, in the order of ``matrix.data``."""
        gone = np.zeros(matrix.nnz, dtype=bool)
        gone[self.places(matrix)] = True
        return gone

    def _found(self, matrix: csr_array) -> tuple[NDArray[np.int64], NDArray[np.bool_]]:
        """Return the places of stored cells to forget, and the mask of single cells that exist in ``matrix``.

        They are kept until another matrix is asked about, as each answer to a request asks several times.
        """
        known = self.__dict__.get("_known")
        if known is None or known[0] is not matrix:
            known = (matrix, *self._search(matrix))
            object.__setattr__(self, "_known", known)
        return known[1], known[2]

    def __getstate__(self) -> dict[str, Any]:
        return {name: value for name, value in self.__dict__.items() if name != "_known"}

    def _search(self, matrix: csr_array) -> tuple[NDArray[np.int64], NDArray[np.bool_]]:
        found = [places_of_rows(matrix, self.users)]
        if len(self.items):
            items = np.zeros(matrix.shape[1], dtype=bool)
            items[self.items] = True
            found.append(np.flatnonzero(items[matrix.indices]))
        known = np.empty(0, dtype=bool)
        if len(self.cells):
            at, known = self._places_of_cells(matrix)
            found.append(at[known])
        return np.unique(np.concatenate(found)), known

    def _places_of_cells(self, matrix: csr_array) -> tuple[NDArray[np.int64], NDArray[np.bool_]]:
        """Return a place for each single cell, and whether the cell is stored there: a binary search in every row."""
        rows, columns = self.cells.T
        if not matrix.nnz:
            return np.zeros(len(rows), dtype=np.int64), np.zeros(len(rows), dtype=bool)
        low, end = (matrix.indptr[at].astype(np.int64) for at in (rows, rows + 1))
        high, last = end, matrix.nnz - 1
        for _ in range(int((end - low).max()).bit_length()):
            middle = (low + high) // 2
            before = (low < high) & (matrix.indices[np.minimum(middle, last)] < columns)
            low, high = np.where(before, middle + 1, low), np.where(before, high, middle)
        return low, (low < end) & (matrix.indices[np.minimum(low, last)] == columns)

    def without(self, matrix: csr_array) -> csr_array:
        """Return ``matrix`` less the cells to forget, of the same shape."""
        return dropped(matrix, self.places(matrix))

    def among(self, users: NDArray[np.int64]) -> "Deletion":
        """Return the request in numbers of a matrix of the rows ``users`` alone, which rise and hold all of it."""
        cells = np.stack([np.searchsorted(users, self.cells[:, 0]), self.cells[:, 1]], axis=1)
        return Deletion(np.searchsorted(users, self.users), self.items, cells)

    def only(self, matrix: csr_array) -> csr_array:
        """Return the cells of ``matrix`` that are to be forgotten, as a matrix of the same shape."""
        return kept(matrix, self.mask(matrix))

    def check(self, matrix: csr_array, data: Interactions | None = None) -> None:
        """Refuse a request for cells that are not there, or for all of them; by their ids where ``data`` has them."""
        places, known = self._found(matrix)
        if not known.all():
            row, column = self.cells[~known][0]
            user, item = f"user number {row}", f"item number {column}"
            if data is not None:
                user, item = f"user {data.users.ids[row]!r}", f"item {data.items.ids[column]!r}"
            raise UserError(f"the model never saw {item} with {user}: nothing to forget.")
        if len(places) == matrix.nnz:
            raise UserError(
                f"the request forgets all {matrix.nnz} interactions: nothing is left to recommend from. "
                "To forget everything, delete the model's folder."
            )
