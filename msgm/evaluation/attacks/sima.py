r"""Membership by the size of the noise predicted at a clean item.

SimA ("Score-based Membership Inference on Diffusion Models", arXiv 2509.25003).

The network is given the item without noise, as if it stood at a small noise level; near a training item the density is
expected to be at its highest and the score small:

    score = mean |eps(x_0, t)|^4

One evaluation an item. Deviations: levels are rho rather than steps of a DDPM; the item is scaled by a(t), so that it
lies on the path, which changes little at small levels. The power's sum over dimensions is a mean.
"""

from dataclasses import dataclass, field

from torch import Tensor

from msgm.diffusion.samplers import Eps
from msgm.evaluation.attacks.inference import QueryAttack, columns_of
from msgm.evaluation.metrics.base import METRICS

POWER = 4


@METRICS.register("sima")
@dataclass(frozen=True)
class SimA(QueryAttack):
    """Membership inference by the predicted noise at clean items.

    Example:
        >>> found = SimA(levels=[0.1], items=30).measure(subject)["sima"]
        >>> 0 <= found["forget"]["auc"]["value"] <= 1
        True

    Attributes:
        levels: noise levels rho = sigma / a that the network is told.
        items: items of each group at most, drawn at random when it has more.
    """

    key = "sima"
    short = "SimA"
    definition = "by mean |eps(x_0)|^4, the noise predicted at the clean item (SimA)"
    columns = columns_of(key, short)

    levels: list[float] = field(default_factory=lambda: [0.05, 0.1, 0.17, 0.28, 0.46])

    def query(self, eps: Eps, x0: Tensor, level: float, least: float) -> Tensor:
        return eps(x0, level).double().pow(POWER).flatten(1).mean(1)
