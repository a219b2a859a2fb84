"""Importance-pruned influence: the step of ``ifru`` on the rows alone that the request concerns most.

Rows of users and items are put in order by the weight that ``ifru`` spreads from the forgotten cells, and only the
given share of those of positive weight is changed, so that the Hessian's block is that much smaller.
"""

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING

from msgm.errors import UserError
from msgm.ranges import Range, ranges
from msgm.recommender.methods.base import METHODS, Card
from msgm.recommender.methods.gradient_method import GRADIENT_MODELS
from msgm.recommender.methods.ifru import IFRU

if TYPE_CHECKING:
    from torch import Tensor


@METHODS.register("pruned-influence")
@dataclass(frozen=True)
class PrunedInfluence(IFRU):
    """``ifru`` with pruning.

    Example:
        >>> model = msgm.recommender.ALS(factors=8).fit(matrix)
        >>> made = PrunedInfluence(keep=0.5).unlearn(model, deletion, seed=0)
        >>> made.answer.exactness, made.model.seen[[3]].nnz
        ('approximate', 0)

    Attributes:
        keep: share of the rows of positive weight that are changed, (0, 1]; of each side at least one.
    """

    keep: float = 0.3

    search = ranges(keep=Range(0.05, 1.0))
    card = Card(
        formula="as ifru, S being the share of rows with the largest weights",
        source="Zhang et al., Recommendation Unlearning via Influence Function (arXiv 2307.02147), pruning",
        exactness="approximate",
        models=GRADIENT_MODELS,
        needs=("forget", "retain"),
        deviations="as ifru; one share for users and items alike, ties to the lower number",
    )

    def __post_init__(self) -> None:
        super().__post_init__()
        if not 0 < self.keep <= 1:
            raise UserError(f"methods.keep must lie in (0, 1], got {self.keep}.")

    def chosen(self, users: "Tensor", items: "Tensor") -> "tuple[Tensor, Tensor]":
        return self._largest(users), self._largest(items)

    def _largest(self, weights: "Tensor") -> "Tensor":
        size = math.ceil(self.keep * int((weights > 0).sum()))
        return weights.argsort(descending=True, stable=True)[:size].sort().values
