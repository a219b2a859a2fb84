"""Base of the methods that change a model's tables along gradients of its objective.

L is the objective of the model as a function of its tables, L_F the same without the cells to forget; see
``msgm.recommender.gradients``. A method maps the tables to others; the rest (copying, dropping cells, writing tables
back, counting rows) is done here. The rows of forgotten users and items become zeros: they are not served, and their
former values cannot be attacked.
"""

from abc import abstractmethod
from dataclasses import dataclass
from typing import TYPE_CHECKING

from msgm.recommender.methods.base import Ledger, Method
from msgm.recommender.models.base import Recommender
from msgm.recommender.requests import Deletion

if TYPE_CHECKING:
    from torch import Tensor

    from msgm.recommender.gradients.objectives import Objective, Tables

FACTOR_MODELS = ("als", "mf", "bpr")
GRADIENT_MODELS = (*FACTOR_MODELS, "lightgcn")
PAIRWISE_MODELS = ("bpr", "lightgcn")


@dataclass(frozen=True, eq=False)
class Problem:
    """One request to one model.

    Attributes:
        before: L.
        after: L_F.
        forgotten: (n,) mask of the cells to forget.
        seed: of the request.
    """

    before: "Objective"
    after: "Objective"
    forgotten: "Tensor"
    seed: int

    @property
    def tables(self) -> "Tables":
        """The tables before the request."""
        return self.before.tables

    def places(self, forgotten: bool) -> "Tensor":
        """Return the places of the cells that are to be forgotten, or kept."""
        return (self.forgotten == forgotten).nonzero().squeeze(1)


class GradientMethod(Method):
    """A method that maps tables to tables. Subclasses are frozen dataclasses whose fields are their settings."""

    def forget(self, model: Recommender, deletion: Deletion, seed: int, ledger: Ledger) -> tuple[Recommender, int, str]:
        import torch

        from msgm.recommender.gradients.kinds import objective_of

        before = objective_of(model, seed)
        forgotten = torch.from_numpy(deletion.mask(model.seen))
        problem = Problem(before, before.without(forgotten), forgotten, seed)
        tables = self.step(problem, ledger)
        found = problem.after.cleared(tables, deletion)
        model.mark(deletion)
        problem.after.store(model, found)
        return model, before.rows_changed(problem.after.read(model)), "approximate"

    @abstractmethod
    def step(self, problem: Problem, ledger: Ledger) -> "Tables":
        """Return the tables after the request; those of ``problem`` are left as they are."""
