"""Fairness: NDCG gaps between active and inactive users, and between groups of an attribute.

    active gap = mean NDCG of the most active 5% - mean NDCG of the others

after CURE4Rec (Chen et al., NeurIPS 2024), which weighs the means by shard; here there is one mean a side. The group
gap is the largest difference between the means of two groups (RecGap of Melchiorre et al., "Investigating gender
fairness of recommendation algorithms in the music domain", IPM 2021).
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from msgm.checks import at_least, below_one, positive
from msgm.recommender.metrics.base import METRICS, Case, Metric, Number
from msgm.recommender.metrics.ranking import Quality, retained_quality


@METRICS.register("fairness")
@dataclass(frozen=True)
class Fairness(Metric):
    """NDCG gaps between active and other users, and between groups.

    Example:
        >>> found = Fairness(k=10, attribute="gender").measure(case)
        >>> -1 <= found["active_gap"] <= 1, 0 <= found["group_gap"] <= 1
        (True, True)

    Attributes:
        k: length of the lists.
        active: share of the retained users, those with most training cells left, in (0, 1).
        attribute: of users, whose groups are compared; users of whom it is not known are in none.
        least: users with held-out cells, of the smallest group that is compared.
    """

    numbers = {  # noqa: RUF012
        "active_gap": Number("mean NDCG@k of the most active users less that of the others, -1 to 1", "utility"),
        "group_gap": Number("largest gap in mean NDCG@k between two groups of users, 0 to 1", "utility", "lower"),
    }
    k: int = 10
    active: float = 0.05
    attribute: str = "gender"
    least: int = 10

    def __post_init__(self) -> None:
        at_least(1, self, f"options.{self.name}", "k", "least")
        positive(self, f"options.{self.name}", "active")
        below_one(self, f"options.{self.name}", "active")

    def measure(self, case: Case) -> dict[str, float | None]:
        found = retained_quality(case, self.k)
        counts = np.diff(case.deletion.without(case.split.train).indptr)
        return {
            "active_gap": _gap(found, most_active(counts, self.active)),
            "group_gap": self._group_gap(found, case.data.attributes.get(self.attribute)),
        }

    def _group_gap(self, found: Quality, values: NDArray[np.str_] | None) -> float | None:
        if values is None:
            return None
        own = values[found.users]
        names, sizes = np.unique(own[own != ""], return_counts=True)
        means = [found.ndcg[own == name].mean() for name in names[sizes >= self.least]]
        return float(max(means) - min(means)) if len(means) > 1 else None


@dataclass(frozen=True, eq=False)
class Active:
    """The most active users, with ties at the cut-off kept apart.

    Attributes:
        sure: (U,) mask of users above the cut-off.
        tied: (U,) mask of users at the cut-off, of whom any ``places`` count as active.
        places: number of tied users who count as active.
    """

    sure: NDArray[np.bool_]
    tied: NDArray[np.bool_]
    places: int


def most_active(counts: NDArray[np.int64], share: float) -> Active:
    """Return the ``share`` of users with most cells, at least one; users without a cell count for nothing."""
    size = max(1, round(share * int((counts > 0).sum())))
    least = np.sort(counts)[-size]
    sure = counts > least
    return Active(sure, counts == least, size - int(sure.sum()))


def _gap(found: Quality, active: Active) -> float | None:
    """Return the mean NDCG of active users minus that of others, averaged over all choices among tied users.

    Of n tied users, q have held-out cells. The number h of these that count as active is hypergeometric, and their
    expected NDCG is the mean over the q. Choices that leave one side empty are skipped.
    """
    from scipy.stats import hypergeom  # takes a third of a second

    sure, tied = active.sure[found.users], active.tied[found.users]
    others = ~sure & ~tied
    h = np.arange(min(int(tied.sum()), active.places) + 1)
    chances = hypergeom.pmf(h, int(active.tied.sum()), int(tied.sum()), active.places)
    each = float(found.ndcg[tied].mean()) if tied.any() else 0.0
    sizes = sure.sum() + h, others.sum() + tied.sum() - h
    possible = (sizes[0] > 0) & (sizes[1] > 0) & (chances > 0)
    if not possible.any():
        return None
    h, chances, first, second = h[possible], chances[possible], sizes[0][possible], sizes[1][possible]
    above = (found.ndcg[sure].sum() + h * each) / first
    below = (found.ndcg[others].sum() + (tied.sum() - h) * each) / second
    return float((above - below) @ chances / chances.sum())
