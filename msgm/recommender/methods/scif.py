r"""SCIF: an influence step on the rows of the users concerned alone, with the forgotten labels replaced.

Let u be the users who have a cell to forget, theta_u their rows, all other rows held. The Newton step on the
objective without the cells, L_F, is

    theta_u  <-  theta_u - H_u^{-1} grad_u L_F(theta),

which for a model at its optimum, grad L = 0, is the influence function theta_u + H_u^{-1} (sum over F of grad l(z)),
less what the replacement labels add. In ALS, MF and BPR a user's row meets no other user's, so that H_u falls apart
into a d x d block for every user, solved by Cholesky; where the loss is quadratic (ALS, MF), the step is the exact
re-solve of the user's row against the items as they are. In LightGCN users meet in the graph, and damped conjugate
gradients solve for all of them at once.
"""

from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

from msgm.checks import at_least
from msgm.errors import UserError
from msgm.recommender.methods.base import METHODS, Card, Ledger
from msgm.recommender.methods.gradient_method import GRADIENT_MODELS, GradientMethod, Problem

if TYPE_CHECKING:
    from msgm.recommender.gradients.objectives import Tables


@METHODS.register("scif")
@dataclass(frozen=True)
class SCIF(GradientMethod):
    """SCIF.

    Example:
        >>> model = msgm.recommender.ALS(factors=8).fit(matrix)
        >>> made = SCIF().unlearn(model, deletion, seed=0)
        >>> made.answer.exactness, made.model.seen[[3]].nnz
        ('approximate', 0)

    Attributes:
        replacement: ``collaborative`` puts what the other users say of an item in the place of a forgotten label: its
            mean rating, or a cell that counts with the share of users who have the item; ``none`` drops the cell.
        stationary: whether to take the model to be at its optimum, as influence functions do. Otherwise the step also
            mends what the fit had left undone in the rows concerned.
        damping: added to a Hessian's diagonal: as a share of its mean for a user's block, of H's largest eigenvalue for
            conjugate gradients.
        tolerance: of conjugate gradients, relative.
        max_steps: of conjugate gradients.
    """

    replacement: Literal["collaborative", "none"] = "collaborative"
    stationary: bool = False
    damping: float = 0.0
    tolerance: float = 1e-4
    max_steps: int = 100

    card = Card(
        formula="theta_u - H_u^{-1} grad_u L_F, F's labels replaced by those of other users",
        source="Li et al., Selective and Collaborative Influence Function (Expert Systems with Applications 2023)",
        exactness="approximate",
        models=GRADIENT_MODELS,
        needs=("forget", "retain of the users concerned"),
        deviations=(
            "Cholesky of a user's own block in place of an iterative solve; Newton step with the residual gradient "
            "unless stationary; replacement: the item's mean over all other users"
        ),
    )

    def __post_init__(self) -> None:
        at_least(0, self, "methods", "damping")
        at_least(1, self, "methods", "max_steps")
        if not 0 < self.tolerance < 1:
            raise UserError(f"methods.tolerance must lie in (0, 1), got {self.tolerance}.")

    def step(self, problem: Problem, ledger: Ledger) -> "Tables":
        import torch

        from msgm.recommender.gradients.blocks import Block
        from msgm.recommender.gradients.solvers import (
            blocks_solve,
            gradient,
            hessian_product,
            solve_blocks,
            solve_damped,
        )

        users = torch.unique(problem.before.users[problem.forgotten])
        block = Block(problem.before, users, torch.empty(0, dtype=torch.int64))
        collaborative = self.replacement == "collaborative"
        after = problem.after.replaced(problem.forgotten) if collaborative else problem.after
        point, loss = block.vector(problem.tables), block.loss(after, problem.tables)
        slope = gradient(loss, point)
        if self.stationary:
            slope = slope - gradient(block.loss(problem.before, problem.tables), point)
        ledger.facts["users"] = len(users)
        if after.local:
            blocks = after.user_hessians(problem.tables, users)
            solved = solve_blocks(blocks, slope, self.damping)
            ledger.facts["solve"] = blocks_solve(blocks, slope, self.damping, solved).facts()
            return block.put(point - solved, problem.tables)
        product = hessian_product(loss, point)
        found = solve_damped(product, slope, self.damping, self.tolerance, self.max_steps, problem.seed)
        ledger.facts |= found.facts()
        return block.put(point - found.x, problem.tables)
