r"""Task vectors: learn the forget set still better, and go the opposite way.

    tau = theta_f - theta_0,   theta_f from fine-tuning a copy on the forget set,   theta = theta_0 - coefficient * tau

In a network that is linear in its weights tau is, to first order in the rate, minus the sum of the forget loss's
gradients, and the edit is gradient ascent in one stride.
"""

from dataclasses import dataclass

import torch
from torch import Tensor

from msgm.checks import at_least
from msgm.curvature import add_to, flatten, weights_of
from msgm.diffusion.model import ScoreModel
from msgm.errors import UserError
from msgm.objectives.base import Card
from msgm.objectives.edits.base import EDITS, Edit, EditSetup
from msgm.ranges import Range, ranges


@EDITS.register("task-vector")
@dataclass
class TaskVector(Edit):
    """Task-vector negation, with TIES' trimming.

    Example:
        >>> edit = msgm.objectives.edits.TaskVector(coefficient=0.5, steps=2)
        >>> made = msgm.edit(base, "digits", edit, msgm.ForgetRequest(labels=[3, 7]), batch_size=8)
        edit: task-vector on ...

    Attributes:
        coefficient: how far to go the opposite way, in lengths of the vector; 0 leaves the model as it is.
        steps: steps that tune the copy on the forget set alone; they count in the row's seconds.
        keep: share of the vector's entries that are kept, those of greatest magnitude over all weights; the others are
            set to 0. TIES keeps 0.2.
    """

    coefficient: float = 1.0
    steps: int = 100
    keep: float = 1.0

    data = "forget"
    tunes = True
    search = ranges(coefficient=Range(0.05, 5.0, log=True))
    card = Card(
        formula="theta_0 - coefficient * trim(theta_f - theta_0), theta_f fine-tuned on the forget set",
        source=(
            "Ilharco et al., ICLR 2023, section 3; trimming: TIES, arXiv 2306.01708, section 4; for diffusion models: "
            "arXiv 2404.03631"
        ),
        deviations=(
            "of TIES the trimming alone: the other two steps elect a sign for each entry among several vectors and "
            "average those that have it, and a single vector, of the one forget set, elects its own signs and is its "
            "own average; theta_f has averaged weights where training.weights is ema, as the base model has; the "
            "coefficient has no validated default, so tune it"
        ),
    )

    def __post_init__(self) -> None:
        at_least(0, self, "edit", "coefficient")
        at_least(1, self, "edit", "steps")
        if not 0 < self.keep <= 1:
            raise UserError(f"edit.keep must lie in (0, 1], got {self.keep}.")

    def change(self, model: ScoreModel, setup: EditSetup) -> None:
        tuned = setup.tune_on_forget(self.steps)
        start = flatten(weights_of(model.network))
        vector = flatten(weights_of(tuned.network)).to(start) - start
        self.facts["vector_norm"] = vector.norm().item()
        add_to(weights_of(model.network), -self.coefficient * trimmed(vector, self.keep))


def trimmed(vector: Tensor, keep: float) -> Tensor:
    """Return ``vector`` (d,) with all but the share ``keep`` of greatest magnitude set to 0."""
    kept = vector.abs().topk(max(1, round(keep * len(vector)))).indices
    return torch.zeros_like(vector).index_copy(0, kept, vector[kept])
