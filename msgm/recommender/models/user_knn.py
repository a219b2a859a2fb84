"""User-based nearest neighbours.

    score(u, i) = sum over the K nearest users v of u that have seen i, of s_uv

with the cosine of ``neighbours`` (Sarwar et al., "Analysis of recommendation algorithms for e-commerce", EC 2000,
the most-frequent-item recommendation, here weighted by similarity).
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray
from scipy.sparse import csr_array

from msgm.checks import at_least
from msgm.recommender.models.base import MODELS, Recommender
from msgm.recommender.models.neighbours import Neighbours, nearest
from msgm.recommender.requests import Deletion
from msgm.recommender.sparse import ones


@MODELS.register("user-knn")
@dataclass
class UserKNN(Recommender):
    """User-based nearest neighbours; every cell counts as 1, ratings included. Forgetting is bit-exact.

    Example:
        >>> model = msgm.recommender.UserKNN(neighbours=20).fit(matrix)
        >>> ids, scores = model.recommend(0, N=5)
        >>> answer = model.forget(users=[3])

    Attributes:
        neighbours: K, length of the list of every user.
    """

    neighbours: int = 100

    exact: ClassVar[bool] = True

    def __post_init__(self) -> None:
        at_least(1, self, "model", "neighbours")

    def _fit(self) -> None:
        self.lists = Neighbours.of(self.seen, self.neighbours)

    def score(self, users: NDArray[np.int64]) -> NDArray[np.floating[Any]]:
        return np.asarray((self.lists.matrix(users) @ ones(self.seen)).toarray())

    def score_rows(self, rows: csr_array) -> NDArray[np.floating[Any]]:
        return np.asarray((nearest(rows, self.seen, self.neighbours) @ ones(self.seen)).toarray())

    def _forget(self, deletion: Deletion) -> tuple[int, str, dict[str, Any]]:
        touched = np.unique(np.searchsorted(self.seen.indptr, deletion.places(self.seen), side="right") - 1)
        return self.lists.repair(deletion.without(self.seen), touched), "bit-exact", {"users": len(touched)}

    def arrays(self) -> dict[str, NDArray[Any]]:
        return {"neighbours": self.lists.ids, "similarities": self.lists.similarities}

    def restore(self, arrays: Mapping[str, NDArray[Any]]) -> None:
        self.lists = Neighbours(np.array(arrays["neighbours"]), np.array(arrays["similarities"]))
