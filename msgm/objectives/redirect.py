r"""Redirect: at points near forget items, regress onto the score of the retain set.

Denoising score matching on the retain set rarely visits points near forget items at small t, so a network trained on
it may keep its old score there. Redirect visits them: at x_t drawn from the forget set it regresses onto the score of
the empirical retain distribution,

    w_j = softmax_j(-|x_t - a r_j|^2 / 2 sigma^2),  rbar = sum_j w_j r_j,  eps* = (x_t - a rbar) / sigma,
    L_f = mean (eps_theta - eps*)^2 / (1 + mean eps*^2).

Both terms have the same pointwise minimiser, the noise prediction of the empirical retain set (whole bank, unlimited
capacity). At small t the target is a single retain item: watch the copy rate.
"""

from dataclasses import dataclass

import torch
from torch import Tensor

from msgm.errors import UserError
from msgm.objectives.base import OBJECTIVES, Card, Mixed, Noised, Setup, mean_square

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
    """

    alpha: float = 0.5
    every: int = 1
    bank: int = 16384

    card = Card(
        formula=(
            "alpha L_r + (1 - alpha) L_f; L_f = mean (eps_theta - eps*)^2 / (1 + mean eps*^2), "
            "eps* = (x_t - a rbar) / sigma, rbar the posterior mean over the retain items"
        ),
        source="this package; kin to ReTrack, arXiv 2509.13007",
        deviations=(
            "the bank sits at bin centres while training dequantises uniformly (bins are 2 / levels wide); a bank "
            "smaller than the retain set biases the target: at small t towards the drawn items, whose nearest one lies "
            f"farther away than the set's nearest; a drawn bank of fewer than {LEAST_DISTINCT} different items, images "
            "of one colour left out, is refused"
        ),
    )

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.bank < LEAST_DISTINCT:
            raise UserError(f"objective.bank must be at least {LEAST_DISTINCT}, got {self.bank}.")

    def prepare(self, setup: Setup) -> None:
        """Draw the bank.

        Raises:
            UserError: it holds fewer than ``LEAST_DISTINCT`` different items.
        """
        self.items = setup.retain(self.bank)
        distinct = _distinct(self.items)
        if distinct < LEAST_DISTINCT:
            raise UserError(
                f"objective.bank: redirect drew {len(self.items)} retain items, of which {distinct} differ and are not "
                f"of one colour, and it needs {LEAST_DISTINCT}: with fewer it sends forget items to single retain "
                "items; raise objective.bank, or retain more items."
            )

    def forget_loss(self, predicted: Tensor, forget: Noised) -> Tensor:
        target = retain_eps(forget, self.items)
        return mean_square(predicted - target) / (1 + mean_square(target))


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


@torch.no_grad()
def retain_eps(batch: Noised, items: Tensor) -> Tensor:
    """Return the noise prediction of the empirical distribution of ``items`` (N, *shape) at the points of ``batch``."""
    bank, points = items.flatten(1), batch.x.flatten(1)
    signal, noise = batch.signal.flatten(1), batch.noise.flatten(1)
    # |x|^2 is common to a row, so the softmax does not need it.
    logits = (signal * (points @ bank.T) - 0.5 * signal**2 * bank.square().sum(1)) / noise**2
    mean = logits.softmax(1) @ bank
    return ((points - signal * mean) / noise).view_as(batch.x)
