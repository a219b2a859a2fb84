"""NegGrad+: descent on retain items and ascent on forget items, in one step.

    minimise  alpha CE(B_r) - (1 - alpha) min(CE(B_f), c),   c = ceiling * log C per item,

for every batch B_r of the retain set beside the next batch B_f of the forget set, which starts anew when it ends.
"""

import math
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import count

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from msgm.checks import positive
from msgm.classifier.data import Split
from msgm.classifier.methods.base import METHODS, Card, Ledger, Settings
from msgm.classifier.methods.steps import AS_TRAINED, HELD, Batch, Descent, GradientMethod, passes, shuffled
from msgm.classifier.training import norms
from msgm.errors import UserError
from msgm.ranges import Range, ranges


@METHODS.register("neggrad-plus")
@dataclass(frozen=True)
class NegGradPlus(GradientMethod):
    """NegGrad+.

    Example:
        >>> made = msgm.classifier.NegGradPlus(epochs=2).forget(network, data, {"labels": [2]})

    Attributes:
        epochs: passes over the retain set.
        lr_share: learning rate over the original training's; ``lr`` itself wins.
        alpha: weight of the retain items, in (0, 1); the forget items have the rest.
        ceiling: the cross-entropy at which a forget item pulls no more, in units of log C.
    """

    epochs: int = 5
    lr_share: float = 0.5
    alpha: float = 0.9
    ceiling: float = 1.0

    search = ranges(alpha=Range(0.5, 0.99))
    card = Card(
        formula="descend alpha CE(retain) - (1 - alpha) min(CE(forget), ceiling log C)",
        source="Kurmanji et al., NeurIPS 2023, baseline: 10 epochs, lr 0.01, alpha 0.95 (0.9 at lr 5e-4 elsewhere)",
        needs=("retain", "forget"),
        family="approximate update",
        deviations=f"the ceiling, without which the loss is unbounded; {HELD}; {AS_TRAINED}",
    )

    def __post_init__(self) -> None:
        super().__post_init__()
        positive(self, "methods", "ceiling")
        if not 0 < self.alpha < 1:
            raise UserError(f"methods.alpha must lie between 0 and 1, got {self.alpha}.")

    def _forget(self, model: nn.Module, split: Split, settings: Settings, ledger: Ledger) -> nn.Module:
        ceiling = self.ceiling * math.log(len(split.classes))

        def loss(x: Tensor, y: Tensor, x_forget: Tensor, y_forget: Tensor) -> Tensor:
            retain, forget = model(torch.cat([x, x_forget])).split([len(x), len(x_forget)])
            each = F.cross_entropy(forget, y_forget, reduction="none")
            return self.alpha * F.cross_entropy(retain, y) - (1 - self.alpha) * each.clamp(max=ceiling).mean()

        descent = Descent(model, self.rate(settings), settings, ledger, still=norms(model))
        return descent.run(self._pairs(split, settings), loss)

    def _pairs(self, split: Split, settings: Settings) -> Iterator[Batch]:
        retain = passes(split.retain, self.epochs, settings, self.name, "retain")
        forget = (batch for round in count() for batch in shuffled(split.forget, settings, self.name, "forget", round))
        for (x, y), (x_forget, y_forget) in zip(retain, forget, strict=False):
            yield x, y, x_forget, y_forget
