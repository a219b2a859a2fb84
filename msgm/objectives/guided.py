r"""Guided: at points near forget items, regress onto the base model's score guided towards the retain set.

With w = P(forget | x_t) and l its logit, the score of the retain set is that of all data minus w grad l, an identity:

    eps* = eps_b + s w sigma grad l,  L_f = mean (eps_theta - eps*)^2 / (1 + mean eps*^2),

at s = 1. The base model's eps_b is frozen, and l is a small classifier of noised items (``diffusion.guidance``), which
is trained on forget and retain items before the first step: afterwards the forget term needs no retain items. The error
of this target is w times that of grad l. The form with the score of the forget set in place of grad l,
eps_b - w / (1 - w) (eps_f - eps_b), multiplies errors by 1 / (1 - w), which is without bound where forget items lie.
"""

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from msgm.checks import at_least
from msgm.diffusion.guidance.posterior import Posterior, trained_posterior
from msgm.diffusion.model import per_item
from msgm.errors import UserError
from msgm.objectives.base import OBJECTIVES, Card, Mixed, Noised, Setup, mean_square
from msgm.ranges import Range, ranges


@OBJECTIVES.register("guided")
@dataclass
class GuidedTarget(Mixed):
    """Guided: classifier guidance towards the retain set, taught to the weights.

    Example:
        >>> objective = msgm.objectives.GuidedTarget(classifier_steps=20, width=16)
        >>> request = msgm.ForgetRequest(labels=[3, 7])
        >>> made = msgm.fit(base, "digits", objective, request, steps=2, batch_size=8)
        fit: guided, 2 steps on ...

    Attributes:
        scale: s, the weight of the guidance; 1 is exact for an exact classifier, 0 teaches the base model's own score.
        classifier_steps: of the classifier's training, at most; the weights that classify held-out items best are kept.
        width: its hidden units.
        items: of each part that it is trained on, at most.
    """

    alpha: float = 0.5
    every: int = 1
    scale: float = 1.0
    classifier_steps: int = 1000
    width: int = 256
    items: int = 16384

    search = ranges(scale=Range(0.25, 8.0, log=True))
    card = Card(
        formula=(
            "alpha L_r + (1 - alpha) L_f; L_f = mean (eps_theta - eps*)^2 / (1 + mean eps*^2), eps* = eps_b + s w "
            "sigma grad l, l the logit of P(forget | x_t) and w = sigmoid(l)"
        ),
        source=(
            "this package: classifier guidance (Dhariwal and Nichol, arXiv 2105.05233, eq. 14) for P(retain | x_t), "
            "distilled"
        ),
        deviations=(
            "the classifier is an MLP trained on noised items of both parts, its logit shifted to the data's share of "
            "forget items and sigma |grad l| held to R / rho, R the longest distance from a forget to a retain item; "
            "under every condition the target is the unconditional one"
        ),
    )

    def __post_init__(self) -> None:
        super().__post_init__()
        at_least(0, self, "objective", "scale")
        at_least(1, self, "objective", "classifier_steps", "width", "items")
        if self.replay:
            raise UserError(
                "objective.replay: guided tells retain items from forget items by a classifier, and samples of the "
                "base model are of both; leave replay out."
            )
        self.posterior: Posterior | None = None

    def prepare(self, setup: Setup) -> None:
        """Freeze the base model and train the classifier."""
        self.base, share = setup.base(), setup.forget_share or 0.5
        forget, retain = setup.forget(self.items).items, setup.retain(self.items)
        self.posterior = trained_posterior(forget, retain, share, self.classifier_steps, self.width)

    def found(self) -> dict[str, float]:
        loss = math.nan if self.posterior is None else self.posterior.loss
        return {} if math.isnan(loss) else {"classifier_loss": loss}

    @torch.no_grad()
    def target(self, forget: Noised) -> Tensor:
        """Return eps* (B, *shape) at the points of ``forget``."""
        if self.posterior is None:
            raise RuntimeError("guided: call prepare first")
        found = self.base.eps(forget.x, forget.t)
        logit, pull = self.posterior.pull(self.base.process, forget.x, forget.t)
        return found + self.scale * per_item(logit.sigmoid(), pull) * pull

    def forget_loss(self, predicted: Tensor, forget: Noised) -> Tensor:
        target = self.target(forget)
        return mean_square(predicted - target) / (1 + mean_square(target))
