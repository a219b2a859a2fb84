r"""Redirect: at points near forget items, regress onto the score of the retain set's kernel density.

Denoising score matching on the retain set rarely visits points near forget items at small t, so a network trained on
it may keep its old score there. Redirect visits them: at x_t drawn from the forget set it regresses onto the noise
prediction of the retain set r_j, each item widened to a Gaussian of standard deviation h,

    v = sigma^2 + a^2 h^2,  w_j = softmax_j(-|x_t - a r_j|^2 / 2 v),  eps* = sigma (x_t - a sum_j w_j r_j) / v,
    L_f = sigma^2 / v * mean (eps_theta - eps*)^2 / (1 + mean eps*^2).

The bandwidth h is the one of highest leave-one-out likelihood of the retain items (``kernel``). The weight sigma^2 / v
is the part of the density's smoothing at time t that is the path's own noise: where sigma < a h the target is given by
the kernel's shape rather than by the data, and counts less.

With h = 0 the target is the score of the bare items: at small t that of a single one, far away, which costs quality on
the retain set.
"""

from dataclasses import dataclass

from torch import Tensor

from msgm.checks import at_least
from msgm.errors import UserError
from msgm.objectives.base import OBJECTIVES, Card, Mixed, Noised, Setup, mean_square
from msgm.objectives.kernel import KernelDensity, leave_one_out_bandwidth

LEAST_DISTINCT = 8
"""Different items that a bank must hold."""


@OBJECTIVES.register("redirect")
@dataclass
class Redirect(Mixed):
    """Redirect.

    Example:
        >>> objective = msgm.Redirect(alpha=0.5)
        >>> request = msgm.ForgetRequest(labels=[3, 7])
        >>> made = msgm.fit(base, "digits", objective, request, steps=2, batch_size=8)
        fit: redirect, 2 steps on ...

    Attributes:
        bank: retain items that the target is computed from; a random draw when the retain set is larger.
        bandwidth: standard deviation h of the kernel around each item, in units of the data; None: the one of highest
            leave-one-out likelihood of the bank; 0: the bare items.
    """

    alpha: float = 0.5
    every: int = 1
    bank: int = 16384
    bandwidth: float | None = None

    card = Card(
        formula=(
            "alpha L_r + (1 - alpha) L_f; L_f = sigma^2 / v * mean (eps_theta - eps*)^2 / (1 + mean eps*^2), eps* = "
            "sigma (x_t - a rbar) / v, v = sigma^2 + a^2 h^2, rbar the mean of the retain items r weighted by "
            "softmax(-|x_t - a r|^2 / 2 v), h their bandwidth of highest leave-one-out likelihood"
        ),
        source=(
            "this package; kin to ReTrack, arXiv 2509.13007, and to kernel-smoothed scores for sampling, "
            "arXiv 2310.12395 and 2505.22841"
        ),
        deviations=(
            "the bank sits at bin centres while training dequantises uniformly (bins are 2 / levels wide); a bank "
            "smaller than the retain set biases the target towards the drawn items, and its bandwidth is wider; a "
            f"drawn bank of fewer than {LEAST_DISTINCT} different items, images of one colour left out, is refused"
        ),
    )

    def __post_init__(self) -> None:
        super().__post_init__()
        at_least(LEAST_DISTINCT, self, "objective", "bank")
        at_least(0, self, "objective", "bandwidth")

    def prepare(self, setup: Setup) -> None:
        """Draw the bank and find its bandwidth.

        Raises:
            UserError: the bank holds fewer than ``LEAST_DISTINCT`` different items.
        """
        items = setup.retain(self.bank)
        distinct = _distinct(items)
        if distinct < LEAST_DISTINCT:
            raise UserError(
                f"objective.bank: redirect drew {len(items)} retain items, of which {distinct} differ and are not "
                f"of one colour, and it needs {LEAST_DISTINCT}: with fewer it sends forget items to single retain "
                "items; raise objective.bank, or retain more items."
            )
        width = leave_one_out_bandwidth(items) if self.bandwidth is None else self.bandwidth
        self.density = KernelDensity(items, width)

    def found(self) -> dict[str, float]:
        return {"bandwidth": self.density.bandwidth} if self.bandwidth is None else {}

    def forget_loss(self, predicted: Tensor, forget: Noised) -> Tensor:
        target = self.density.eps(forget)
        share = forget.noise.flatten(1)[:, 0] ** 2 / self.density.variance(forget)
        return share * mean_square(predicted - target) / (1 + mean_square(target))


def _distinct(items: Tensor) -> int:
    """Return the number of distinct items, up to ``LEAST_DISTINCT``; images of a single colour do not count."""
    seen: set[bytes] = set()
    for item in items:
        uniform = item.dim() > 1 and bool((item.flatten(1) == item.flatten(1)[:, :1]).all())
        if not uniform:
            seen.add(item.cpu().numpy().tobytes())
        if len(seen) == LEAST_DISTINCT:
            break
    return len(seen)
