r"""LEACE: least-squares concept erasure in closed form.

Of all affine maps r with Cov(r(e), z) = 0, z the class indicators, the one with the least E |r(e) - e|^2 is

    r(e) = e - W^+ P W (e - mean),    W = Cov(e)^{-1/2},    P the orthogonal projection on the span of W Cov(e, z)

(Belrose et al., "LEACE: Perfect linear concept erasure in closed form", NeurIPS 2023, arXiv 2306.03819, Theorem 4.3).
Zero covariance makes all class means equal, and then a constant is the best linear predictor for every convex loss
(Theorem 3.1 there): linear attackers are at chance, whatever the class weights. Attackers that are not linear see what
the class covariances and higher moments tell.

Zero covariance holds over the users that it was fitted to. An attacker cross-validated on the same users can so come
out a little below chance: the means of his training folds differ by just the opposite of those of the fold held out.
"""

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from msgm.recommender.attributes.base import ERASURES, Card, Context, PluginErasure
from msgm.recommender.attributes.concept import RELATIVE, concept_covariance, labelled, span
from msgm.recommender.attributes.labels import Labels
from msgm.recommender.attributes.plugin import Plugin, affine


@ERASURES.register("leace")
@dataclass(frozen=True)
class LEACE(PluginErasure):
    """LEACE; several attributes are erased together, by the span of all their covariances.

    Example:
        >>> model = msgm.recommender.ALS(factors=8).fit(matrix)
        >>> erased = LEACE().erase(model.user_factors, {"plan": plans}, Context(model.item_factors))
        >>> float(abs(erased[plans == "a"].mean(0) - erased[plans == "b"].mean(0)).max()) < 1e-4
        True
    """

    card = Card(
        "e - W^+ P W (e - mean), W = Cov(e)^{-1/2}, P on the span of W Cov(e, z)",
        "Belrose et al., NeurIPS 2023, arXiv 2306.03819, Theorem 4.3",
        deviations=(
            "with several attributes, of which users lack some, each covariance is over the users who have a value"
        ),
        guarantee="linear attackers are at chance on the users it was fitted to",
    )

    def _plugin(self, embeddings: NDArray[Any], labels: list[Labels], context: Context) -> Plugin:
        rows = embeddings[labelled(labels)].astype(np.float64)
        mean = rows.mean(0)
        variance, axes = np.linalg.eigh((rows - mean).T @ (rows - mean) / len(rows))
        kept = variance > RELATIVE * variance[-1]
        axes, deviation = axes[:, kept], np.sqrt(variance[kept])
        whiten, colour = (axes / deviation) @ axes.T, (axes * deviation) @ axes.T
        basis = span(whiten @ concept_covariance(embeddings, labels))
        return affine((colour @ basis @ basis.T @ whiten).T, mean)
