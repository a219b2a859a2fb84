r"""The kernel density of a set of items, diffused: its noise prediction, and its bandwidth by leave-one-out likelihood.

A Gaussian kernel of standard deviation h around each of N items r_j is a density whose diffused form is a mixture of
Gaussians of one width,

    p_t(x) = mean_j N(x; a r_j, v I),  v = sigma^2 + a^2 h^2,

so that its score, and the noise prediction that goes with it, are exact:

    w_j = softmax_j(-|x - a r_j|^2 / 2 v),  eps*(x) = -sigma grad log p_t(x) = sigma (x - a sum_j w_j r_j) / v.

With h = 0 it is the noise prediction of the bare items, which at small sigma leads to one item and grows with its
distance over sigma. With h > 0 it is bounded: by the distance over 2 a h.

The bandwidth of highest leave-one-out likelihood maximises sum_i log mean_{j != i} N(r_i; r_j, h^2 I). Where its
derivative is zero,

    h^2 = mean_i sum_{j != i} w_ij |r_i - r_j|^2 / D,  w_ij = softmax_{j != i}(-|r_i - r_j|^2 / 2 h^2),

a mean of weighted means, so that h^2 D lies between the mean squared distance to the nearest item and that to all.
"""

import math
from dataclasses import dataclass

import torch
from scipy import optimize
from torch import Tensor

from msgm.devices import precise
from msgm.objectives.base import Noised

QUERIES = 1024
"""Items whose leave-one-out likelihood is maximised, at most: the first ones, of items that come in random order."""
ROUNDING = 1e-12
"""Squared distances below this share of the items' squared lengths are rounding, in float64."""
TOLERANCE = 1e-3
"""Relative error of the squared bandwidth."""
ENTRIES = 2**24
"""Entries of a matrix of distances held in memory at a time: 64 MiB in float32."""


@dataclass(frozen=True)
class KernelDensity:
    """Gaussian kernels around items.

    Example:
        >>> items = torch.tensor([[0.0], [2.0]])
        >>> x0, t = torch.ones(1, 1), torch.full((1,), 0.5)
        >>> batch = msgm.objectives.noised(msgm.VP(), x0, t, torch.zeros(1, 1))
        >>> float(KernelDensity(items, 0.1).eps(batch).abs() < 1e-6)  # in the middle between both
        1.0

    Attributes:
        items: (N, *shape) centres of the kernels.
        bandwidth: standard deviation h of a kernel, in units of the data; 0: the bare items.
    """

    items: Tensor
    bandwidth: float

    def variance(self, batch: Noised) -> Tensor:
        """Return the (B,) variances v of a diffused kernel at the times of ``batch``."""
        return (batch.noise**2 + (batch.signal * self.bandwidth) ** 2).flatten(1)[:, 0]

    def eps(self, batch: Noised) -> Tensor:
        """Return the noise prediction (B, *shape) of the diffused density at the points of ``batch``."""
        return self.eps_at(batch.x, batch.signal, batch.noise)

    @torch.no_grad()
    def eps_at(self, x: Tensor, signal: Tensor | float, noise: Tensor | float) -> Tensor:
        """Return the noise prediction at x (B, *shape), a and sigma numbers or tensors that broadcast over x."""
        bank, points = self.items.flatten(1), x.flatten(1)
        signal, noise = (_column(level, points) for level in (signal, noise))
        variance = noise**2 + (signal * self.bandwidth) ** 2
        mean = torch.empty_like(points)
        size = max(1, ENTRIES // len(bank))
        halves = 0.5 * bank.square().sum(1)
        for start in range(0, len(points), size):
            rows = slice(start, start + size)
            # |x|^2 is common to a row, so the softmax does not need it.
            logits = (signal[rows] * (points[rows] @ bank.T) - signal[rows] ** 2 * halves) / variance[rows]
            mean[rows] = logits.softmax(1) @ bank
        return (noise * (points - signal * mean) / variance).view_as(x)


def _column(level: Tensor | float, points: Tensor) -> Tensor:
    """Return a level of every point as (B, 1)."""
    return level.flatten(1)[:, :1] if isinstance(level, Tensor) else points.new_full((len(points), 1), level)


@torch.no_grad()
def leave_one_out_bandwidth(items: Tensor) -> float:
    """Return the bandwidth of highest leave-one-out likelihood of ``items`` (N, *shape), in units of the data.

    Exact copies of an item say nothing about the density's width and are left out of its own likelihood. Of more than
    ``QUERIES`` items the first ones are scored, against all.

    Example:
        >>> generator = torch.Generator().manual_seed(0)
        >>> 0.2 < leave_one_out_bandwidth(torch.randn(500, 2, generator=generator)) < 0.5
        True

    Returns:
        h; 0.0 where no item differs from another.
    """
    bank = items.flatten(1)
    bank = bank - bank.mean(0)
    squares = _squared_distances(bank) / bank.shape[1]
    squares = squares[squares.min(1).values.isfinite()]
    if not len(squares):
        return 0.0
    nearest = float(squares.min(1).values.double().mean())
    all_others = float(squares[squares.isfinite()].double().mean())
    if all_others <= nearest * (1 + TOLERANCE):
        return math.sqrt(nearest)

    def loss(log_h2: float) -> float:
        log_kernels = -0.5 * bank.shape[1] * (squares / math.exp(log_h2) + log_h2)
        return -float(log_kernels.logsumexp(1).double().mean())

    bounds = (math.log(nearest), math.log(all_others))
    found = optimize.minimize_scalar(loss, bounds=bounds, method="bounded", options={"xatol": TOLERANCE})
    return math.exp(found.x / 2)


def _squared_distances(bank: Tensor) -> Tensor:
    """Return (Q, N) squared distances of the first ``QUERIES`` items to all; infinite to themselves and to copies."""
    bank = precise(bank)
    lengths = bank.square().sum(1)
    lengths = lengths[:QUERIES, None] + lengths
    squares = lengths - 2 * bank[:QUERIES] @ bank.T
    return squares.masked_fill(squares <= ROUNDING * lengths, math.inf).float()
