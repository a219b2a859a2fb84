r"""Distance to retrained models, in units of the distance between two of them.

With S the scores of a model for a sample of retained users, and L its lists of the k best items,

    scores      |S - S_r|_F / |S_r|_F
    jaccard     1 - mean over users of |L n L_r| / |L u L_r|
    rbo         1 - mean over users of RBO(L, L_r),
                RBO = (1 - p) / (1 - p^k) * sum over d = 1..k of p^(d-1) |L_1:d n L_r,1:d| / d

(rank-biased overlap of Webber, Moffat and Zobel, ACM TOIS 2010; cut at depth k and scaled so that equal lists give 1,
which the paper's is not). Where scores are tied, both are means over all orders of the tied items, one order for both
models (``msgm.recommender.ties``). Each is a mean over the retrained models r. A unit is the mean over ordered pairs of
different retrained models: 1 is as far as one retrained model is from another. Models that do not depend on a seed have
unit 0, and then no distance in units; the plain distances tell.
"""

from dataclasses import dataclass
from itertools import permutations

import numpy as np
from numpy.typing import NDArray

from msgm.checks import at_least, positive
from msgm.errors import UserError
from msgm.recommender.metrics.base import METRICS, Case, Metric, Number
from msgm.recommender.metrics.probes import retained_users
from msgm.recommender.metrics.ranking import blocks, candidates
from msgm.recommender.models.base import Recommender
from msgm.recommender.models.estimator import top
from msgm.recommender.overlap import agreements, weighted
from msgm.recommender.ties import overlaps, tied_rows
from msgm.seeding import derive_seed
from msgm.study.parts import NONNEGATIVE, UNIT

DISTANCES = ("score_distance", "jaccard_distance", "rbo_distance")
ROUNDING = 1e-9
"""A unit below it is zero but for rounding."""


@dataclass(frozen=True, eq=False)
class View:
    """Scores and lists of a model for the sample of users.

    Attributes:
        scores: (n, I) of all items.
        offers: (n, I) those of items that may be listed, -inf for others.
        lists: (n, k) items, best first, -1 where there is none.
        tied: (n,) whether a list depends on the order of tied items.
    """

    scores: NDArray[np.float64]
    offers: NDArray[np.float64]
    lists: NDArray[np.int64]
    tied: NDArray[np.bool_]

    @classmethod
    def of(cls, scores: NDArray[np.float64], offers: NDArray[np.float64], k: int) -> "View":
        return cls(scores, offers, top(offers, k), tied_rows(offers, k))


@METRICS.register("distance")
@dataclass(frozen=True)
class Distance(Metric):
    """Relative L2 of scores, Jaccard and RBO distance of lists, plain and in units of retrained models' distance.

    Example:
        >>> found = Distance(k=10, users=50).measure(case)
        >>> 0 < found["score_distance"] < 1, 0 < found["jaccard_distance"] < 1
        (True, True)

    Attributes:
        k: length of the lists.
        persistence: p of RBO, in (0, 1).
        users: retained users, drawn at random, whose scores and lists are compared.
        seed: of the draw; the same users for every model.
    """

    numbers = {  # noqa: RUF012
        "score_distance": Number(
            "relative L2 distance of scores to retrained models', 0 and up", "forgetting", bounds=NONNEGATIVE
        ),
        "score_distance_units": Number(
            "the same in units of the distance between two of them", "forgetting", bounds=NONNEGATIVE
        ),
        "jaccard_distance": Number(
            "1 - Jaccard of the k best with retrained models', 0 to 1", "forgetting", bounds=UNIT
        ),
        "jaccard_distance_units": Number(
            "the same in units of the distance between two of them", "forgetting", bounds=NONNEGATIVE
        ),
        "rbo_distance": Number(
            "1 - rank-biased overlap of the k best with retrained models', 0 to 1", "forgetting", bounds=UNIT
        ),
        "rbo_distance_units": Number(
            "the same in units of the distance between two of them", "forgetting", bounds=NONNEGATIVE
        ),
    }
    k: int = 10
    persistence: float = 0.9
    users: int = 300
    seed: int = 0

    def __post_init__(self) -> None:
        at_least(1, self, f"options.{self.name}", "k", "users")
        positive(self, f"options.{self.name}", "persistence")
        if not self.persistence < 1:
            raise UserError(f"options.{self.name}.persistence must lie in (0, 1), got {self.persistence}.")

    def measure(self, case: Case) -> dict[str, float | None]:
        if not case.retrains:
            return dict.fromkeys(self.numbers)
        own, others = self._view(case.target, case), [self._view(one, case) for one in case.retrains]
        found: dict[str, float | None] = {}
        apart = np.mean([self._distances(own, other) for other in others], axis=0)
        pairs = [self._distances(one, other) for one, other in permutations(others, 2)]
        units = np.mean(pairs, axis=0) if pairs else np.zeros(len(DISTANCES))
        for name, distance, unit in zip(DISTANCES, apart.tolist(), units.tolist(), strict=True):
            found[name] = distance
            found[f"{name}_units"] = distance / unit if unit > ROUNDING else None
        return found

    def _distances(self, one: View, other: View) -> tuple[float, float, float]:
        jaccard, rbo = list_overlaps(one, other, self.persistence)
        return relative_l2(one.scores, other.scores), 1 - float(jaccard.mean()), 1 - float(rbo.mean())

    def _view(self, model: Recommender, case: Case) -> View:
        rest = case.deletion.without(case.split.train)
        retained = retained_users(case.deletion, case.split.train)
        draws = np.random.default_rng(derive_seed(self.seed, "distance"))
        chosen = np.sort(draws.choice(retained, min(self.users, len(retained)), replace=False))
        scores = np.concatenate([np.asarray(model.score(block), dtype=np.float64) for block in blocks(chosen)])
        return View.of(scores, candidates(scores, rest[chosen]), self.k)


def relative_l2(one: NDArray[np.float64], other: NDArray[np.float64]) -> float:
    """Return |one - other| / |other|, 0 and up; 0 where both are zero."""
    difference, size = np.linalg.norm(one - other), np.linalg.norm(other)
    return float(difference / size) if size > 0 else float(difference > 0)


def list_overlaps(one: View, other: View, persistence: float) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Return (n,) Jaccard indices and rank-biased overlaps of the lists of two models, 0 to 1."""
    jaccard, agreement = agreements(one.lists, other.lists)
    tied = one.tied | other.tied
    if tied.any():
        jaccard[tied], agreement[tied] = overlaps(one.offers[tied], other.offers[tied], agreement.shape[1])
    return jaccard, weighted(agreement, persistence)
