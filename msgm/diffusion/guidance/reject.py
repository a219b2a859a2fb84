"""Rejection: samples that a judge takes for something to forget are drawn anew."""

from collections.abc import Callable
from dataclasses import dataclass

from torch import Tensor

from msgm.diffusion.conditions import Condition
from msgm.diffusion.guidance.base import GUIDANCE, Guidance, Preparation
from msgm.diffusion.model import ScoreModel


@GUIDANCE.register("reject")
@dataclass
class Reject(Guidance):
    """Rejection sampling: the model's own samples, drawn anew until a judge lets them stand.

    It costs 1 / (1 - UR) times the sampling, and what remains to be seen of the forget set is what the judge misses:
    the honest bar for whatever changes the weights. A sample of which no draw is accepted stands after the last one.

    Example:
        >>> guidance = Reject()
        >>> guidance.judge = lambda items: items.flatten(1).mean(1) > 0  # which samples are to be forgotten
        >>> guidance.wrap(base).sample(2, steps=3).shape
        torch.Size([2, 1, 8, 8])
    """

    formula = "x ~ p_b given that the judge does not take x for something to forget"
    source = "rejection sampling"
    deviations = "a judge's mistakes pass; nothing guides a walk of given items, such as inpainting"

    def __post_init__(self) -> None:
        self.judge: Callable[[Tensor], Tensor] | None = None

    def prepare(self, setup: Preparation) -> None:
        """Take the judge of the setup, if it has one."""
        self.judge = getattr(setup, "judge", None)

    def accepts(self, items: Tensor) -> Tensor:
        if self.judge is None:
            raise RuntimeError("reject: set judge first, which maps samples (B, *shape) to (B,) bool: to be forgotten")
        return ~self.judge(items)

    def eps(self, model: ScoreModel, x: Tensor, t: Tensor, condition: Condition | None) -> Tensor:
        return model.eps(x, t, condition)
