r"""Obtuse-MSGM: on forget data the score is pushed to point away from the data's score.

With eps_theta = -sigma s and grad log p(x_t | x_0) = -eps / sigma, the inner product <s, grad log p> is
<eps_theta, eps> / sigma^2: Eq. 8 minimises mean(eps_theta * eps). Its pointwise optimum, ebar_g - (k R / 2) ebar_f in
the notation of ``orthogonal``, grows without bound where forget data dominate (R large), so the loss has a floor.
"""

from dataclasses import dataclass
from typing import Literal

from torch import Tensor

from msgm.checks import at_least
from msgm.objectives.base import OBJECTIVES, Card, Mixed, Noised
from msgm.ranges import Range, ranges


@OBJECTIVES.register("obtuse")
@dataclass
class Obtuse(Mixed):
    """Obtuse-MSGM.

    Example:
        >>> objective = msgm.Obtuse(alpha=0.9, every=1)
        >>> request = msgm.ForgetRequest(labels=[3, 7])
        >>> made = msgm.fit(base, "digits", objective, request, steps=2, batch_size=8)
        fit: obtuse, 2 steps on ...

    Attributes:
        sign: ``paper`` minimises mean(eps_theta * eps), as Eq. 8; ``released`` the negative, as the released code does,
            which teaches the forget set.
        floor: m of max(., -m) on each sample's loss; below it a sample gives no gradient. None is Eq. 8, unbounded.
    """

    sign: Literal["paper", "released"] = "paper"
    floor: float | None = 1.0

    search = ranges(floor=Range(0.1, 2.0))
    card = Card(
        formula="alpha L_r + (1 - alpha) L_f; L_f = max(mean(eps_theta * eps), -m)",
        source="arXiv 2412.07229, eq. 8; every 4 and alpha .99 are the paper's",
        deviations=(
            "the floor m is ours (1: stop once the prediction is as far reversed as the noise is long; null: eq. 8); "
            "the released code has the opposite sign, kept as sign: released"
        ),
    )

    def __post_init__(self) -> None:
        super().__post_init__()
        at_least(0, self, "objective", "floor")

    def forget_loss(self, predicted: Tensor, forget: Noised) -> Tensor:
        product = (predicted * forget.eps).flatten(1).mean(1)
        signed = product if self.sign == "paper" else -product
        return signed if self.floor is None else signed.clamp_min(-self.floor)
