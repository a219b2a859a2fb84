"""UltraRE: shards by optimal transport, combined by logistic regression."""

from dataclasses import dataclass
from typing import Literal

from msgm.recommender.methods.base import METHODS, Card, Ledger, Method
from msgm.recommender.methods.sisa import answer_in_shards
from msgm.recommender.models.base import Recommender
from msgm.recommender.requests import Deletion


@METHODS.register("ultra-re")
@dataclass(frozen=True)
class UltraRE(Method):
    """UltraRE.

    Example:
        >>> model = msgm.recommender.EASE().fit(matrix)
        >>> made = UltraRE(shards=2).unlearn(model, deletion, seed=0)
        >>> made.answer.exactness, made.model.seen[[3]].nnz
        ('approximate', 0)

    Attributes:
        shards: K.
        balance: ``users`` of equal number, or ``interactions``: shards of equal users can differ many times in work,
            as active users gather in the same ones.
    """

    shards: int = 10
    balance: Literal["users", "interactions"] = "interactions"

    card = Card(
        formula="K models, shards by optimal transport; those hit fitted anew; scores weighed by logistic regression",
        source="Li et al., UltraRE: Enhancing RecEraser for Recommendation Unlearning, NeurIPS 2023",
        exactness="approximate",
        needs=("retain", "forget"),
        deviations=(
            "masses by interactions; scores of models that can are folded in, in place of dot products of tables from "
            "different shards; weights from 5% of the cells, which no shard is fitted to. The partition was learnt "
            "from the cells to forget, as in the paper: not exact in law"
        ),
    )

    def forget(self, model: Recommender, deletion: Deletion, seed: int, ledger: Ledger) -> tuple[Recommender, int, str]:
        settings = {"partition": "ot", "balance": self.balance, "shards": self.shards}
        return answer_in_shards(model, deletion, seed, ledger, combiner="logistic", **settings)
