"""Label flip: fine-tuning on the forgotten cells with the opposite label, beside cells that stay.

    minimise  sum over F of l_flip(z)  +  (kept cells / batch) sum over a batch of kept cells of l(z)  +  Omega

by steps of Adam. The opposite of "seen" is "not seen" with the same weight in ALS, alpha s^2 + s^2 in all, and the
other item preferred in BPR and LightGCN. Every term is bounded below, so that there is nothing to clip.
"""

from dataclasses import dataclass
from typing import TYPE_CHECKING

from msgm.checks import at_least, positive
from msgm.ranges import Range, ranges
from msgm.recommender.methods.base import METHODS, Card, Ledger
from msgm.recommender.methods.gradient_method import GradientMethod, Problem

if TYPE_CHECKING:
    from torch import Tensor

    from msgm.recommender.gradients.objectives import Tables


@METHODS.register("label-flip")
@dataclass(frozen=True)
class LabelFlip(GradientMethod):
    """Label flip; for labels of yes and no alone.

    Example:
        >>> model = msgm.recommender.BPR(factors=8, epochs=2).fit(matrix)
        >>> made = LabelFlip(steps=3).unlearn(model, deletion, seed=0)
        >>> made.answer.exactness, made.model.seen[[3]].nnz
        ('approximate', 0)

    Attributes:
        steps: of Adam.
        learning_rate: of Adam.
        batch_size: kept cells of a step, drawn anew each time.
    """

    steps: int = 20
    learning_rate: float = 0.002
    batch_size: int = 16384

    search = ranges(learning_rate=Range(1e-4, 0.1, log=True))
    card = Card(
        formula="argmin of sum over F of l(z, 1 - y) + L_r, some steps",
        source="Alshehri and Zhang, label flipping with retained samples",
        exactness="approximate",
        models=("als", "bpr", "lightgcn"),
        needs=("forget", "retain sample"),
        deviations="the sum over kept cells is scaled up to all of them; Adam",
    )

    def __post_init__(self) -> None:
        at_least(1, self, "methods", "steps", "batch_size")
        positive(self, "methods", "learning_rate")

    def step(self, problem: Problem, ledger: Ledger) -> "Tables":
        from msgm.recommender.gradients.descent import batch_of, descend

        forgotten, kept, after = problem.places(True), problem.places(False), problem.after

        def loss(tables: "Tables", step: int) -> "Tensor":
            batch = batch_of(kept, self.batch_size, problem.seed, step)
            scale = len(kept) / len(batch)
            retained = scale * (after.weights[batch] * after.losses(tables, batch)).sum() + after.background(tables)
            return after.flipped(tables, forgotten).sum() + retained

        found, _ = descend(problem.tables, loss, self.steps, self.learning_rate)
        return found
