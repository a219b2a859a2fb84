r"""Membership by the noise predicted at a clean item, and whether it is predicted again.

PIA (Kong et al., "An Efficient Membership Inference Attack for the Diffusion Model by Proximal Initialization", arXiv
2305.18355).

The noise that the network predicts at the item itself, e_0 = eps(x_0, 0), takes the place of drawn noise, and a member
is expected to have it predicted again:

    score = mean |e_0 - eps(a x_0 + sigma e_0, t)|^4

Two evaluations an item. Deviations: the published code counts in steps of a DDPM, best near t = 200 of 1000, which is
rho = .7; here levels are rho. The clean item stands at the least level that the process is sampled at, which is rho =
.01 for VP as for step 0 of the published DDPM. The power's sum over dimensions is a mean.
"""

from dataclasses import dataclass, field

from torch import Tensor

from msgm.diffusion.samplers import Eps
from msgm.evaluation.attacks.inference import QueryAttack, columns_of
from msgm.evaluation.metrics.base import METRICS

POWER = 4


@METRICS.register("pia")
@dataclass(frozen=True)
class PIA(QueryAttack):
    """Membership inference by proximal initialization.

    Example:
        >>> found = PIA(levels=[0.5], items=30).measure(subject)["pia"]
        >>> 0 <= found["forget"]["auc"]["value"] <= 1
        True

    Attributes:
        levels: noise levels rho = sigma / a of the second prediction.
        items: items of each group at most, drawn at random when it has more.
    """

    key = "pia"
    short = "PIA"
    definition = "by mean |e_0 - eps(a x_0 + sigma e_0)|^4, e_0 the noise predicted at the clean item (PIA)"
    columns = columns_of(key, short)

    levels: list[float] = field(default_factory=lambda: [0.17, 0.28, 0.46, 0.77, 1.3])

    def query(self, eps: Eps, x0: Tensor, level: float, least: float) -> Tensor:
        first = eps(x0, least)
        again = eps(x0 + level * first, level)
        return (first - again).double().pow(POWER).flatten(1).mean(1)
