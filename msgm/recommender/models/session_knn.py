"""Nearest neighbours of sessions (VS-kNN): recommends items of recent sessions that share items with the present one.

A session is a row with times, its items in order of time (of equal times, the lower number first). With p_i = 1..L the
position of item i in a session s of L items, and w_i = p_i / L, so that the latest item weighs 1,

    sim(s, v) = sum over the items i that s and v share of w_i
    score(s, j) = sum over v in N(s) of sim(s, v) [j in v]

with N(s) the K most similar of the M most recent other sessions that share an item with s (Ludewig and Jannach,
"Evaluation of session-based recommendation algorithms", UMUAI 2018, V-SkNN). A session is as recent as its last cell.
Of equally recent sessions the lower number comes first, of equally similar ones the more recent.

An index holds for every item its M + 1 most recent sessions (one may be s itself), after Serenade (Kersbergen et al.,
SIGMOD 2022).

Deviations: a session is a user's whole row, and times of candidates may lie after the session's own; no inverse
document frequency and no weight by the position of the last shared item, which later variants add.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray
from scipy.sparse import csr_array

from msgm.checks import at_least
from msgm.errors import UserError
from msgm.recommender.models.base import MODELS, Recommender
from msgm.recommender.models.estimator import top
from msgm.recommender.requests import Deletion
from msgm.recommender.sparse import kept, ones, rows_of

NEVER = np.iinfo(np.int64).min


@MODELS.register("session-knn")
@dataclass
class SessionKNN(Recommender):
    """VS-kNN; every cell counts as 1. It needs times. Forgetting is bit-exact: the index lists touched are made anew.

    Example:
        >>> model = msgm.recommender.SessionKNN(neighbours=20).fit(matrix, times=times)
        >>> ids, scores = model.recommend(0, N=5)
        >>> answer = model.forget(users=[3])

    Attributes:
        neighbours: K, most similar sessions, whose items are scored.
        recent: M, most recent sessions, among which the K are chosen.
    """

    neighbours: int = 100
    recent: int = 500

    exact: ClassVar[bool] = True

    def __post_init__(self) -> None:
        at_least(1, self, "model", "neighbours", "recent")

    def _fit(self) -> None:
        if self.times is None:
            raise UserError("session-knn needs the times of interactions, and the data have none; use user-knn.")
        self.latest = _latest(self.seen, self.times)
        self.index = np.full((self.seen.shape[1], min(self.recent + 1, self.seen.shape[0])), -1, dtype=np.int32)
        self._list(self.seen, np.arange(self.seen.shape[1]))

    def _list(self, matrix: csr_array, items: NDArray[np.int64]) -> None:
        """Write the lists of ``items`` in the index: the sessions of ``matrix`` with them, most recent first."""
        columns = matrix.T[items].tocsr()
        sizes = np.diff(columns.indptr)
        row = rows_of(columns)
        order = np.lexsort((columns.indices, -self.latest[columns.indices], row))
        rank = np.arange(len(row)) - np.repeat(columns.indptr[:-1], sizes)
        early = rank < self.index.shape[1]
        lists = np.full((len(items), self.index.shape[1]), -1, dtype=np.int32)
        lists[row[early], rank[early]] = columns.indices[order][early]
        self.index[items] = lists

    def session(self, user: int) -> NDArray[np.int64]:
        """Return the items of a user's session, oldest first."""
        assert self.times is not None
        cells = slice(self.seen.indptr[user], self.seen.indptr[user + 1])
        items = self.seen.indices[cells]
        return np.asarray(items[np.lexsort((items, self.times[cells]))], dtype=np.int64)

    def score(self, users: NDArray[np.int64]) -> NDArray[np.floating[Any]]:
        if not len(users):
            return np.zeros((0, self.seen.shape[1]))
        return np.stack([self._scores(self.session(int(user)), int(user)) for user in users])

    def score_session(self, items: NDArray[np.int64]) -> NDArray[np.floating[Any]]:
        """Return (I,) scores for a session under way.

        Args:
            items: numbers of its items, oldest first; of an item that comes twice the later place counts.

        Raises:
            UserError: an item that is none, or was forgotten.
        """
        items = np.asarray(items, dtype=np.int64)
        wrong = items[(items < 0) | (items >= self.seen.shape[1])]
        if len(wrong):
            raise UserError(f"session: there is no item number {wrong[0]}; expected 0 to {self.seen.shape[1] - 1}.")
        if self.gone_items[items].any():
            raise UserError(f"session: item number {items[self.gone_items[items]][0]} was forgotten.")
        return self._scores(items)

    def recommend_session(self, items: NDArray[np.int64], k: int) -> NDArray[np.int64]:
        """Return (k,) items for a session under way, as ``recommend`` does for a user's; else as ``score_session``."""
        if k < 1:
            raise UserError(f"k must be at least 1, got {k}.")
        scores = np.array(self.score_session(items), dtype=np.float64)
        scores[items] = -np.inf
        scores[self.gone_items] = -np.inf
        return top(scores[None], k)[0]

    def _scores(self, items: NDArray[np.int64], itself: int = -1) -> NDArray[np.floating[Any]]:
        weights = np.zeros(self.seen.shape[1])
        np.maximum.at(weights, items, np.arange(1, len(items) + 1) / max(len(items), 1))
        shares = np.zeros(self.seen.shape[0] + 1, dtype=bool)  # the last is for places of the index that hold none, -1
        shares[self.index[items]] = True
        shares[[-1, itself]] = False
        candidates = np.flatnonzero(shares)
        recent = candidates[np.lexsort((candidates, -self.latest[candidates]))][: self.recent]
        rows = self.seen[recent]
        there = ones(rows)
        similarities = there @ weights
        nearest = np.argsort(-similarities, kind="stable")[: self.neighbours]
        return np.asarray(there[nearest].T @ similarities[nearest])

    def _forget(self, deletion: Deletion) -> tuple[int, str, dict[str, Any]]:
        assert self.times is not None
        gone = deletion.mask(self.seen)
        rest = kept(self.seen, ~gone)
        latest = _latest(rest, self.times[~gone])
        # A session that is now less recent moves down in the lists of all its items, forgotten or not.
        older = latest != self.latest
        moved = np.repeat(older, np.diff(self.seen.indptr))
        touched = np.unique(self.seen.indices[gone | moved]).astype(np.int64)
        self.latest = latest
        self._list(rest, touched)
        return len(touched), "bit-exact", {"sessions_moved": int(older.sum())}

    def arrays(self) -> dict[str, NDArray[Any]]:
        return {"index": self.index}

    def restore(self, arrays: Mapping[str, NDArray[Any]]) -> None:
        assert self.times is not None
        self.index = np.array(arrays["index"])
        self.latest = _latest(self.seen, self.times)


def _latest(matrix: csr_array, times: NDArray[np.int64]) -> NDArray[np.int64]:
    """Return the (U,) time of every session's last cell; NEVER for empty ones."""
    latest = np.full(matrix.shape[0], NEVER)
    np.maximum.at(latest, rows_of(matrix), times)
    return latest
