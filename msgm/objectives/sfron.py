"""SFR-on: ascent on the forget set by the weights that it needs more than the retain set, and repair on the latter."""

import math
from dataclasses import dataclass, field

from torch import Tensor

from msgm.checks import at_least
from msgm.objectives.base import (
    OBJECTIVES,
    Card,
    Noised,
    Objective,
    Phase,
    Predict,
    Setup,
    Term,
    mean_square,
)
from msgm.objectives.masks import Mask
from msgm.ranges import Range, ranges

LEAST = 1e-8
"""Least loss that a sample's weight is computed from."""


@OBJECTIVES.register("sfr-on")
@dataclass
class SFRon(Objective):
    """SFR-on: two updates a step, each with an optimiser of its own.

    Example:
        >>> objective = msgm.objectives.SFRon(mask=msgm.objectives.Mask("fisher", threshold=1.0, items=8))
        >>> request = msgm.ForgetRequest(labels=[3, 7])
        >>> made = msgm.fit(base, "digits", objective, request, steps=2, batch_size=8)
        fit: sfr-on, 2 steps on ...

    Attributes:
        strength: learning rate of the forget update at the first step, in parts of the retain update's; it falls to 0
            along half a cosine.
    """

    strength: float = 1.0
    mask: Mask | None = field(default_factory=lambda: Mask("fisher", threshold=1.0), kw_only=True)

    search = ranges(strength=Range(0.01, 1.0, log=True))
    data = "retain+forget"
    card = Card(
        formula=(
            "each step: an update along -mean L_i / sqrt(sg L_i) over the forget batch, with strength(step) times the "
            "learning rate, of the weights with F_f / F_r >= 1 alone; then an update along L_r, of all weights; "
            "strength falls along half a cosine to 0"
        ),
        source="Huang et al., arXiv 2409.19732; its released code",
        deviations=(
            "each update has an Adam of its own and the mask holds for the update: with one Adam, as in the code, "
            "masked weights move by the momentum of the other update; strength is a factor of the rate, where the code "
            "has one of the loss, which would cancel in an Adam of its own; the samples' weights are not divided by "
            "their mean, which would tie a sample's loss to its batch; F is the mean squared gradient of items, where "
            "the code squares the clipped gradients of batches; losses are means over dimensions"
        ),
    )

    def __post_init__(self) -> None:
        super().__post_init__()
        at_least(0, self, "objective", "strength")

    def prepare(self, setup: Setup) -> None:
        """Take over how many steps there are."""
        self.steps = setup.steps

    def phases(self, step: int) -> tuple[Phase, ...]:
        done = step / max(1, getattr(self, "steps", 1))
        return Phase("forget", self.strength * 0.5 * (1 + math.cos(math.pi * min(1.0, done)))), Phase(
            "retain", masked=False
        )

    def terms(self, predict: Predict, retain: Noised | None, forget: Noised | None) -> dict[str, Term]:
        found = dict[str, Term]()
        if retain is not None:
            found["retain"] = Term(1.0, _loss(predict, retain))
        if forget is not None:
            loss = _loss(predict, forget)
            found["forget"] = Term(-1.0, loss * loss.detach().clamp_min(LEAST).rsqrt())
        return found


def _loss(predict: Predict, batch: Noised) -> Tensor:
    return mean_square(predict(batch.x, batch.t, batch.condition) - batch.eps)
