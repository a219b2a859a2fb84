"""LASER: one model trained on groups of users in turn, rolled back to before the first group hit."""

from dataclasses import dataclass

from msgm.recommender.methods.base import METHODS, Card, Ledger, Method
from msgm.recommender.models.base import Recommender
from msgm.recommender.requests import Deletion
from msgm.recommender.sharding.laser import SequentialRecommender
from msgm.recommender.sharding.stages import WARM


@METHODS.register("laser")
@dataclass(frozen=True)
class Laser(Method):
    """LASER.

    Example:
        >>> model = msgm.recommender.ALS(factors=8).fit(matrix)
        >>> made = Laser(stages=2).unlearn(model, deletion, seed=0)
        >>> made.answer.exactness, made.model.seen[[3]].nnz
        ('approximate', 0)

    Attributes:
        stages: number of groups, and of stages.
        rounds: sweeps or epochs of a stage.
    """

    stages: int = 10
    rounds: int = 2

    card = Card(
        formula="one model trained on groups from easy to hard, checkpoints; back to the last clean one, then replay",
        source="Li et al., Making recommender systems forget, Knowledge-Based Systems 2024",
        exactness="approximate",
        models=WARM,
        needs=("retain", "forget"),
        deviations=(
            "groups by balanced k-means of vectors by implicit ALS; a stage trains on all groups so far; no early "
            "stopping and no shift of parameters in the replay. Groups and order were learnt from the cells to forget"
        ),
    )

    def forget(self, model: Recommender, deletion: Deletion, seed: int, ledger: Ledger) -> tuple[Recommender, int, str]:
        with ledger.preparing():
            system = SequentialRecommender(model.settings(), self.stages, self.rounds)
            system.fit(model.seen, seed, model.times)
            system.gone_users, system.gone_items = model.gone_users.copy(), model.gone_items.copy()
        ledger.storage_bytes = system.storage_bytes()
        answer = system.forget(deletion)
        ledger.facts.update(answer.facts)
        return system, answer.touched, answer.exactness
