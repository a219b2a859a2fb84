"""AltEraser: second-order steps on the objective without the forgotten cells, users and items in turn.

A round takes a damped Newton step, solved by conjugate gradients, on the users' rows with the items' held, and then on
the items' with the users' held. Either subproblem is convex in models whose score is linear in either side. For ALS
and MF it is a ridge regression: a round solved to the end is a warm sweep of alternating least squares, which the
models' own ``forget`` does faster.
"""

from dataclasses import dataclass
from typing import TYPE_CHECKING

from msgm.checks import at_least
from msgm.errors import UserError
from msgm.recommender.methods.base import METHODS, Card, Ledger
from msgm.recommender.methods.gradient_method import GRADIENT_MODELS, GradientMethod, Problem
from msgm.solves import worst

if TYPE_CHECKING:
    from msgm.recommender.gradients.objectives import Tables


@METHODS.register("alt-eraser")
@dataclass(frozen=True)
class AltEraser(GradientMethod):
    """AltEraser.

    Example:
        >>> model = msgm.recommender.ALS(factors=8).fit(matrix)
        >>> made = AltEraser(rounds=1).unlearn(model, deletion, seed=0)
        >>> made.answer.exactness, made.model.seen[[3]].nnz
        ('approximate', 0)

    Attributes:
        rounds: of users and then items.
        damping: mu.
        tolerance: of conjugate gradients, relative.
        max_steps: of conjugate gradients.
    """

    rounds: int = 1
    damping: float = 0.0
    tolerance: float = 1e-4
    max_steps: int = 10

    card = Card(
        formula="theta_b - (H_b + mu I)^{-1} grad_b L_F for b = users, items, in turn",
        source="Liu et al., Forgetting Fast in Recommender Systems (arXiv 2208.06875)",
        exactness="approximate",
        models=GRADIENT_MODELS,
        needs=("forget", "retain"),
        deviations="a step is halved until the objective does not rise; for als and mf it is warm ALS: prefer native",
    )

    def __post_init__(self) -> None:
        at_least(1, self, "methods", "rounds", "max_steps")
        at_least(0, self, "methods", "damping")
        if not 0 < self.tolerance < 1:
            raise UserError(f"methods.tolerance must lie in (0, 1), got {self.tolerance}.")

    def step(self, problem: Problem, ledger: Ledger) -> "Tables":
        import torch

        from msgm.recommender.gradients.blocks import Block
        from msgm.recommender.gradients.solvers import newton_step

        none = torch.empty(0, dtype=torch.int64)
        users, items = (torch.arange(size) for size in problem.before.shape)
        blocks = [Block(problem.before, users, none), Block(problem.before, none, items)]
        tables, solves = problem.tables, []
        for block in self.rounds * blocks:
            loss = block.loss(problem.after, tables)
            found, solved = newton_step(loss, block.vector(tables), self.damping, self.tolerance, self.max_steps)
            tables = block.put(found, tables)
            solves.append(solved.solve)
        ledger.facts["solve"] = worst(solves).facts()
        return tables
