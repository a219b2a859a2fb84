"""L1-sparse: fine-tuning on the retain set with a penalty that drives weights to zero.

    minimise  CE(D_r) + alpha_t ||theta||_1,   alpha_t = alpha max(0, 1 - t / (T - T_free))  in epoch t = 0 .. T - 1.

A sparse model has less room to remember single items. The norm is over all parameters, batch normalisation's too.
"""

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from msgm.checks import at_least
from msgm.classifier.data import Split
from msgm.classifier.methods.base import METHODS, Card, Ledger, Settings
from msgm.classifier.methods.steps import AS_TRAINED, Descent, GradientMethod, Loss, cross_entropy, shuffled
from msgm.errors import UserError
from msgm.ranges import Range, ranges


@METHODS.register("l1-sparse")
@dataclass(frozen=True)
class L1Sparse(GradientMethod):
    """L1-sparse fine-tuning.

    Example:
        >>> made = msgm.classifier.L1Sparse(epochs=2).forget(network, data, {"labels": [2]})

    Attributes:
        epochs: passes over the retain set, T.
        lr_share: learning rate over the original training's; ``lr`` itself wins.
        alpha: weight of the penalty in the first epoch.
        free_epochs: last epochs without penalty, T_free, below ``epochs``.
    """

    epochs: int = 10
    lr_share: float = 1.0
    alpha: float = 1e-3
    free_epochs: int = 0

    search = ranges(alpha=Range(1e-6, 1e-2, log=True))
    card = Card(
        formula="descend CE(retain) + alpha_t ||theta||_1, alpha_t falling to 0 over the epochs",
        source=(
            "Jia et al., NeurIPS 2023, section 4; 10 epochs, lr 0.01, alpha 1e-4 to 1e-3 (the authors' command line "
            "has 0.2 as its default, which is another method's noise)"
        ),
        needs=("retain",),
        family="approximate update",
        deviations=AS_TRAINED,
    )

    def __post_init__(self) -> None:
        super().__post_init__()
        at_least(0, self, "methods", "alpha", "free_epochs")
        if self.free_epochs >= self.epochs:
            raise UserError(f"methods.free_epochs must be below epochs {self.epochs}, got {self.free_epochs}.")

    def _forget(self, model: nn.Module, split: Split, settings: Settings, ledger: Ledger) -> nn.Module:
        before = float(l1_norm(model).detach())
        descent = Descent(model, self.rate(settings), settings, ledger)
        for epoch in range(self.epochs):
            loss = _penalised(model, self.penalty_at(epoch))
            descent.run(shuffled(split.retain, settings, self.name, epoch), loss)
        ledger.artefacts["l1_norm_ratio"] = float(l1_norm(model).detach()) / before
        return model

    def penalty_at(self, epoch: int) -> float:
        """Return alpha_t."""
        return self.alpha * max(0.0, 1 - epoch / (self.epochs - self.free_epochs))


def _penalised(model: nn.Module, weight: float) -> Loss:
    plain = cross_entropy(model)

    def loss(x: Tensor, y: Tensor) -> Tensor:
        fit = plain(x, y)
        assert fit is not None
        return fit + weight * l1_norm(model)

    return loss


def l1_norm(model: nn.Module) -> Tensor:
    """Return the sum of the absolute values of all parameters."""
    return torch.stack([p.abs().sum() for p in model.parameters()]).sum()
