"""Task-vector negation: learn the forget set still better, and go the opposite way.

    tau = theta_f - theta_0,   theta_f from fine-tuning a copy on D_f,   theta_u = theta_0 - scale * tau.

Only weights are negated; batch normalisation's statistics, which have no meaning beyond their sign, stay.
"""

import copy
from dataclasses import dataclass

import torch
from torch import nn

from msgm.checks import at_least
from msgm.classifier.data import Split
from msgm.classifier.methods.base import METHODS, Card, Ledger, Settings
from msgm.classifier.methods.steps import AS_TRAINED, HELD, Descent, GradientMethod, cross_entropy, passes
from msgm.classifier.training import norms
from msgm.ranges import Range, ranges


@METHODS.register("task-vector")
@dataclass(frozen=True)
class TaskVector(GradientMethod):
    """Task-vector negation.

    Example:
        >>> made = msgm.classifier.TaskVector(epochs=2).forget(network, data, {"labels": [2]})

    Attributes:
        epochs: passes of the copy over the forget set.
        lr_share: learning rate of the copy over the original training's; ``lr`` itself wins.
        scale: how far to go the opposite way, in lengths of the vector; 0 leaves the model as it is.
    """

    epochs: int = 10
    lr_share: float = 0.5
    scale: float = 2.0

    search = ranges(scale=Range(0.1, 5.0))
    card = Card(
        formula="theta_0 - scale * (theta fine-tuned on the forget items - theta_0)",
        source="Ilharco et al., ICLR 2023, section 3: scale in [0, 1], chosen on held-out items",
        needs=("forget",),
        family="edit",
        deviations=f"scale is 2 by default, chosen on digits' tuning items; {HELD}; {AS_TRAINED}",
    )

    def __post_init__(self) -> None:
        super().__post_init__()
        at_least(0, self, "methods", "scale")

    @torch.no_grad()
    def negate(self, model: nn.Module, tuned: nn.Module) -> nn.Module:
        """Move ``model`` away from ``tuned`` in place, and return it."""
        for p, better in zip(model.parameters(), tuned.parameters(), strict=True):
            p.sub_(self.scale * (better - p))
        return model

    def _forget(self, model: nn.Module, split: Split, settings: Settings, ledger: Ledger) -> nn.Module:
        tuned = copy.deepcopy(model)
        descent = Descent(tuned, self.rate(settings), settings, ledger, still=norms(tuned))
        descent.run(passes(split.forget, self.epochs, settings, self.name), cross_entropy(tuned))
        return self.negate(model, tuned)
