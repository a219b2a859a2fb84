"""Completeness: does the model still score forgotten cells above held-out ones of the same kind?

The AUC of z (``probes``) of forgotten against held-out cells: the weighted chance that a forgotten cell scores above a
held-out one, ties half. With test cells drawn at random it is .5 in expectation for every model that saw neither, by
construction, whatever the model; above it, the model remembers.

Deviation from a plain AUC of all pairs: cells are weighed so that both sides have the same users in the same shares.
Without that, users who forget much and are easy to predict push the AUC of a retrained model off .5.
"""

from dataclasses import dataclass

import numpy as np

from msgm.recommender.metrics.base import METRICS, Case, Metric, Number
from msgm.recommender.metrics.probes import guest_scorer, probe_of, readings


@METRICS.register("completeness")
@dataclass(frozen=True)
class Completeness(Metric):
    """AUC of forgotten against held-out cells of the same users.

    None where no test cell is comparable, or where users are forgotten by a model that cannot be asked about a user
    without his row.

    Example:
        >>> Completeness().measure(case)
        {'completeness_auc': 0.5...}

    Attributes:
        seed: of the halves of forgotten users' profiles; the same for every model.
    """

    numbers = {  # noqa: RUF012
        "completeness_auc": Number(
            "AUC of forgotten against held-out cells by standardised score, 0 to 1; .5 in expectation after a retrain",
            "forgetting",
        )
    }
    seed: int = 0

    def measure(self, case: Case) -> dict[str, float | None]:
        probe = probe_of(case, self.seed)
        no_means = np.zeros(case.split.train.shape[1])
        values = readings(case.target, probe.cells, no_means, guest_scorer(case.target, probe))[:, 0]
        known = ~np.isnan(values)
        return {"completeness_auc": probe.at(known).auc(values[known])}
