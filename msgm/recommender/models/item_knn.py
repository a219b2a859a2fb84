"""Item-based nearest neighbours.

    score(u, i) = sum over items j that u has seen, i among the K nearest of j, of s_ji

(Deshpande and Karypis, "Item-based top-N recommendation algorithms", ACM TOIS 2004, section 4, without their
normalisation of every list's similarities), with the cosine of ``neighbours``.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray
from scipy.sparse import csr_array

from msgm.checks import at_least
from msgm.recommender.models.base import MODELS, Recommender
from msgm.recommender.models.neighbours import Neighbours
from msgm.recommender.requests import Deletion


@MODELS.register("item-knn")
@dataclass
class ItemKNN(Recommender):
    """Item-based nearest neighbours; every cell counts as 1, ratings included. Forgetting is bit-exact.

    Example:
        >>> model = msgm.recommender.ItemKNN(neighbours=20).fit(matrix)
        >>> ids, scores = model.recommend(0, N=5)
        >>> answer = model.forget(users=[3])

    Attributes:
        neighbours: K, length of the list of every item.
    """

    neighbours: int = 100

    exact: ClassVar[bool] = True

    def __post_init__(self) -> None:
        at_least(1, self, "model", "neighbours")

    def _fit(self) -> None:
        self.lists = Neighbours.of(self.seen.T.tocsr(), self.neighbours)

    def score(self, users: NDArray[np.int64]) -> NDArray[np.floating[Any]]:
        return self.score_rows(self.seen[users])

    def score_rows(self, rows: csr_array) -> NDArray[np.floating[Any]]:
        asked, places = np.unique(rows.indices, return_inverse=True)  # the lists of other items are not needed
        cells = csr_array((np.ones(rows.nnz), places, rows.indptr), (rows.shape[0], len(asked)))
        return np.asarray((cells @ self.lists.matrix(asked)).toarray())

    def _forget(self, deletion: Deletion) -> tuple[int, str, dict[str, Any]]:
        touched = np.unique(self.seen.indices[deletion.places(self.seen)]).astype(np.int64)
        return self.lists.repair(deletion.without(self.seen).T, touched), "bit-exact", {"items": len(touched)}

    def arrays(self) -> dict[str, NDArray[Any]]:
        return {"neighbours": self.lists.ids, "similarities": self.lists.similarities}

    def restore(self, arrays: Mapping[str, NDArray[Any]]) -> None:
        self.lists = Neighbours(np.array(arrays["neighbours"]), np.array(arrays["similarities"]))
