"""Fine-tuning on the retain set: forgetting by neglect.

    theta <- theta - lr grad CE(D_r), from the original weights.

No term acts on forget items; they are lost only by catastrophic forgetting. Rates matter more than epochs.
"""

from dataclasses import dataclass

from torch import nn

from msgm.classifier.data import Split
from msgm.classifier.methods.base import METHODS, Card, Ledger, Settings
from msgm.classifier.methods.steps import AS_TRAINED, Descent, GradientMethod, cross_entropy, passes


@METHODS.register("finetune")
@dataclass(frozen=True)
class FineTune(GradientMethod):
    """Fine-tuning (FT).

    Example:
        >>> made = msgm.classifier.FineTune(epochs=2).forget(network, data, {"labels": [2]})

    Attributes:
        epochs: passes over the retain set.
        lr_share: learning rate over the original training's; ``lr`` itself wins.
    """

    epochs: int = 10
    lr_share: float = 1.0

    card = Card(
        formula="descend CE on the retain items, from the original weights",
        source="baseline of Golatkar et al., CVPR 2020; 10 epochs at lr 0.01 to 0.04 for ResNet18 on CIFAR-10",
        needs=("retain",),
        family="approximate update",
        deviations=AS_TRAINED,
    )

    def _forget(self, model: nn.Module, split: Split, settings: Settings, ledger: Ledger) -> nn.Module:
        descent = Descent(model, self.rate(settings), settings, ledger)
        return descent.run(passes(split.retain, self.epochs, settings, self.name), cross_entropy(model))
