"""Counts forgotten items in any user's list, and lists that are served to forgotten users."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from msgm.checks import at_least
from msgm.errors import UserError
from msgm.recommender.metrics.base import METRICS, Case, Metric, Number
from msgm.recommender.metrics.ranking import blocks
from msgm.recommender.models.base import Recommender
from msgm.recommender.ties import any_of


@METRICS.register("lists")
@dataclass(frozen=True)
class Lists(Metric):
    """Forgotten items and users in what ``recommend`` serves; both numbers must be 0.

    A single forgotten cell does not count: its item may be recommended to its user as any other may. Where scores are
    tied, a user counts by the chance that the list holds a forgotten item.

    Example:
        >>> Lists(k=10).measure(case)  # the request names users and cells, but no item
        {'lists_with_forgotten_items': None, 'forgotten_users_served': 0.0}

    Attributes:
        k: length of the lists.
    """

    numbers = {  # noqa: RUF012
        "lists_with_forgotten_items": Number(
            "share of retained users whose k best hold a forgotten item, 0 to 1; must be 0", "residue", "lower"
        ),
        "forgotten_users_served": Number(
            "share of forgotten users to whom items are still recommended, 0 to 1; must be 0", "residue", "lower"
        ),
    }
    k: int = 10

    def __post_init__(self) -> None:
        at_least(1, self, f"options.{self.name}", "k")

    def measure(self, case: Case) -> dict[str, float | None]:
        found: dict[str, float | None] = dict.fromkeys(self.numbers)
        if len(case.deletion.items):
            found["lists_with_forgotten_items"] = self._with_items(case)
        if len(case.deletion.users):
            served = [_serves(case.target, user, self.k) for user in case.deletion.users]
            found["forgotten_users_served"] = float(np.mean(served))
        return found

    def _with_items(self, case: Case) -> float | None:
        gone = case.target.gone_users.copy()
        gone[case.deletion.users] = True
        users = np.flatnonzero(~gone)
        holding = [any_of(case.target.offers(block), case.deletion.items, self.k) for block in blocks(users)]
        return float(np.concatenate(holding).mean()) if holding else None


def _serves(model: Recommender, user: np.int64, k: int) -> bool:
    asked: NDArray[np.int64] = np.array([user])
    try:
        return bool((model.listed(asked, k) >= 0).any())
    except UserError:
        return False
