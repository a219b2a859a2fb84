"""Rejection: samples that a classifier takes for something to forget are drawn anew."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from msgm.checks import at_least
from msgm.diffusion.conditions import Condition
from msgm.diffusion.guidance.base import GUIDANCE, Preparation
from msgm.diffusion.guidance.classifier import Classifying
from msgm.diffusion.guidance.posterior import LOWEST, Posterior, log_odds, trained_posterior
from msgm.diffusion.model import ScoreModel
from msgm.errors import UserError
from msgm.ranges import Range, ranges

HIGHEST = 0.1
"""Largest rho of the noise that the classifier is trained with: what samples are off by, and no more."""


@GUIDANCE.register("reject")
@dataclass
class Reject(Classifying):
    """Rejection sampling: the model's own samples, drawn anew until a classifier of its own lets them stand.

    It costs 1 / (1 - UR) times the sampling, and what remains to be seen of the forget set is what the classifier
    misses: the honest bar for whatever changes the weights. It is trained on both parts and is not the judge that
    measures, which would find nothing left by its own rule. A sample of which no draw is accepted stands after the
    last one.

    Example:
        >>> guidance = Reject()
        >>> guidance.judge = lambda items: items.flatten(1).mean(1) > 0  # which samples are to be forgotten
        >>> guidance.wrap(base).sample(2, steps=3).shape
        torch.Size([2, 1, 8, 8])

    Attributes:
        threshold: probability of showing forgotten content above which a sample is drawn anew.
        steps: of the classifier's training, at most; the weights that classify held-out items best are kept.
        width: its hidden units.
        items: of each part that it is trained on, at most.
    """

    threshold: float = 0.5
    steps: int = 1000
    width: int = 256
    items: int = 16384

    search: ClassVar[Mapping[str, Range]] = ranges(threshold=Range(0.05, 0.95))
    no_density = "samples are drawn anew until one stands, and the flow is that of the model itself"
    formula = "x ~ p_b given that P(forget | x) <= threshold, by a classifier of its own"
    source = "rejection sampling"
    deviations = (
        "the classifier is an MLP trained on both parts, and not the judge that measures; its mistakes pass; nothing "
        "guides a walk of given items, such as inpainting"
    )

    def __post_init__(self) -> None:
        at_least(1, self, "guidance", "steps", "width", "items")
        if not 0 < self.threshold < 1:
            raise UserError(f"guidance.threshold must lie strictly between 0 and 1, got {self.threshold}.")
        self.judge: Callable[[Tensor], Tensor] | None = None
        self.posterior: Posterior | None = None

    def prepare(self, setup: Preparation) -> None:
        """Train the classifier."""
        forget, retain = setup.forget(self.items).items, setup.retain(self.items)
        share = setup.forget_share or 0.5
        self.posterior = trained_posterior(forget, retain, share, self.steps, self.width, HIGHEST)
        self.judge = self.probably_forgotten

    def recall(self, state: Mapping[str, Tensor], model: ScoreModel) -> None:
        super().recall(state, model)
        self.judge = self.probably_forgotten

    def probably_forgotten(self, items: Tensor) -> Tensor:
        """Return which samples (B, *shape) the classifier takes for something to forget, (B,) bool on their device."""
        assert self.posterior is not None
        seen = items.to(self.posterior.device, torch.float32)
        level = torch.full((len(seen),), LOWEST, device=seen.device)
        return (self.posterior.logit(seen, level) > log_odds(self.threshold)).to(items.device)

    def accepts(self, items: Tensor) -> Tensor:
        if self.judge is None:
            raise RuntimeError(
                "reject: call prepare first, or set judge, which maps samples (B, *shape) to (B,) bool: to be forgotten"
            )
        return ~self.judge(items)

    def eps(self, model: ScoreModel, x: Tensor, t: Tensor, condition: Condition | None) -> Tensor:
        return model.eps(x, t, condition)
