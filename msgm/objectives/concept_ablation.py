r"""Concept ablation: the forgotten label is taught what other labels give.

At x_t of a retained item with label c', and for a forgotten label c,

    L_f = mean (eps_theta(x_t, c) - sg eps(x_t, c'))^2,

where sg eps is the model's own prediction without its gradient, or the frozen base model's. No forget item is noised.
"""

from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

from msgm.checks import at_most_one
from msgm.diffusion.conditions import Condition
from msgm.errors import UserError
from msgm.objectives.base import OBJECTIVES, Card, Matched, Noised, Predict, Setup, Term, mean_square
from msgm.ranges import Range, ranges


@OBJECTIVES.register("concept-ablation")
@dataclass
class ConceptAblation(Matched):
    """Concept ablation: the prediction under a retained label, taught under the forgotten one.

    Example:
        >>> model = msgm.ScoreModel.new("unet", "vp", shape=(1, 8, 8), channels=[8], classes=10)
        >>> objective = msgm.objectives.ConceptAblation(teacher="base")
        >>> request = msgm.ForgetRequest(labels=[3, 7], means="condition")
        >>> base = msgm.fit(model, "digits", steps=2, batch_size=8)
        fit: standard, 2 steps on ...
        >>> made = msgm.fit(base, "digits", objective, request, steps=2, batch_size=8)
        fit: concept-ablation, 2 steps on ...

    Attributes:
        alpha: weight of the retain term; 1 - alpha that of the ablation.
        anchor_class: the retained class that a forgotten label is to give; None: all of them, as each item has its own.
        teacher: whose prediction is taught: that of the ``student`` itself, as in the source, which drifts with it, or
            that of the ``base`` model, which stays.
    """

    alpha: float = 0.5
    anchor_class: int | None = None
    teacher: Literal["student", "base"] = "student"

    data = "retain"
    conditional = True
    search = ranges(alpha=Range(0.1, 0.99))
    card = Card(
        formula=(
            "alpha L_r + (1 - alpha) mean (eps_theta(x_t, c) - sg eps(x_t, c'))^2 at x_t of retained items with their "
            "label c', c a forgotten label"
        ),
        source="Kumari et al., arXiv 2303.13516, eq. 5, and its code: the model-based loss",
        deviations=(
            "classes in place of prompts; without an anchor every retained class is one, so that the forgotten label "
            "comes to give what retained items are; items of an anchor class count as often as there are retained "
            "classes; all weights are trained; what shows without a label is left as it is"
        ),
    )

    def __post_init__(self) -> None:
        super().__post_init__()
        at_most_one(self, "objective", "alpha")

    def prepare(self, setup: Setup) -> None:
        """Find out which labels are forgotten.

        Raises:
            UserError: no forget item has a label, or the anchor is no retained class.
        """
        if not setup.forgotten:
            raise UserError("objective.name: concept-ablation needs items with labels, and these have none.")
        self.base, self.retained = setup.base(), setup.retained
        alone = sorted(set(setup.forgotten) - set(self.retained))
        self.forgotten = torch.tensor(alone or setup.forgotten)
        if self.anchor_class is not None and self.anchor_class not in self.retained:
            known = ", ".join(map(str, self.retained))
            raise UserError(f"objective.anchor_class must be a retained class, {known}, got {self.anchor_class}.")

    def terms(self, predict: Predict, retain: Noised, forget: Noised | None) -> dict[str, Term]:
        if retain.condition is None or retain.condition.labels is None:
            raise RuntimeError("concept-ablation: the batch has no labels")
        drawn = retain.uniform("forgotten label").flatten(1)[:, 0]
        chosen = (drawn * len(self.forgotten)).long().clamp_max(len(self.forgotten) - 1)
        asked = Condition(self.forgotten.to(chosen.device)[chosen])
        taught = predict if self.teacher == "student" else self.base.eps
        with torch.no_grad():
            target = taught(retain.x, retain.t, retain.condition)
        losses = mean_square(predict(retain.x, retain.t, asked) - target)
        kept, counted = self.kept_loss(predict, retain), self._weights(retain.condition.labels)
        return {"retain": Term(self.alpha, kept), "forget": Term(1 - self.alpha, counted * losses)}

    def _weights(self, labels: Tensor) -> Tensor:
        """Return how much each retain item counts, by its label: not at all without one."""
        if self.anchor_class is None:
            return (labels >= 0).float()
        return (labels == self.anchor_class).float() * len(self.retained)
