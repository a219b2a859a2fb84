"""How a recommender is used from Python: implicit's ``recommend`` and ``similar_items``, scikit-learn's parameters.

Everything here is derived from ``score``, the seen cells and the settings, so every model has it.
"""

from collections.abc import Sequence
from dataclasses import fields
from typing import Any, ClassVar, Protocol, Self, TypeAlias

import numpy as np
from numpy.typing import NDArray
from scipy.sparse import csr_array, issparse

from msgm.errors import UserError
from msgm.fields import structured
from msgm.recommender.requests import Deletion
from msgm.recommender.sparse import ones, rows_of

Ids: TypeAlias = int | Sequence[int] | NDArray[np.integer[Any]]
"""Row or column numbers: one, or several."""
Answers: TypeAlias = tuple[NDArray[np.int64], NDArray[np.float64]]
"""Numbers of items and their scores, best first: (N,) for one id, (n, N) for several."""


class Fitted(Protocol):
    """The attributes of a fitted model that are read here."""

    name: ClassVar[str]
    seen: csr_array
    gone_users: NDArray[np.bool_]
    gone_items: NDArray[np.bool_]

    def score(self, users: NDArray[np.int64]) -> NDArray[np.floating[Any]]: ...

    def scores_of_unseen(self, users: NDArray[np.int64], rows: csr_array) -> NDArray[np.float64]: ...

    def similarities(self, items: NDArray[np.int64]) -> NDArray[np.float64]: ...


class Estimator:
    """Methods of implicit and scikit-learn for a model; ``Recommender`` inherits them."""

    def recommend(
        self: Fitted,
        users: Ids,
        user_items: Any = None,
        N: int = 10,
        filter_already_liked_items: bool = True,
    ) -> Answers:
        """Return the best items for users, as implicit does; scores are those of the fitted model.

        Args:
            users: rows of the fitted matrix: one number, or several.
            user_items: sparse (n, I) current interactions of these users, in the order of ``users``; by default those
                the model has seen.
            N: how many items.
            filter_already_liked_items: leave out the items of ``user_items``.

        Returns:
            ids and scores, (N,) for one user and (n, N) for several, best first, no item that was forgotten. Where
            fewer than N are left, ids are -1 and scores -inf.

        Raises:
            UserError: a user who was forgotten or is out of range, N below 1, or ``user_items`` of another shape.
        """
        asked, single = _numbers(users, self.seen.shape[0], "users")
        if self.gone_users[asked].any():
            gone = int(asked[self.gone_users[asked]][0])
            raise UserError(f"user number {gone} was forgotten and is served nothing.")
        rows = self.seen[asked] if user_items is None else _rows(user_items, (len(asked), self.seen.shape[1]))
        none = csr_array(rows.shape)
        return _best(self.scores_of_unseen(asked, rows if filter_already_liked_items else none), N, asked, single)

    def scores_of_unseen(self: Fitted, users: NDArray[np.int64], rows: csr_array) -> NDArray[np.float64]:
        """Return (len(users), I) scores with -inf for the cells of ``rows``, a row for each user, and gone items."""
        scores = np.array(self.score(users), dtype=np.float64)
        scores[rows_of(rows), rows.indices] = -np.inf
        scores[:, self.gone_items] = -np.inf
        return scores

    def similar_items(self: Fitted, items: Ids, N: int = 10) -> Answers:
        """Return the items most like others, as implicit does: an item is most like itself.

        Args:
            items: columns of the fitted matrix: one number, or several.
            N: how many items.

        Returns:
            ids and ``similarities``, (N,) for one item and (n, N) for several, best first, no item that was forgotten.

        Raises:
            UserError: an item that was forgotten or is out of range, or N below 1.
        """
        asked, single = _numbers(items, self.seen.shape[1], "items")
        if self.gone_items[asked].any():
            gone = int(asked[self.gone_items[asked]][0])
            raise UserError(f"item number {gone} was forgotten and is like no other.")
        found = np.array(self.similarities(asked), dtype=np.float64)
        found[:, self.gone_items] = -np.inf
        found[np.arange(len(asked)), asked] = np.inf  # first, whatever rounding says
        ids, scores = _best(found, N, None, False)
        scores[:, 0] = 1.0
        return (ids[0], scores[0]) if single else (ids, scores)

    def similarities(self: Fitted, items: NDArray[np.int64]) -> NDArray[np.float64]:
        """Return (len(items), I) similarities in [-1, 1], 1 of an item with itself.

        They are cosines: of the model's item vectors where it has any, else of the item columns of the seen cells.
        """
        vectors = getattr(self, "item_factors", None)
        if vectors is not None:
            lengths = np.maximum(np.linalg.norm(vectors, axis=1), np.finfo(np.float64).tiny)
            unit = vectors / lengths[:, None]
            return np.asarray(unit[items] @ unit.T, dtype=np.float64)
        columns = ones(self.seen).T.tocsr()
        counts = np.maximum(np.diff(columns.indptr), 1)
        shared = (columns[items] @ columns.T).toarray()
        return np.asarray(shared / np.sqrt(counts[items, None] * counts))

    def get_params(self, deep: bool = True) -> dict[str, Any]:
        """Return the settings by name, as scikit-learn's ``clone`` reads them; ``deep`` changes nothing."""
        return {f.name: getattr(self, f.name) for f in fields(self) if f.init}  # type: ignore[arg-type]

    def set_params(self, **params: Any) -> Self:
        """Change settings and return self; they count from the next ``fit`` on.

        Raises:
            UserError: an unknown setting, a wrong type or a value that the model refuses; settings are then unchanged.
        """
        checked = structured(type(self), self.get_params() | params, "model")
        self.__init__(**checked.get_params())  # type: ignore[misc]
        return self


def canonical(matrix: Any) -> csr_array:
    """Return a matrix of users and items in CSR form, float32, columns sorted and each cell stored once.

    Args:
        matrix: (U, I) any sparse matrix or array of SciPy's, or a dense array, whose zeros are no cells. Each stored
            cell of a sparse one counts; the matrix is not changed.

    Raises:
        UserError: it has not two dimensions, or a value that is not finite.
    """
    if not issparse(matrix) and np.ndim(matrix) != 2:
        raise UserError(f"expected a (users, items) matrix, sparse or dense; got {type(matrix).__name__}.")
    found = csr_array(matrix)
    if found.dtype != np.float32:
        found = found.astype(np.float32)
    if not found.has_canonical_format:
        found = found.copy()
        found.sum_duplicates()
    if not np.isfinite(found.data).all():
        raise UserError("the matrix of users and items has a value that is not finite.")
    return found


def deletion_of(shape: tuple[int, int], users: Ids, items: Ids, interactions: Any) -> Deletion:
    """Return a request in numbers.

    Args:
        shape: numbers of users and items.
        users: rows to forget.
        items: columns to forget.
        interactions: pairs (row, column), or a sparse matrix whose stored cells are to be forgotten.

    Raises:
        UserError: a number out of range or given twice, pairs that are none, or nothing at all.
    """
    pairs = np.transpose(interactions.nonzero()) if issparse(interactions) else np.asarray(interactions)
    if not pairs.size:
        pairs = np.empty((0, 2), dtype=np.int64)
    if pairs.ndim != 2 or pairs.shape[1] != 2:
        raise UserError(f"interactions: expected pairs (user, item), got an array of shape {pairs.shape}.")
    rows, columns = (
        _numbers(pairs[:, k], shape[k], "interactions", allow_twice=True)[0] if len(pairs) else pairs[:, k]
        for k in (0, 1)
    )
    cells = np.stack([rows, columns], axis=1)
    if len(np.unique(cells, axis=0)) != len(cells):
        raise UserError("interactions: a pair is given twice.")
    made = Deletion(_some(users, shape[0], "users"), _some(items, shape[1], "items"), cells)
    if not (len(made.users) or len(made.items) or len(made.cells)):
        raise UserError("forget: name what is to be forgotten: users, items or interactions.")
    return made


def _some(ids: Ids, size: int, key: str) -> NDArray[np.int64]:
    return _numbers(ids, size, key)[0] if np.size(ids) else np.empty(0, dtype=np.int64)


def _numbers(ids: Ids, size: int, key: str, allow_twice: bool = False) -> tuple[NDArray[np.int64], bool]:
    """Return ids as an array, and whether it was a single one."""
    given = np.asarray(ids)
    if given.ndim > 1 or not np.issubdtype(given.dtype, np.integer):
        raise UserError(f"{key}: expected whole numbers, got {given.dtype} of shape {given.shape}.")
    found = np.atleast_1d(given).astype(np.int64)
    outside = found[(found < 0) | (found >= size)]
    if len(outside):
        raise UserError(f"{key}: number {outside[0]} is out of range; there are 0 to {size - 1}.")
    return found, given.ndim == 0


def _rows(user_items: Any, shape: tuple[int, int]) -> csr_array:
    if not issparse(user_items) or user_items.shape != shape:
        got = f"{type(user_items).__name__} of shape {np.shape(user_items)}"
        raise UserError(f"user_items: expected a sparse matrix of shape {shape}, a row for each user; got {got}.")
    return csr_array(user_items)


def _best(scores: NDArray[np.float64], count: int, users: NDArray[np.int64] | None, single: bool) -> Answers:
    """Return ids and scores of the ``count`` best columns; ties as ``top`` breaks them."""
    if count < 1:
        raise UserError(f"N must be at least 1, got {count}.")
    ids = top(scores, count, users)
    found = np.where(ids >= 0, np.take_along_axis(scores, np.maximum(ids, 0), axis=1), -np.inf)
    return (ids[0], found[0]) if single else (ids, found)


def top(scores: NDArray[np.float64], k: int, users: NDArray[np.int64] | None = None) -> NDArray[np.int64]:
    """Return (n, k) columns of the largest scores, best first, -inf is -1.

    Ties go to the lower column; with the numbers of ``users`` to the lower of numbers drawn for user and column.
    """
    width = min(k, scores.shape[1])
    threshold = np.partition(scores, -width, axis=1)[:, -width]
    found = np.full((len(scores), k), -1, dtype=np.int64)
    for row, (values, least) in enumerate(zip(scores, threshold, strict=True)):
        candidates = np.flatnonzero(values >= least)
        order = candidates if users is None else _drawn(int(users[row]), candidates)
        best = candidates[np.lexsort((order, -values[candidates]))[:width]]
        best = best[values[best] > -np.inf]
        found[row, : len(best)] = best
    return found


def _drawn(user: int, items: NDArray[np.int64]) -> NDArray[np.uint64]:
    """Return numbers that look drawn at random for the user and each item (splitmix64: Steele et al., OOPSLA 2014)."""
    mixed = items.astype(np.uint64) + np.uint64((user + 1) * 0x9E3779B97F4A7C15 % 2**64)
    for shift, factor in ((30, 0xBF58476D1CE4E5B9), (27, 0x94D049BB133111EB)):
        mixed = (mixed ^ (mixed >> np.uint64(shift))) * np.uint64(factor)
    return np.asarray(mixed ^ (mixed >> np.uint64(31)))
