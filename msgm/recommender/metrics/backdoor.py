"""Repair of planted profiles: how often the item that they promote is still recommended once they are forgotten.

A group of false users was planted who all have the promoted items, tagged ``promoted``, beside others (a bandwagon or
spam attack). Exposure@k is the share of other users, of those who do not have all promoted items, whose k best hold
one, and

    repair = (exposure of the original - exposure) / (exposure of the original - mean exposure of retrained models):

1 is as good as retraining, 0 is as before. Where scores are tied, a user counts by the chance that the list holds one.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from msgm.checks import at_least
from msgm.recommender.metrics.base import METRICS, Case, Metric, Number
from msgm.recommender.metrics.ranking import blocks, candidates
from msgm.recommender.models.base import Recommender
from msgm.recommender.sparse import rows_of
from msgm.recommender.ties import any_of

LEAST_EFFECT = 0.005
"""Below this difference between the exposure of the original and of retrained models there was nothing to repair."""


@METRICS.register("backdoor")
@dataclass(frozen=True)
class Backdoor(Metric):
    """Exposure of promoted items; None where no item carries the tag or no cell of such an item is to be forgotten.

    Example:
        >>> 0 <= Backdoor(k=10, tag="promoted").measure(case)["promoted_exposure"] <= 1
        True

    Attributes:
        k: length of the lists.
        tag: of the promoted items.
    """

    numbers = {  # noqa: RUF012
        "promoted_exposure": Number(
            "share of retained users whose k best hold a promoted item, 0 to 1", "forgetting", "band"
        ),
        "promoted_repair": Number(
            "how much of the promotion's effect is undone; 0 is as before, 1 is as retrained models", "forgetting"
        ),
    }
    k: int = 10
    tag: str = "promoted"

    def __post_init__(self) -> None:
        at_least(1, self, f"options.{self.name}", "k")

    def measure(self, case: Case) -> dict[str, float | None]:
        items = np.flatnonzero(case.data.tags.get(self.tag, np.zeros(case.split.train.shape[1], dtype=bool)))
        promoted = np.isin(case.deletion.only(case.split.train).indices, items)
        users = _others(case, items)
        if not promoted.any() or not len(users):
            return dict.fromkeys(self.numbers)
        now = self._exposure(case.target, case, users, items)
        before = self._exposure(case.original, case, users, items)
        after = [self._exposure(one, case, users, items) for one in case.retrains]
        effect = before - float(np.mean(after)) if after else 0.0
        repair = (before - now) / effect if abs(effect) >= LEAST_EFFECT else None
        return {"promoted_exposure": now, "promoted_repair": repair}

    def _exposure(self, model: Recommender, case: Case, users: NDArray[np.int64], items: NDArray[np.int64]) -> float:
        rest = case.deletion.without(case.split.train)
        exposed = [any_of(candidates(model.score(block), rest[block]), items, self.k) for block in blocks(users)]
        return float(np.concatenate(exposed).mean())


def _others(case: Case, items: NDArray[np.int64]) -> NDArray[np.int64]:
    """Return the retained users who can be shown a promoted item, because they do not have them all."""
    rest = case.deletion.without(case.split.train)
    owned = np.isin(rest.indices, items)
    rows = rows_of(rest)
    having = np.bincount(rows[owned], minlength=rest.shape[0])
    return np.flatnonzero((np.diff(rest.indptr) > 0) & (having < len(items)))
