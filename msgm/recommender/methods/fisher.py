"""One Fisher-weighted step that ranks forgotten cells down and spares what matters to the model.

With g the gradient of the sum over F of l, and F_jj the diagonal of the Fisher information, sum over the cells of
(grad_j l)^2, the step

    theta_j  <-  theta_j + eta g_j / (F_jj + mu),      mu = damping times the mean of F's positive entries,

is the maximiser of g . d - 1/2 sum of (F_jj + mu) d_j^2 for eta = 1: the loss of the forgotten cells up, every
parameter held by its importance. A row moves at most ``largest`` times its own length. F is taken of all cells that
the model has seen, before any request; the request itself reads the forgotten cells alone.
"""

from dataclasses import dataclass
from typing import TYPE_CHECKING

from msgm.checks import at_least, positive
from msgm.ranges import Range, ranges
from msgm.recommender.methods.base import METHODS, Card, Ledger
from msgm.recommender.methods.gradient_method import GRADIENT_MODELS, GradientMethod, Problem

if TYPE_CHECKING:
    from torch import Tensor

    from msgm.recommender.gradients.objectives import Tables


@METHODS.register("fisher")
@dataclass(frozen=True)
class Fisher(GradientMethod):
    """The one step.

    Example:
        >>> model = msgm.recommender.BPR(factors=8, epochs=2).fit(matrix)
        >>> made = Fisher(step_size=1.0).unlearn(model, deletion, seed=0)
        >>> made.answer.exactness, made.model.seen[[3]].nnz
        ('approximate', 0)

    Attributes:
        step_size: eta.
        damping: mu as a share of the mean importance.
        largest: a row's longest step relative to its length.
        probes: random signs that estimate F.
    """

    step_size: float = 1.0
    damping: float = 1.0
    largest: float = 0.1
    probes: int = 16

    search = ranges(step_size=Range(0.1, 10.0, log=True), damping=Range(0.01, 100.0, log=True))
    card = Card(
        formula="theta + eta (F + mu)^{-1} sum over F of grad l(z), clipped by row",
        source="recommendation unlearning by reverse ranking with a Fisher penalty (RRL)",
        exactness="approximate",
        models=GRADIENT_MODELS,
        needs=("forget", "importances of all cells, taken beforehand"),
        deviations="the penalised problem is solved in closed form, in one step; damping and clip are ours",
    )

    def __post_init__(self) -> None:
        positive(self, "methods", "step_size", "damping", "largest")
        at_least(1, self, "methods", "probes")

    def step(self, problem: Problem, ledger: Ledger) -> "Tables":
        import torch

        from msgm.recommender.gradients.importance import diagonal_fisher
        from msgm.seeding import generator

        before, draws = problem.before, generator(problem.seed, "fisher", "signs")
        with ledger.preparing():
            importances = diagonal_fisher(before, torch.arange(len(before.users)), self.probes, draws)
        ledger.storage_bytes = sum(table.nbytes for table in importances.values())
        tables = {name: table.clone().requires_grad_() for name, table in problem.tables.items()}
        loss = before.losses(tables, problem.places(True)).sum()
        slopes = torch.autograd.grad(loss, list(tables.values()))
        return {
            name: self._moved(table.detach(), slope, importances[name])
            for (name, table), slope in zip(tables.items(), slopes, strict=True)
        }

    def _moved(self, table: "Tensor", slope: "Tensor", importance: "Tensor") -> "Tensor":
        """Return the table after the step."""
        positive_entries = importance[importance > 0]
        mu = self.damping * float(positive_entries.mean()) if len(positive_entries) else 1.0
        step = (self.step_size * slope / (importance + mu)).reshape(len(table), -1)
        bound = self.largest * table.reshape(len(table), -1).norm(dim=1)
        step = step * (bound / step.norm(dim=1).clamp_min(1e-12)).clamp_max(1)[:, None]
        return table + step.reshape(table.shape)
