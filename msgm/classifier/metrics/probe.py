"""Linear probes of the frozen penultimate features: what a new head could still read from them.

Two questions, each the cross-validated AUC of logistic regression on standardised features: for class requests, whether
held-out items of the forgotten classes are told from others (the features of a class survive where only its logit was
pushed down); and whether forget items are told from non-members, beyond what the outputs show. The reference is what a
retrained model's features allow, not .5.
"""

import copy
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from msgm.checks import at_least
from msgm.classifier.metrics.base import METRICS, UNIT, Case, Live, Metric, Number
from msgm.classifier.metrics.scores import Floats, controls, forgotten_classes
from msgm.errors import UserError
from msgm.seeding import derive_seed
from msgm.solves import ITERATIONS, fitted
from msgm.strata import auc

if TYPE_CHECKING:
    from msgm.classifier.data import Examples


@METRICS.register("probe")
@dataclass(frozen=True)
class Probe(Metric):
    """Linear probes of the features.

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
            "AUC of a linear probe for forget items against non-members, 0 to 1", "residue", bounds=UNIT
        ),
    }
    live = True

    folds: int = 5
    items: int = 1000

    def __post_init__(self) -> None:
        at_least(2, self, "metrics.probe", "folds", "items")

    def measure(self, case: Case) -> dict[str, float | None]:
        live = case.live
        if live is None:
            return dict.fromkeys(self.numbers)
        held_out = live.split.tuning.join(live.split.nonmembers)
        gone = np.isin(held_out.labels.numpy(), forgotten_classes(case.target))
        same = np.flatnonzero(controls(case.target, case.scope))
        return {
            "probe_class_auc": self._auc(
                live, held_out.subset(np.flatnonzero(gone)), held_out.subset(np.flatnonzero(~gone))
            ),
            "probe_membership_auc": self._auc(live, live.split.forget, live.split.nonmembers.subset(same)),
        }

    def _auc(self, live: Live, positive: "Examples", negative: "Examples") -> float | None:
        if min(len(positive), len(negative)) < self.folds:
            return None
        try:
            seen = [self._features(live, examples) for examples in (positive, negative)]
        except UserError:  # no linear head, so no features to probe
            return None
        labels = np.repeat([1, 0], [len(x) for x in seen])
        return probe_auc(np.concatenate(seen), labels, self.folds, live.settings.seed)

    def _features(self, live: Live, examples: "Examples") -> Floats:
        from msgm.classifier.networks import features

        chosen, model = examples.drawn(self.items, live.settings.seed, "probe-items"), copy.deepcopy(live.model)
        return np.asarray(features(model, chosen, live.settings.device).double())


def probe_auc(x: Floats, labels: NDArray[np.int64], folds: int, seed: int) -> float | None:
    """Return the cross-validated AUC of logistic regression from features (n, F) to labels (n,) of 0 and 1."""
    from sklearn.linear_model import LogisticRegression
    from sklearn.model_selection import StratifiedKFold, cross_val_predict
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import StandardScaler

    order = StratifiedKFold(folds, shuffle=True, random_state=derive_seed(seed, "probe") % 2**32)
    probe = make_pipeline(StandardScaler(), LogisticRegression(max_iter=ITERATIONS, class_weight="balanced"))
    scores = fitted(lambda: cross_val_predict(probe, x, labels, cv=order, method="decision_function"), "the probe")
    return auc(scores[labels == 1], scores[labels == 0])
