"""Masks of the weights: which of them an objective may change, as the setting ``mask`` names them.

A mask holds for the *update*: weights outside it are put back after the optimiser's step, so that neither momentum from
another update nor weight decay moves them. Gradients outside it are zero before they are clipped.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar, Literal

import torch
from torch import Tensor

from msgm.checks import at_least
from msgm.errors import UserError
from msgm.objectives.gradient_moments import fisher_ratio
from msgm.objectives.setup import Setup
from msgm.ranges import Range, ranges


@dataclass
class Mask:
    """Keeps all weights still but those that matter most for the forget set.

    Example:
        >>> objective = msgm.EraseDiff(mask=msgm.objectives.Mask(by="saliency", keep=0.5))
        >>> request = msgm.ForgetRequest(labels=[3, 7])
        >>> made = msgm.fit(base, "digits", objective, request, steps=2, batch_size=8)
        fit: erasediff, 2 steps on ...

    Attributes:
        by: a weight's score: ``saliency`` is the size of the forget loss's mean gradient (SalUn, arXiv 2310.12508);
            ``fisher`` the ratio of the mean squared gradients at forget and at retain items (SFR-on, arXiv 2409.19732).
        keep: share of all trained weights that may change, those of the highest scores; none of score 0.
        threshold: least score of a weight that may change; takes the place of ``keep`` where it is set. An objective's
            own threshold goes where ``by`` or ``keep`` is given.
        items: items of each part that the scores are taken from, all when there are no more.
        levels: times of each item.
    """

    by: Literal["saliency", "fisher"] = "saliency"
    keep: float = 0.5
    threshold: float | None = None
    items: int = 256
    levels: int = 10

    search: ClassVar[Mapping[str, Range]] = ranges(keep=Range(0.05, 1.0))
    yields: ClassVar[Mapping[str, tuple[str, ...]]] = {"threshold": ("by", "keep")}

    def __post_init__(self) -> None:
        at_least(1, self, "objective.mask", "items", "levels")
        if not 0 < self.keep <= 1:
            raise UserError(f"objective.mask.keep must lie in (0, 1], got {self.keep}.")
        at_least(0, self, "objective.mask", "threshold")

    @property
    def reads_retain(self) -> bool:
        """Whether it is found from retain items, or from replays in their place."""
        return self.by == "fisher"

    def effective(self) -> dict[str, Any]:
        """Return the settings that have an effect, by name."""
        return {name: value for name, value in vars(self).items() if name != "keep" or self.threshold is None}

    def found(self, setup: Setup) -> dict[str, Tensor]:
        """Return the mask by the names of trained weights: True where a weight may change.

        Raises:
            UserError: no weight may.
        """
        trained = [name for name, p in setup.model().network.named_parameters() if p.requires_grad]
        scores = {name: score for name, score in self.scores(setup).items() if name in trained}
        least = self.threshold if self.threshold is not None else _kept_from(scores, self.keep)
        mask = {name: score >= least for name, score in scores.items()}
        if not any(allowed.any() for allowed in mask.values()):
            highest = max((float(score.max()) for score in scores.values()), default=0.0)
            raise UserError(
                f"objective.mask: no weight may change, as the highest {self.by} score is {highest:.4g} and the least "
                f"of a kept one {least:.4g}."
            )
        return mask

    def scores(self, setup: Setup) -> dict[str, Tensor]:
        """Return the score of every weight."""
        forget = setup.moments("forget", self.items, self.levels)
        if self.by == "saliency":
            return {name: mean.abs() for name, mean in forget.mean.items()}
        retain = setup.moments("retain", self.items, self.levels)
        return fisher_ratio(forget.square, retain.square)


def _kept_from(scores: Mapping[str, Tensor], share: float) -> float:
    """Return the least score, above 0, of the share of weights with the highest ones.

    Weights of equal score are kept alike, and those of score 0 are not: many of them would be kept beyond the share.
    """
    flat = torch.cat([score.flatten() for score in scores.values()]).cpu()
    left = len(flat) - max(1, round(share * len(flat)))
    return max(float(flat.kthvalue(left + 1).values), torch.finfo(flat.dtype).tiny)


def kept_shares(mask: Mapping[str, Tensor]) -> dict[str, float]:
    """Return the share of weights that may change, by their tensor's name.

    Example:
        >>> msgm.objectives.kept_shares({"weight": torch.tensor([True, False])})
        {'weight': 0.5}
    """
    return {name: float(allowed.float().mean()) for name, allowed in mask.items()}
