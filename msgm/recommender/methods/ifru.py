r"""IFRU: an influence step on the rows of users and items near the forgotten cells.

With S the rows within k hops of a forgotten cell in the graph of users and items, and all other rows held,

    theta_S  <-  theta_S + (H_S + mu I)^{-1} (grad_S L(theta) - grad_S L_F(theta)),

H_S the block of the Hessian of L_F, mu = damping times its largest |eigenvalue|, solved by conjugate gradients; where
H_S + mu I is seen not to be positive definite, mu becomes ten times as large. The
difference of gradients is that of the forgotten cells' own losses; where the model propagates over the graph, it also
holds the spillover, what the lost edges change in the losses of cells that stay.

How much a row is concerned is a weight, spread from the forgotten cells hop by hop:

    w_0(v) = forgotten cells of v / (1 + degree of v),
    w_{k+1}(v) = w_k(v) + sum over v's neighbours n of w_k(n) / (1 + degree of v).

S has every row of positive weight.
"""

from dataclasses import dataclass
from typing import TYPE_CHECKING

from msgm.checks import at_least
from msgm.errors import UserError
from msgm.ranges import Range, ranges
from msgm.recommender.methods.base import METHODS, Card, Ledger
from msgm.recommender.methods.gradient_method import GRADIENT_MODELS, GradientMethod, Problem

if TYPE_CHECKING:
    from torch import Tensor

    from msgm.recommender.gradients.objectives import Tables


@METHODS.register("ifru")
@dataclass(frozen=True)
class IFRU(GradientMethod):
    """IFRU.

    Example:
        >>> model = msgm.recommender.ALS(factors=8).fit(matrix)
        >>> made = IFRU(hops=1).unlearn(model, deletion, seed=0)
        >>> made.answer.exactness, made.model.seen[[3]].nnz
        ('approximate', 0)

    Attributes:
        hops: k; 0 keeps to the users and items of the forgotten cells.
        damping: mu to begin with, as a share of the Hessian's largest |eigenvalue|.
        tolerance: of conjugate gradients, relative.
        max_steps: of conjugate gradients.
    """

    hops: int = 1
    damping: float = 0.01
    tolerance: float = 1e-4
    max_steps: int = 100

    search = ranges(damping=Range(1e-4, 1.0, log=True))
    card = Card(
        formula="theta_S + (H_S + mu I)^{-1} (sum over F of grad l(z) + spillover), S within k hops of F",
        source="Zhang et al., Recommendation Unlearning via Influence Function (arXiv 2307.02147)",
        exactness="approximate",
        models=GRADIENT_MODELS,
        needs=("forget", "retain"),
        deviations=(
            "Hessian of the retained cells' objective; damped conjugate gradients to a tolerance, where the released "
            "code takes steps of Adam until a validation AUC stops rising; the gradient goes through the propagation"
        ),
    )

    def __post_init__(self) -> None:
        at_least(0, self, "methods", "hops", "damping")
        at_least(1, self, "methods", "max_steps")
        if not 0 < self.tolerance < 1:
            raise UserError(f"methods.tolerance must lie in (0, 1), got {self.tolerance}.")

    def step(self, problem: Problem, ledger: Ledger) -> "Tables":
        from msgm.recommender.gradients.blocks import Block
        from msgm.recommender.gradients.importance import spread
        from msgm.recommender.gradients.solvers import gradient, hessian_product, solve_damped

        block = Block(problem.before, *self.chosen(*spread(problem.before, problem.forgotten, self.hops)))
        point, after = block.vector(problem.tables), block.loss(problem.after, problem.tables)
        lost = gradient(block.loss(problem.before, problem.tables), point) - gradient(after, point)
        product = hessian_product(after, point)
        found = solve_damped(product, lost, self.damping, self.tolerance, self.max_steps, problem.seed)
        ledger.facts |= found.facts() | {"rows": len(block.users) + len(block.items)}
        return block.put(point + found.x, problem.tables)

    def chosen(self, users: "Tensor", items: "Tensor") -> "tuple[Tensor, Tensor]":
        """Return the numbers of the users and of the items in S, by their (U,) and (I,) weights."""
        return users.nonzero().squeeze(1), items.nonzero().squeeze(1)
