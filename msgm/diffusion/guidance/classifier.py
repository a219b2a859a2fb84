r"""Guidance by a classifier of noised items: towards what is to be retained.

The score of what is to remain is s_b + grad log P(retain | x_t), an identity. With the classifier's logit
l = log P(f) - log P(r) the gradient is -w grad l, w = sigmoid(l): where the classifier is sure that nothing is to be
forgotten, the model stays as it is.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from msgm.checks import at_least
from msgm.diffusion.conditions import Condition
from msgm.diffusion.guidance.base import GUIDANCE, Guidance, Preparation
from msgm.diffusion.guidance.posterior import Posterior, trained_posterior
from msgm.diffusion.model import ScoreModel, per_item
from msgm.ranges import Range, ranges


class Classifying(Guidance):
    """Guidance that has a classifier of its own, trained on both parts.

    Attributes:
        posterior: what the classifier says; None before it is trained.
    """

    posterior: Posterior | None

    def state(self) -> dict[str, Tensor]:
        assert self.posterior is not None
        return self.posterior.state()

    def recall(self, state: Mapping[str, Tensor], model: ScoreModel) -> None:
        self.posterior = Posterior.of(state)

    def to(self, device: torch.device | str) -> None:
        if self.posterior is not None:
            self.posterior.to(device)


@GUIDANCE.register("classifier")
@dataclass
class Classifier(Classifying):
    """Classifier guidance towards the retain set, by a small classifier trained on noised forget and retain items.

    Example:
        >>> guidance = Classifier(scale=1.0)
        >>> guidance.fit(torch.rand(8, 1, 8, 8) - 1, torch.rand(8, 1, 8, 8), share=0.5)
        >>> guidance.wrap(base).sample(2, steps=3).shape
        torch.Size([2, 1, 8, 8])

    Attributes:
        scale: gamma; 1 is exact for an exact classifier, more sharpens, 0 changes nothing, to the bit.
        steps: of the classifier's training, at most; the weights that classify held-out items best are kept.
        width: its hidden units.
        items: of each part that it is trained on, at most.
    """

    scale: float = 1.0
    steps: int = 1000
    width: int = 256
    items: int = 16384

    formula = "eps_b - gamma sigma grad log P(retain | x_t) = eps_b + gamma sigma w grad l, w = sigmoid(l)"
    source = "Dhariwal and Nichol, arXiv 2105.05233, eq. 14, for P(retain | x_t)"
    search: ClassVar[Mapping[str, Range]] = ranges(scale=Range(0.25, 8.0, log=True))
    deviations = (
        "the classifier is an MLP of its own, trained on both parts in equal shares; its logit is shifted to the "
        "data's share of forget items; deep inside one part its gradient is extrapolated, and sigma |grad l| is held "
        "to R / rho, R the longest distance from a forget to a retain item, which no true gradient exceeds"
    )

    def __post_init__(self) -> None:
        at_least(0, self, "guidance", "scale")
        at_least(1, self, "guidance", "steps", "width", "items")
        self.posterior: Posterior | None = None

    def prepare(self, setup: Preparation) -> None:
        """Train the classifier."""
        self.fit(setup.forget(self.items).items, setup.retain(self.items), setup.forget_share or 0.5)

    def fit(self, forget: Tensor, retain: Tensor, share: float, seed: int = 0) -> None:
        """Train the classifier on clean items of both parts.

        Args:
            forget: (N, *shape) items to forget.
            retain: (M, *shape) items to retain.
            share: of forget items in the data.
            seed: of its weights and draws.
        """
        self.posterior = trained_posterior(forget, retain, share, self.steps, self.width, seed=seed)

    def eps(self, model: ScoreModel, x: Tensor, t: Tensor, condition: Condition | None) -> Tensor:
        found = model.eps(x, t, condition)
        if self.scale == 0:
            return found
        if self.posterior is None:
            raise RuntimeError("classifier: call prepare or fit first")
        logit, pull = self.posterior.pull(model.process, x, t)
        return found + self.scale * per_item(logit.sigmoid(), x) * pull
