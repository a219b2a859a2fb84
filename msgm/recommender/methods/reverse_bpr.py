"""Reverse BPR: forgotten cells are ranked down, kept ones held up, with a bound on how far down.

With l(u, i, j) = softplus(x_uj - x_ui) averaged over items j not seen,

    minimise  beta mean over kept cells of l  -  (1 - beta) mean over F of min(l, ceiling)

by steps of Adam: raising l on a forgotten cell is BPR with seen and not seen exchanged. Without the ceiling the second
term has no bound below; with it, a cell that has reached it pulls no more, and the descent ends when the mean of l over
F has. The default ceiling, ln 2, is l where the model prefers neither item.
"""

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING

from msgm.checks import at_least, positive
from msgm.errors import UserError
from msgm.recommender.methods.base import METHODS, Card, Ledger
from msgm.recommender.methods.gradient_method import PAIRWISE_MODELS, GradientMethod, Problem

if TYPE_CHECKING:
    from torch import Tensor

    from msgm.recommender.gradients.objectives import Tables


@METHODS.register("reverse-bpr")
@dataclass(frozen=True)
class ReverseBPR(GradientMethod):
    """Reverse BPR.

    Example:
        >>> model = msgm.recommender.BPR(factors=8, epochs=2).fit(matrix)
        >>> made = ReverseBPR(steps=3).unlearn(model, deletion, seed=0)
        >>> made.answer.exactness, made.model.seen[[3]].nnz
        ('approximate', 0)

    Attributes:
        beta: weight of the kept cells, (0, 1).
        ceiling: of a forgotten cell's loss, > 0.
        steps: of Adam, at most.
        learning_rate: of Adam.
        batch_size: kept cells of a step, drawn anew each time.
    """

    beta: float = 0.9
    ceiling: float = math.log(2)
    steps: int = 50
    learning_rate: float = 0.002
    batch_size: int = 16384

    card = Card(
        formula="argmin of beta L_r - (1 - beta) min(L_f, ceiling), some steps",
        source="MMRecUn (loss flip with retain balance, reverse BPR)",
        exactness="approximate",
        models=PAIRWISE_MODELS,
        needs=("forget", "retain sample"),
        deviations="the ceiling and the stop are ours: the published objective has no bound below",
    )

    def __post_init__(self) -> None:
        at_least(1, self, "methods", "steps", "batch_size")
        positive(self, "methods", "learning_rate", "ceiling")
        if not 0 < self.beta < 1:
            raise UserError(f"methods.beta must lie in (0, 1), got {self.beta}.")

    def step(self, problem: Problem, ledger: Ledger) -> "Tables":
        from msgm.recommender.gradients.descent import batch_of, descend

        forgotten, kept, after = problem.places(True), problem.places(False), problem.after

        def loss(tables: "Tables", step: int) -> "Tensor | None":
            lost = after.losses(tables, forgotten)
            if float(lost.detach().mean()) >= self.ceiling:
                return None
            retained = after.losses(tables, batch_of(kept, self.batch_size, problem.seed, step)).mean()
            return self.beta * retained - (1 - self.beta) * lost.clamp_max(self.ceiling).mean()

        found, ledger.facts["steps"] = descend(problem.tables, loss, self.steps, self.learning_rate)
        return found
