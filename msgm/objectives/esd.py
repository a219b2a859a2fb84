r"""ESD: at forget points, regress onto the base model's prediction moved away from that of the forget set.

    eps* = eps_b - eta (eps_f - eps_b),  L_f = mean (eps_theta - eps*)^2.

For a class-conditional model eps_f is the base model's own prediction under the item's label and eps_b the one without
a label; for an unconditional model, and for items whose label is left out, eps_f is that of a copy tuned on the forget
set. What is taught is the score of p_b^(1 + eta) / p_f^eta, and not that of the data without the forget set: for eta of
1 and more it runs away to where neither has mass.
"""

from dataclasses import dataclass

import torch
from torch import Tensor

from msgm.checks import at_least
from msgm.diffusion.model import ScoreModel, per_item
from msgm.objectives.base import OBJECTIVES, Card, Mixed, Noised, Setup, mean_square
from msgm.ranges import Range, ranges

SAFE = 0.5
"""Largest eta without a warning."""


@OBJECTIVES.register("esd")
@dataclass
class ESD(Mixed):
    """ESD: negative guidance away from the forget set, taught to the weights.

    Example:
        >>> objective = msgm.objectives.ESD(eta=0.5, teacher_steps=2)
        >>> request = msgm.ForgetRequest(labels=[3, 7])
        >>> made = msgm.fit(base, "digits", objective, request, steps=2, batch_size=8)
        fit: esd, 2 steps on ...

    Attributes:
        eta: how far the target is moved away; 0 teaches the base model's unconditional score.
        teacher_steps: steps that tune a copy of the base model on the forget set alone, where no label stands for it.
    """

    alpha: float = 0.5
    every: int = 1
    eta: float = SAFE
    teacher_steps: int = 200

    search = ranges(eta=Range(0.05, 1.0))
    card = Card(
        formula=(
            "alpha L_r + (1 - alpha) L_f; L_f = mean (eps_theta - eps*)^2, eps* = eps_b - eta (eps_f - eps_b); with "
            "labels eps_f = eps_b(x_t, c) and eps_b without a label, else eps_f of a copy tuned on the forget set"
        ),
        source="ESD, Gandikota et al., arXiv 2303.07345, eq. 6, and its code",
        deviations=(
            "x_t are noised forget items, where the code samples them by the model; the retain term is added; the "
            "tuned copy stands in for a label where there is none; its eta of 1 and 2 is .5 here, as more runs away "
            "to where no data are; all weights are trained, unless training.trainable names some"
        ),
    )

    def __post_init__(self) -> None:
        super().__post_init__()
        at_least(0, self, "objective", "eta")
        at_least(1, self, "objective", "teacher_steps")
        self.teacher: ScoreModel | None = None

    def prepare(self, setup: Setup) -> None:
        """Freeze the base model, and tune the copy unless every item comes with its label."""
        if self.eta > SAFE:
            print(
                f"esd: objective.eta {self.eta:g} is above {SAFE:g}; the target is the score of p_b^(1 + eta) / "
                "p_f^eta, which runs away from all data as eta comes to 1",
                flush=True,
            )
        self.base = setup.base()
        if not self.base.classes or setup.labels_dropped:
            self.teacher = setup.tune_on_forget(self.teacher_steps)

    @torch.no_grad()
    def target(self, forget: Noised) -> Tensor:
        """Return eps* (B, *shape) at the points of ``forget``."""
        found = self.base.eps(forget.x, forget.t)
        labelled = forget.condition is not None and self.base.classes > 0
        away = self.base.eps(forget.x, forget.t, forget.condition) if labelled else found
        if self.teacher is not None:
            tuned = self.teacher.eps(forget.x, forget.t)
            null = forget.condition.null if labelled and forget.condition is not None else None
            away = tuned if null is None else torch.where(per_item(null, tuned), tuned, away)
        return found - self.eta * (away - found)

    def forget_loss(self, predicted: Tensor, forget: Noised) -> Tensor:
        return mean_square(predicted - self.target(forget))
