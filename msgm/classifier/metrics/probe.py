"""Linear probes of the frozen penultimate features: what a new head could still read from them.

Two questions, each the cross-validated AUC of logistic regression on standardised features: for class requests, whether
held-out items of the forgotten classes are separable from others (the features of a class survive where only its logit
was pushed down); and whether forget items are separable from their controls (``msgm.strata``), beyond what the outputs
show. The reference is what a retrained model's features allow, not .5.
"""

import copy
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from msgm.checks import at_least
from msgm.classifier.metrics.base import METRICS, UNIT, Case, Live, Metric, Number
from msgm.classifier.metrics.scores import Floats, Mask, controls, forgotten_classes
from msgm.errors import UserError
from msgm.seeding import derive_seed
from msgm.solves import ITERATIONS, fitted
from msgm.strata import auc, balanced

if TYPE_CHECKING:
    from msgm.classifier.data import Examples


@METRICS.register("probe")
@dataclass(frozen=True)
class Probe(Metric):
    """Linear probes of the features.

    Example:
        >>> found = Probe(folds=3).measure(case)
        >>> 0 <= found["probe_membership_auc"] <= 1
        True
        >>> found["probe_class_auc"] is None  # the request is of instances, not of a class
        True

    Attributes:
        folds: of the cross-validation.
        items: items of each group at most, drawn at random when there are more.
    """

    numbers = {  # noqa: RUF012
        "probe_class_auc": Number(
            "AUC of a linear probe for held-out items of the forgotten classes, 0 to 1; class requests alone",
            "residue",
            bounds=UNIT,
        ),
        "probe_membership_auc": Number(
            "AUC of a linear probe for forget items against their controls, 0 to 1", "residue", bounds=UNIT
        ),
    }
    live = True

    folds: int = 5
    items: int = 1000

    def __post_init__(self) -> None:
        at_least(2, self, "options.probe", "folds", "items")

    def measure(self, case: Case) -> dict[str, float | None]:
        live = case.live
        if live is None:
            return dict.fromkeys(self.numbers)
        held_out = live.split.tuning.join(live.split.nonmembers)
        gone = np.isin(held_out.labels.numpy(), forgotten_classes(case.target))
        found = controls(case.target)
        return {
            "probe_class_auc": self._auc(live, held_out.where(gone), held_out.where(~gone)),
            "probe_membership_auc": self._auc(
                live, live.split.forget.where(found.matched), live.split.nonmembers.where(found.used), matched=True
            ),
        }

    def _auc(self, live: Live, *sides: "Examples", matched: bool = False) -> float | None:
        """Return the AUC of telling the first group's features from the second's, within strata if ``matched``."""
        drawn = [side.drawn(self.items, live.settings.seed, "probe-items") for side in sides]
        first = np.repeat([True, False], [len(side) for side in drawn])
        strata = np.concatenate([side.strata for side in drawn]) if matched else np.zeros(len(first), dtype=np.int64)
        kept, weights = balanced(strata, first)
        if min(first[kept].sum(), (~first[kept]).sum()) < self.folds:
            return None
        try:
            x = np.concatenate([self._features(live, side) for side in drawn])
        except UserError:  # no linear head, so no features to probe
            return None
        return probe_auc(x[kept], first[kept], weights[kept], self.folds, live.settings.seed)

    def _features(self, live: Live, examples: "Examples") -> Floats:
        from msgm.classifier.networks import features

        return np.asarray(features(copy.deepcopy(live.model), examples, live.settings.device).double())


def probe_auc(x: Floats, positive: Mask, weights: Floats, folds: int, seed: int) -> float | None:
    """Return the cross-validated AUC of logistic regression on features (n, F) of positive items and weighted others.

    Args:
        x: features.
        positive: (n,) which items are of the kind to tell.
        weights: (n,) as ``msgm.strata.balanced`` gives them: 1 for the positive items, and as much for all others.
        folds: of the cross-validation.
        seed: of the folds.
    """
    from sklearn.linear_model import LogisticRegression
    from sklearn.model_selection import StratifiedKFold, cross_val_predict
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import StandardScaler

    order = StratifiedKFold(folds, shuffle=True, random_state=derive_seed(seed, "probe") % 2**32)
    probe = make_pipeline(StandardScaler(), LogisticRegression(max_iter=ITERATIONS))
    told = {"logisticregression__sample_weight": weights * (len(weights) / weights.sum())}
    scores = fitted(
        lambda: cross_val_predict(probe, x, positive, cv=order, method="decision_function", params=told), "the probe"
    )
    return auc(scores[positive], scores[~positive], weights[~positive])
