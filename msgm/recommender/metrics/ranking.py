r"""Full-ranking quality of the k best items on held-out cells.

Of a user with the held-out items T and the list L of k items, best first, r_j = 1 where the j-th of L is in T, else 0:

    Recall@k = sum_j r_j / |T|
    HR@k     = 1 if any r_j, else 0
    NDCG@k   = sum_j r_j / log2(j + 1)  /  sum over j <= min(k, |T|) of 1 / log2(j + 1)

and a number is the mean over users (Jarvelin and Kekalainen, ACM TOIS 2002, with binary gains). Where scores are tied,
each is its mean over all orders of the tied items (``msgm.recommender.ties``): a model that scores all items alike has
the numbers of lists drawn at random.

All items are ranked but those that the user had before the request, forgotten ones included, and forgotten items: every
model of a comparison ranks the same candidates, so that a model's memory of forgotten cells, which is measured
elsewhere, costs no quality here. Utility on content like the forgotten is measured as NDCG on held-out cells of
retained users who lose cells. Public code has an IDCG over all of T, so that the best list is below 1 where |T| > k,
and recall by the name of HR.
"""

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.sparse import csr_array

from msgm.checks import at_least
from msgm.recommender.metrics.base import METRICS, Case, Metric, Number
from msgm.recommender.models.base import Recommender
from msgm.recommender.sparse import rows_of
from msgm.recommender.ties import places

BLOCK = 512
"""Users that are scored at a time."""


@dataclass(frozen=True, eq=False)
class Quality:
    """Recall, NDCG and hit (0 or 1) of (n,) users, each in [0, 1]."""

    users: NDArray[np.int64]
    recall: NDArray[np.float64]
    ndcg: NDArray[np.float64]
    hit: NDArray[np.float64]


def ranking(
    model: Recommender, train: csr_array, test: csr_array, k: int, banned: NDArray[np.bool_] | None = None
) -> Quality:
    """Return the quality of the lists of all users that have a cell in ``test``.

    Args:
        model: gives the scores; its own ``seen`` is not read.
        train: (U, I) cells that are no candidates.
        test: (U, I) cells to find.
        k: length of the lists.
        banned: (I,) items that are no candidates; none by default.
    """
    users = np.flatnonzero(np.diff(test.indptr))
    parts = [_block(model, block, train, test, k, banned) for block in blocks(users)]
    recall, ndcg, hit = np.concatenate(parts, axis=1) if parts else np.empty((3, 0))
    return Quality(users, recall, ndcg, hit)


def blocks(users: NDArray[np.int64]) -> list[NDArray[np.int64]]:
    """Return the users in parts of at most ``BLOCK``."""
    return [users[start : start + BLOCK] for start in range(0, len(users), BLOCK)]


def candidates(
    scores: NDArray[np.floating[Any]], seen: csr_array, banned: NDArray[np.bool_] | None = None
) -> NDArray[np.float64]:
    """Return (n, I) scores with -inf at the cells of the (n, I) ``seen`` and for the (I,) ``banned`` items."""
    masked = np.array(scores, dtype=np.float64)
    masked[rows_of(seen), seen.indices] = -np.inf
    if banned is not None:
        masked[:, banned] = -np.inf
    return masked


def _block(
    model: Recommender,
    users: NDArray[np.int64],
    train: csr_array,
    test: csr_array,
    k: int,
    banned: NDArray[np.bool_] | None,
) -> NDArray[np.float64]:
    """Return (3, n) recall, NDCG and hits."""
    rows = test[users]
    found = places(candidates(model.score(users), train[users], banned), rows_of(rows), rows.indices, k)
    positives = np.diff(rows.indptr)
    discounts = 1 / np.log2(np.arange(2, k + 2))
    ideal = np.cumsum(discounts)[np.minimum(positives, k) - 1]
    recall, gain = found.sums(found.chances()) / positives, found.sums(found.gains(discounts)) / ideal
    return np.stack([recall, gain, found.any_listed()])


def retained_quality(case: Case, k: int) -> Quality:
    """Return the quality on users and items that are not to be forgotten."""
    deletion = case.deletion
    banned = np.zeros(case.split.test.shape[1], dtype=bool)
    banned[deletion.items] = True
    return ranking(case.target, case.split.train, deletion.without(case.split.test), k, banned)


@METRICS.register("ranking")
@dataclass(frozen=True)
class Ranking(Metric):
    """Recall, NDCG and hit rate of the k best items on held-out cells of retained users.

    Every cell counts as liked, ratings included.

    Example:
        >>> found = Ranking(k=10).measure(case)
        >>> 0 < found["ndcg"] < found["hit_rate"] < 1
        True

    Attributes:
        k: length of the lists.
    """

    numbers = {  # noqa: RUF012
        "recall": Number("mean Recall@k on held-out cells of retained users, 0 to 1", "utility", "higher"),
        "ndcg": Number("mean NDCG@k on held-out cells of retained users, 0 to 1", "utility", "higher"),
        "hit_rate": Number("share of retained users whose k best hold a held-out item, 0 to 1", "utility", "higher"),
        "ndcg_of_kind": Number(
            "mean NDCG@k on held-out cells of the retained users who lose cells, 0 to 1", "utility", "higher"
        ),
    }
    k: int = 10

    def __post_init__(self) -> None:
        at_least(1, self, f"options.{self.name}", "k")

    def measure(self, case: Case) -> dict[str, float | None]:
        found = retained_quality(case, self.k)
        if not len(found.users):
            return dict.fromkeys(self.numbers)
        train = case.split.train
        losing = found.ndcg[np.isin(found.users, rows_of(train)[case.deletion.mask(train)])]
        return {
            "recall": float(found.recall.mean()),
            "ndcg": float(found.ndcg.mean()),
            "hit_rate": float(found.hit.mean()),
            "ndcg_of_kind": float(losing.mean()) if len(losing) else None,
        }
