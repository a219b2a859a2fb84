"""Membership inference: an attacker trained on retained and never-seen cells classifies the forgotten ones.

The attacker is a logistic regression. It learns on retained training cells (members) and validation cells (never seen
by the model) of the same retained users, and is then asked about forgotten cells and test cells:

- by scores: the three readings of ``probes``;
- by embeddings: the element-wise product of the user's and the item's factors, for models that have both.

Reported are the AUC of telling forgotten from test cells, and the share of forgotten cells that it classifies as
members. After a retrain the AUC is .5 in expectation and the share that of test cells (``probes`` says why, and how
users who are gone are asked).

After the membership oracle of SCIF (Li et al., "Selective and collaborative influence function for efficient
recommendation unlearning", Expert Systems with Applications 2023). Deviations: non-members are real cells held out, not
pairs drawn at random, by which an attacker learns likes and not membership; both kinds come from the same users in the
same shares.
"""

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from msgm.checks import at_least
from msgm.recommender.metrics.base import METRICS, Case, Metric, Number
from msgm.recommender.metrics.probes import (
    Probe,
    UserItemPairs,
    guest_factors,
    guest_scorer,
    item_means,
    joined,
    probe_of,
    readings,
)
from msgm.recommender.models.base import Recommender
from msgm.seeding import derive_seed
from msgm.solves import ITERATIONS, fitted
from msgm.strata import balanced

Features = NDArray[np.float64]
LEAST = 20
"""Cells of a kind below which an attacker is not trained."""


@METRICS.register("membership")
@dataclass(frozen=True)
class Membership(Metric):
    """Attackers on scores and on embeddings; None without validation cells, or where the model cannot be asked.

    Example:
        >>> found = Membership(cells=500).measure(case)
        >>> 0 <= found["membership_scores_auc"] <= 1, 0 <= found["membership_embeddings_auc"] <= 1
        (True, True)

    Attributes:
        cells: of a kind that an attacker learns from, at most.
        seed: of the draws.
    """

    numbers = {  # noqa: RUF012
        "membership_scores_auc": Number(
            "AUC of an attacker by scores, forgotten against test cells, 0 to 1; .5 in expectation after a retrain",
            "privacy",
        ),
        "membership_scores_share": Number(
            "share of forgotten cells that the attacker by scores calls members, 0 to 1", "privacy"
        ),
        "membership_embeddings_auc": Number(
            "AUC of an attacker by factors, forgotten against test cells, 0 to 1; .5 in expectation after a retrain",
            "privacy",
        ),
        "membership_embeddings_share": Number(
            "share of forgotten cells that the attacker by factors calls members, 0 to 1", "privacy"
        ),
    }
    cells: int = 5000
    seed: int = 0

    def __post_init__(self) -> None:
        at_least(LEAST, self, f"options.{self.name}", "cells")

    def measure(self, case: Case) -> dict[str, float | None]:
        probe, lesson = probe_of(case, self.seed), self._lesson(case)
        found: dict[str, float | None] = dict.fromkeys(self.numbers)
        if lesson is None:
            return found
        means = item_means(case, self.seed)
        taught = readings(case.target, lesson.cells, means, None)
        asked = readings(case.target, probe.cells, means, guest_scorer(case.target, probe))
        found |= _attack("scores", taught, lesson, asked, probe)
        tables = _factors(case.target, probe)
        if tables is not None:
            taught, asked = (_products(tables, cells) for cells in (lesson.cells, probe.cells))
            found |= _attack("embeddings", taught, lesson, asked, probe)
        return found

    def _lesson(self, case: Case) -> Probe | None:
        """Return the cells that an attacker learns from; ``forgotten`` marks members."""
        retained = case.deletion.without(case.split.train)
        seen, unseen = UserItemPairs.of(retained), UserItemPairs.of(case.deletion.without(case.split.validation))
        draws = np.random.default_rng(derive_seed(self.seed, "membership"))
        users = np.intersect1d(seen.users, unseen.users)
        parts = [self._drawn(cells.at(np.isin(cells.users, users)), draws) for cells in (seen, unseen)]
        cells = joined(parts)
        member = np.arange(len(cells.users)) < len(parts[0].users)
        keep, weights = balanced(cells.users, member)
        lesson = Probe(cells, member, weights, case.split.train[:0], None).at(keep)
        enough = min(lesson.forgotten.sum(), (~lesson.forgotten).sum()) >= LEAST
        return lesson if enough else None

    def _drawn(self, cells: UserItemPairs, draws: np.random.Generator) -> UserItemPairs:
        count = len(cells.users)
        return cells.at(draws.choice(count, min(self.cells, count), replace=False))


def _attack(kind: str, taught: Features, lesson: Probe, asked: Features, probe: Probe) -> dict[str, float | None]:
    """Return AUC and member share of an attacker trained on ``taught``, over the rows of ``asked`` without NaN."""
    from sklearn.linear_model import LogisticRegression
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import StandardScaler

    known = np.asarray(~np.isnan(asked).any(axis=1))
    auc = share = None
    if probe.forgotten[known].any() and np.isfinite(taught).all():
        attacker = make_pipeline(StandardScaler(), LogisticRegression(max_iter=ITERATIONS))
        weights = {"logisticregression__sample_weight": lesson.weights}
        fitted(lambda: attacker.fit(taught, lesson.forgotten, **weights), "the attacker on membership")
        opinion = attacker.predict_proba(asked[known])[:, 1]
        auc = probe.at(known).auc(opinion)
        share = float((opinion[probe.forgotten[known]] > 0.5).mean())
    return {f"membership_{kind}_auc": auc, f"membership_{kind}_share": share}


def _factors(model: Recommender, probe: Probe) -> tuple[NDArray[Any], NDArray[Any]] | None:
    """Return factors of all users, new ones last (NaN where the model gives none), and of items; None without any."""
    if not (hasattr(model, "user_factors") and hasattr(model, "item_factors")):
        return None
    of_users, of_items = np.asarray(model.user_factors), np.asarray(model.item_factors)
    guests = guest_factors(model, probe)
    if guests is None:
        guests = np.full((probe.profiles.shape[0], of_users.shape[1]), np.nan)
    return np.concatenate([of_users, guests]), of_items


def _products(tables: tuple[NDArray[Any], NDArray[Any]], cells: UserItemPairs) -> Features:
    return np.asarray(tables[0][cells.users] * tables[1][cells.items], dtype=np.float64)
