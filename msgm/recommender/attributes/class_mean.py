r"""Class-mean removal: project out the directions in which the class means differ.

With S the span of the class means about their common mean m,

    e' = e - P_S (e - m),    P_S the orthogonal projection on S.

All class means are then m, so that no linear attacker does better than chance on these users; the change is confined to
at most C - 1 dimensions. It is the plainest eraser of this kind; LEACE is the one that moves users least.
"""

from dataclasses import dataclass
from typing import Any

from numpy.typing import NDArray

from msgm.recommender.attributes.base import ERASURES, Card, Context, PluginErasure
from msgm.recommender.attributes.concept import concept_covariance, labelled, span
from msgm.recommender.attributes.labels import Labels
from msgm.recommender.attributes.plugin import Plugin, affine


@ERASURES.register("class-mean")
@dataclass(frozen=True)
class ClassMean(PluginErasure):
    """Class-mean removal; several attributes share one span.

    Example:
        >>> model = msgm.recommender.ALS(factors=8).fit(matrix)
        >>> erased = ClassMean().erase(model.user_factors, {"plan": plans}, Context(model.item_factors))
        >>> float(abs(erased[plans == "a"].mean(0) - erased[plans == "b"].mean(0)).max()) < 1e-4
        True
    """

    card = Card(
        "e - P_S (e - m), S the span of the class means about m",
        "folklore; compared with in Belrose et al., arXiv 2306.03819",
        guarantee="linear attackers are at chance on the users it was fitted to",
    )

    def _plugin(self, embeddings: NDArray[Any], labels: list[Labels], context: Context) -> Plugin:
        basis = span(concept_covariance(embeddings, labels))
        return affine(basis @ basis.T, embeddings[labelled(labels)].astype(float).mean(0))
