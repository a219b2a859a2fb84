r"""Distance to retrained models, in units of the distance between two of them.

With S the scores of a model for a sample of retained users, and L its lists of the k best items,

    scores      |S - S_r|_F / |S_r|_F
    jaccard     1 - mean over users of |L n L_r| / |L u L_r|
    rbo         1 - mean over users of RBO(L, L_r),
                RBO = (1 - p) / (1 - p^k) * sum over d = 1..k of p^(d-1) |L_1:d n L_r,1:d| / d

(rank-biased overlap of Webber, Moffat and Zobel, ACM TOIS 2010; cut at depth k and scaled so that equal lists give 1,
which the paper's is not). Each is a mean over the retrained models r. A unit is the mean over ordered pairs of
different retrained models: 1 is as far as one retrained model is from another. Models that do not depend on a seed have
unit 0, and then no distance in units; the plain distances tell.
"""

from collections.abc import Callable
from dataclasses import dataclass
from itertools import permutations

import numpy as np
from numpy.typing import NDArray

from msgm.checks import at_least, positive
from msgm.errors import UserError
from msgm.recommender.metrics.base import METRICS, Case, Metric, Number
from msgm.recommender.metrics.probes import retained_users
from msgm.recommender.metrics.ranking import best, blocks
from msgm.recommender.models.base import Recommender
from msgm.seeding import derive_seed

Measure = Callable[["View", "View"], float]
ROUNDING = 1e-9
"""A unit below it is zero but for rounding."""


@dataclass(frozen=True, eq=False)
class View:
    """What a model says to the sample: (n, I) scores and (n, k) lists, -1 where there is no item."""

    scores: NDArray[np.float64]
    lists: NDArray[np.int64]


@METRICS.register("distance")
@dataclass(frozen=True)
class Distance(Metric):
    """Relative L2 of scores, Jaccard and RBO distance of lists, plain and in units of retrained models' distance.

    Attributes:
        k: length of the lists.
        persistence: p of RBO, in (0, 1).
        users: retained users, drawn at random, whose scores and lists are compared.
        seed: of the draw; the same users for every model.
    """

    numbers = {  # noqa: RUF012
        "score_distance": Number("relative L2 distance of scores to retrained models', 0 and up", "forgetting"),
        "score_distance_units": Number("the same in units of the distance between two of them", "forgetting"),
        "jaccard_distance": Number("1 - Jaccard of the k best with retrained models', 0 to 1", "forgetting"),
        "jaccard_distance_units": Number("the same in units of the distance between two of them", "forgetting"),
        "rbo_distance": Number("1 - rank-biased overlap of the k best with retrained models', 0 to 1", "forgetting"),
        "rbo_distance_units": Number("the same in units of the distance between two of them", "forgetting"),
    }
    k: int = 10
    persistence: float = 0.9
    users: int = 300
    seed: int = 0

    def __post_init__(self) -> None:
        at_least(1, self, "metrics", "k", "users")
        positive(self, "metrics", "persistence")
        if not self.persistence < 1:
            raise UserError(f"metrics.persistence must lie in (0, 1), got {self.persistence}.")

    def measure(self, case: Case) -> dict[str, float | None]:
        if not case.retrains:
            return dict.fromkeys(self.numbers)
        own, others = self._view(case.target, case), [self._view(one, case) for one in case.retrains]
        found: dict[str, float | None] = {}
        for name, measure in self._measures().items():
            distance = float(np.mean([measure(own, other) for other in others]))
            pairs = [measure(one, other) for one, other in permutations(others, 2)]
            unit = float(np.mean(pairs)) if pairs else 0.0
            found[name] = distance
            found[f"{name}_units"] = distance / unit if unit > ROUNDING else None
        return found

    def _measures(self) -> dict[str, Measure]:
        return {
            "score_distance": lambda one, other: relative_l2(one.scores, other.scores),
            "jaccard_distance": lambda one, other: 1 - jaccard(one.lists, other.lists),
            "rbo_distance": lambda one, other: 1 - rbo(one.lists, other.lists, self.persistence),
        }

    def _view(self, model: Recommender, case: Case) -> View:
        rest = case.deletion.without(case.split.train)
        retained = retained_users(case.deletion, case.split.train)
        draws = np.random.default_rng(derive_seed(self.seed, "distance"))
        chosen = np.sort(draws.choice(retained, min(self.users, len(retained)), replace=False))
        scores = np.concatenate([np.asarray(model.score(block), dtype=np.float64) for block in blocks(chosen)])
        return View(scores, best(scores, rest[chosen], self.k))


def relative_l2(one: NDArray[np.float64], other: NDArray[np.float64]) -> float:
    """Return |one - other| / |other|, 0 and up; 0 where both are zero."""
    difference, size = np.linalg.norm(one - other), np.linalg.norm(other)
    return float(difference / size) if size > 0 else float(difference > 0)


def jaccard(one: NDArray[np.int64], other: NDArray[np.int64]) -> float:
    """Return the mean Jaccard index of the rows of two (n, k) arrays of items, 0 to 1; -1 is no item."""
    shared = _shared(one, other).sum(axis=(1, 2))
    union = (one >= 0).sum(axis=1) + (other >= 0).sum(axis=1) - shared
    return float(np.where(union > 0, shared / np.maximum(union, 1), 1.0).mean())


def rbo(one: NDArray[np.int64], other: NDArray[np.int64], persistence: float) -> float:
    """Return the mean rank-biased overlap, cut and scaled, of the rows of two (n, k) arrays of items, 0 to 1."""
    depth = np.arange(1, one.shape[1] + 1)
    shared = _shared(one, other).cumsum(axis=1).cumsum(axis=2)
    longest = np.maximum((one >= 0).cumsum(axis=1), (other >= 0).cumsum(axis=1))
    agreement = shared[:, depth - 1, depth - 1] / np.maximum(longest, 1)
    weights = persistence ** (depth - 1)
    return float((agreement @ weights / weights.sum()).mean())


def _shared(one: NDArray[np.int64], other: NDArray[np.int64]) -> NDArray[np.bool_]:
    """Return (n, k, k) whether the i-th item of one is the j-th of the other."""
    return np.asarray((one[:, :, None] == other[:, None, :]) & (one[:, :, None] >= 0))
