"""RecEraser: balanced shards of similar users, items or interactions, combined by attention."""

from dataclasses import dataclass
from typing import Literal

from msgm.recommender.methods.base import METHODS, Card, Ledger, Method
from msgm.recommender.methods.sisa import answer_in_shards
from msgm.recommender.models.base import Recommender
from msgm.recommender.requests import Deletion
from msgm.recommender.sharding.attention import FACTOR_MODELS


@METHODS.register("rec-eraser")
@dataclass(frozen=True)
class RecEraser(Method):
    """RecEraser.

    Example:
        >>> model = msgm.recommender.ALS(factors=8).fit(matrix)
        >>> made = RecEraser(shards=2).unlearn(model, deletion, seed=0)
        >>> made.answer.exactness, made.model.seen[[3]].nnz
        ('approximate', 0)

    Attributes:
        shards: K.
        partition: by users (``ubp``), by items (``ibp``) or by interactions (``inbp``).
        balance: what shards have the same amount of.
    """

    shards: int = 10
    partition: Literal["ubp", "ibp", "inbp"] = "inbp"
    balance: Literal["users", "interactions"] = "users"

    card = Card(
        formula="K models of shards by balanced k-means, those hit fitted anew; attention over their embeddings",
        source="Chen et al., Recommendation Unlearning, WWW 2022, sections 3.2 to 3.4",
        exactness="approximate",
        models=FACTOR_MODELS,
        needs=("retain", "forget"),
        deviations=(
            "vectors by a short implicit ALS; centroids are mean vectors; attention is trained for 50 epochs of BPR, "
            "from rotations that align the shards, and not stopped early on test cells; users are folded into every "
            "shard. The partition was learnt from the cells to forget, as in the paper: not exact in law"
        ),
    )

    def forget(self, model: Recommender, deletion: Deletion, seed: int, ledger: Ledger) -> tuple[Recommender, int, str]:
        settings = {"partition": self.partition, "balance": self.balance, "shards": self.shards}
        return answer_in_shards(model, deletion, seed, ledger, combiner="attention", **settings)
