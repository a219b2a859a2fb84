r"""Membership by the error of a deterministic step up and back.

SecMI-stat (Duan et al., "Are Diffusion Models Vulnerable to Membership Inference Attacks?", arXiv 2302.01316).

An item is taken up to x_t by DDIM's inversion, one step further and one step back to x'_t; a member is expected to
return more closely:

    score = mean |x_t - x'_t|^2

In sigma-space, y = x / a, a step from rho to rho' is y' = y + (rho' - rho) eps(y, rho), up as well as down.

Deviations: the published attack goes up to step 100 of 1000 of a DDPM in ten steps, which is rho = .34 in steps nearly
equal in rho; here levels are rho and steps are equal in rho, from the least level that the process is sampled at. The
sum over dimensions is a mean.
"""

from dataclasses import dataclass, field

import torch
from torch import Tensor

from msgm.checks import at_least
from msgm.diffusion.samplers import Eps
from msgm.evaluation.attacks.inference import QueryAttack, columns_of
from msgm.evaluation.metrics.base import METRICS


@METRICS.register("secmi")
@dataclass(frozen=True)
class SecMI(QueryAttack):
    """Membership inference by the step-wise error of DDIM's inversion.

    Example:
        >>> found = SecMI(levels=[0.3], items=30, steps=2).measure(subject)["secmi"]
        >>> 0 <= found["forget"]["auc"]["value"] <= 1
        True

    Attributes:
        levels: noise levels rho = sigma / a that items are taken up to.
        items: items of each group at most, drawn at random when it has more.
        steps: of the way up; the step further and back is as long.
    """

    key = "secmi"
    short = "SecMI"
    definition = "by mean |y - y'|^2, y' the item's latent y = x / a after a DDIM step up and back (SecMI-stat)"
    columns = columns_of(key, short)

    levels: list[float] = field(default_factory=lambda: [0.17, 0.34, 0.77])
    steps: int = 10

    def __post_init__(self) -> None:
        super().__post_init__()
        at_least(1, self, self.section, "steps")

    def query(self, eps: Eps, x0: Tensor, level: float, least: float) -> Tensor:
        ratios = torch.linspace(least, level, self.steps + 1, dtype=torch.float64).tolist()
        step, y = ratios[1] - ratios[0], x0
        for ratio in ratios[:-1]:
            y = y + step * eps(y, ratio)
        predicted = eps(y, level)
        back = predicted - eps(y + step * predicted, level + step)
        return (step * back).double().square().flatten(1).mean(1)
