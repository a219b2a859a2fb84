"""NegGrad: gradient ascent on the forget items, with a ceiling.

    minimise  -1/|B| sum_{i in B} min(CE_i, c),   c = ceiling * log C,  B from D_f.

Plain ascent is unbounded: it drives the loss, and with it the weights, to infinity. Here an item whose cross-entropy
has reached c (log C is that of a guess) pulls no more, and a batch whose mean has reached c takes no step, so that
momentum does not carry the weights on: the last step taken starts below c.
"""

import math
from dataclasses import dataclass

import torch.nn.functional as F
from torch import Tensor, nn

from msgm.checks import positive
from msgm.classifier.data import Split
from msgm.classifier.methods.base import METHODS, Card, Ledger, Settings
from msgm.classifier.methods.steps import AS_TRAINED, HELD, Descent, GradientMethod, passes
from msgm.classifier.training import norms


@METHODS.register("neggrad")
@dataclass(frozen=True)
class NegGrad(GradientMethod):
    """NegGrad, or gradient ascent (GA).

    Example:
        >>> made = msgm.classifier.NegGrad(epochs=2).forget(network, data, {"labels": [2]})

    Attributes:
        epochs: passes over the forget set, at most.
        lr_share: learning rate over the original training's; ``lr`` itself wins.
        ceiling: the cross-entropy at which an item pulls no more and a batch takes no step, in units of log C, the loss
            of a guess.
    """

    epochs: int = 5
    lr_share: float = 0.2
    ceiling: float = 1.0

    card = Card(
        formula="ascend min(CE, ceiling log C) on the forget items",
        source=(
            "baseline of Golatkar et al., CVPR 2020, and Thudi et al., EuroS&P 2022; 5 epochs, lr 1e-4 for a class "
            "and searched over [1e-5, 0.1] for random items of CIFAR-10"
        ),
        needs=("forget",),
        family="approximate update",
        deviations=f"the ceiling, without which the loss is unbounded; {HELD}; {AS_TRAINED}",
    )

    def __post_init__(self) -> None:
        super().__post_init__()
        positive(self, "methods", "ceiling")

    def _forget(self, model: nn.Module, split: Split, settings: Settings, ledger: Ledger) -> nn.Module:
        ceiling = self.ceiling * math.log(len(split.classes))

        def loss(x: Tensor, y: Tensor) -> Tensor | None:
            each = F.cross_entropy(model(x), y, reduction="none")
            return -each.clamp(max=ceiling).mean() if float(each.detach().mean()) < ceiling else None

        descent = Descent(model, self.rate(settings), settings, ledger, still=norms(model))
        return descent.run(passes(split.forget, self.epochs, settings, self.name), loss)
