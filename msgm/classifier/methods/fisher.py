r"""Fisher forgetting: noise on every weight, the more the less the retain set depends on it.

F = E_{x in retain} sum_y p(y | x) (d log p(y | x) / d theta)^2 is the exact diagonal of the Fisher information: its
expectation over classes is a sum, not a draw and not the true label alone. Then
theta <- theta + sqrt(alpha min(1 / (F + 1e-8), cap)) n with n ~ N(0, I). The forget set is not read: nothing aims the
noise at it, and on 8x8 digits retained accuracy falls as early as accuracy on the forget set.
"""

from dataclasses import dataclass

import torch
from torch import nn

from msgm.checks import positive
from msgm.classifier.data import Examples, Split
from msgm.classifier.methods.base import METHODS, Card, Ledger, Method, Settings
from msgm.classifier.methods.curvature import squared_gradients
from msgm.curvature import Weights, items_at_once, weights_of
from msgm.ranges import Range, ranges
from msgm.seeding import generator

SMALL = 1e-8


@METHODS.register("fisher")
@dataclass(frozen=True)
class Fisher(Method):
    """Fisher forgetting.

    Example:
        >>> made = msgm.classifier.Fisher().forget(network, data, {"labels": [2]})

    Attributes:
        alpha: scale of the noise' variance.
        cap: largest 1 / F that counts.
    """

    alpha: float = 1e-6
    cap: float = 1e3

    search = ranges(alpha=Range(1e-9, 1e-4, log=True))
    card = Card(
        formula="theta + sqrt(alpha min(1 / (F + 1e-8), cap)) n; F = E_retain sum_y p(y|x) (d log p(y|x))^2",
        source="Golatkar et al., CVPR 2020; alpha 1e-9 to 1e-6 in the literature",
        needs=("retain",),
        family="approximate update",
        deviations=(
            "the variance goes by 1 / F, as in published code, where the paper derives another power of F; no extra "
            "factor for the last layer or batch normalisation, no mean over a unit's inputs, and no row of the head "
            "is set to zero"
        ),
    )

    def __post_init__(self) -> None:
        positive(self, "methods", "alpha", "cap")

    def _forget(self, model: nn.Module, split: Split, settings: Settings, ledger: Ledger) -> nn.Module:
        diagonal = fisher_diagonal(model.eval(), split.retain, settings.device)
        ledger.saw(len(split.retain) * len(split.classes))
        noise = generator(settings.seed, self.name)
        with torch.no_grad():
            for name, value in model.named_parameters():
                spread = (self.alpha * (1 / (diagonal[name] + SMALL)).clamp_max(self.cap)).sqrt()
                value.add_(spread * torch.randn(value.shape, generator=noise).to(value))
        ledger.artefacts["capped_share"] = _share(diagonal, self.cap)
        return model


def fisher_diagonal(model: nn.Module, examples: Examples, device: torch.device) -> Weights:
    """Return the diagonal of the Fisher information, mean over items, in the shapes of the weights."""
    total = {name: torch.zeros_like(value) for name, value in weights_of(model).items()}
    for x, _ in examples.batches(items_at_once(model), device=device):
        with torch.no_grad():
            p = model(x).softmax(1)
        for label, probability in enumerate(p.unbind(1)):
            y = torch.full((len(x),), label, device=device)
            for name, value in squared_gradients(model, x, y, probability / len(examples)).items():
                total[name] += value
    return total


def _share(diagonal: Weights, cap: float) -> float:
    """Return the share of the weights whose noise the cap bounds."""
    capped = sum(int((1 / (value + SMALL) > cap).sum()) for value in diagonal.values())
    return capped / sum(value.numel() for value in diagonal.values())
