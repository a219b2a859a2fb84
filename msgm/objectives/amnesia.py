"""Selective Amnesia: a forgotten label is taught images of noise, while replays and an anchor keep the rest."""

from dataclasses import dataclass, field, replace

from torch import Tensor

from msgm.objectives.anchors import Anchor
from msgm.objectives.base import OBJECTIVES, Card, Mixed, Noised, Predict, Term, mean_square


@OBJECTIVES.register("selective-amnesia")
@dataclass
class SelectiveAmnesia(Mixed):
    """Selective Amnesia: no retain item is read.

    Example:
        >>> objective = msgm.objectives.SelectiveAmnesia(replay=16, anchor=msgm.objectives.Anchor(items=8))
        >>> request = msgm.ForgetRequest(labels=[3, 7])
        >>> made = msgm.fit(base, "digits", objective, request, steps=2, batch_size=8)
        fit: selective-amnesia, 2 steps on ...
    """

    alpha: float = 0.5
    every: int = 1
    replay: int = field(default=1000, kw_only=True)
    anchor: Anchor | None = field(default_factory=Anchor, kw_only=True)

    card = Card(
        formula=(
            "alpha L(replays) + (1 - alpha) L(u, c_f) + weight sum F_i (theta_i - theta*_i)^2, u images of U(-1, 1) "
            "noise under the forgotten items' labels, replays samples of theta*, F at replays"
        ),
        source="Heng and Soh, arXiv 2305.10120; its released code",
        deviations=(
            "without labels nothing ties the noise images to the forget set: the row then shows what replays and an "
            "anchor do, not unlearning; losses are means over D dimensions and F is of gradients averaged over times, "
            "so that a lambda for sums over dimensions and T times is lambda T^2 D beside losses of weight 1: the "
            "code's 10 with 1,000 times is 1e7 D, and half of that at alpha .5; the default weight of 1000 is ours"
        ),
    )

    def terms(self, predict: Predict, retain: Noised, forget: Noised | None) -> dict[str, Term]:
        if forget is not None:
            noise = 2 * forget.uniform() - 1
            forget = replace(forget, x=forget.signal * noise + forget.noise * forget.eps, clean=noise)
        return super().terms(predict, retain, forget)

    def forget_loss(self, predicted: Tensor, forget: Noised) -> Tensor:
        return mean_square(predicted - forget.eps)
