"""SalUn: forget items are taught a wrong noise, by the weights alone that matter most for them."""

from dataclasses import dataclass, field, replace

import torch
from torch import Tensor

from msgm.objectives.base import OBJECTIVES, Card, Mixed, Noised, Predict, Setup, Term, mean_square
from msgm.objectives.masks import Mask
from msgm.objectives.relabelled import retained_labels, told_labels, under


@OBJECTIVES.register("salun")
@dataclass
class SalUn(Mixed):
    """SalUn.

    Example:
        >>> objective = msgm.objectives.SalUn(mask=msgm.objectives.Mask(keep=0.5, items=8))
        >>> request = msgm.ForgetRequest(labels=[3, 7])
        >>> made = msgm.fit(base, "digits", objective, request, steps=2, batch_size=8)
        fit: salun, 2 steps on ...
    """

    alpha: float = 0.75
    every: int = 1
    mask: Mask | None = field(default_factory=Mask, kw_only=True)

    card = Card(
        formula=(
            "alpha L_r + (1 - alpha) mean (eps_theta(x_t, c) - target)^2, of the weights with the largest |mean "
            "gradient of the forget loss| alone; target: with labels the model's own prediction under another label, "
            "without its gradient; without labels u ~ U(0, 1)"
        ),
        source="Fan et al., arXiv 2310.12508; code of its DDPM (random label)",
        deviations=(
            "without labels its own target does not exist, and EraseDiff's is taken; the other label is the next one "
            "that is retained, where the code takes the next one; alpha .75 is its weights 1 and 1e-3 in means "
            "over 32x32x3; the mask is of gradients without guidance, holds for the update, and comes before clipping"
        ),
    )

    def prepare(self, setup: Setup) -> None:
        """Find out which label each forgotten one is replaced by."""
        classes = setup.base().classes
        self.others = _others(setup, classes) if classes else None

    def terms(self, predict: Predict, retain: Noised, forget: Noised | None) -> dict[str, Term]:
        if forget is None:
            return super().terms(predict, retain, forget)
        target, labels = forget.uniform(), told_labels(forget)
        if self.others is not None and labels is not None:
            target = under(predict, forget, labels, self.others.to(labels)[labels.clamp_min(0)], target)
        return super().terms(predict, retain, replace(forget, eps=target))

    def forget_loss(self, predicted: Tensor, forget: Noised) -> Tensor:
        return mean_square(predicted - forget.eps)


def _others(setup: Setup, classes: int) -> Tensor:
    """Return, for every label, the next one that retain items have and no forget item has."""
    free = retained_labels(setup, classes)
    return torch.tensor([min(free, key=lambda other: (other - label - 1) % classes) for label in range(classes)])
