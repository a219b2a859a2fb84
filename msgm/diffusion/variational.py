r"""DDPM's variational bound on the bits/dim of levels (Ho et al., arXiv 2006.11239, section 2 and equations 5 and 13).

The discrete chain x_1 .. x_N of a DDPM with its learnt reverse steps bounds the negative log-likelihood by

    -log p(x_0) <= L_N + sum_{t=2}^{N} L_{t-1} + L_0

    L_N     = KL(q(x_N | x_0) || N(0, I))
    L_{t-1} = E KL(q(x_{t-1} | x_t, x_0) || p(x_{t-1} | x_t))
    L_0     = E -log p(x_0 | x_1)

The reverse step has the mean of q(x_{t-1} | x_t, x_0) with the network's estimate D of x_0 in the place of x_0, and its
variance (Ho's "fixed small" one). Then, with rho = sigma / a, the divergence of these two Gaussians is

    KL = (1 / rho_{t-1}^2 - 1 / rho_t^2) |x_0 - D(x_t, t)|^2 / 2

(Kingma et al., arXiv 2107.00630, equation 13). The decoder p(x_0 | x_1) is N(D(x_1, 1), beta_1 I), integrated over the
level's bin, of which the outer two are unbounded. Every term but L_N is an expectation over the noise of x_t and is
estimated without bias from one draw an item and label.

Deviations from Ho et al.: levels sit at their bins' centres 2 (k + 1/2) / L - 1, as everywhere in msgm, not at
2 k / (L - 1) - 1; the decoder's variance is beta_1, since the posterior's is 0 at t = 1 (their code takes the one of
t = 2). As in their code D is clipped to [-1, 1], where all levels lie.

The model that it bounds is ancestral sampling over the N labels, another one than the probability-flow ODE's of
``likelihood``: the two numbers need not agree.
"""

import itertools
import math
from collections.abc import Iterator

import torch
from torch import Tensor

from msgm.data.pixels import DATA_RANGE, dequantise
from msgm.devices import precise
from msgm.diffusion.conditions import Asked, Condition
from msgm.diffusion.model import ScoreModel, per_item
from msgm.diffusion.processes import DDPM
from msgm.diffusion.shards import log_mixed
from msgm.errors import UserError
from msgm.processes import spread
from msgm.seeding import generator


@torch.no_grad()
def variational_bound(
    model: ScoreModel,
    items: Tensor,
    levels: int,
    seed: int = 0,
    terms: int | None = None,
    batch_size: int = 500,
    condition: Asked = None,
) -> Tensor:
    """Return the variational bound of each item in bits/dim.

    Args:
        model: a model of a DDPM process; evaluation mode is used.
        items: (B, *shape) integer levels 0 .. ``levels`` - 1.
        levels: grey levels of the data set, at least 2.
        seed: of the noise and of the labels drawn; item n has its own streams.
        terms: how many of the N - 1 terms L_{t-1} to evaluate, 1 .. N - 1; by default all. Fewer are drawn one from
            each of as many even strata of t and weighted by the stratum's size, which leaves the bound unbiased.
            L_0 and L_N are always there, so that an item costs ``terms`` + 1 network evaluations.
        batch_size: items at a time; it does not change the values.
        condition: given which the bound is asked for: a label for all items, a label for each, or a ``Condition``.

    Returns:
        (B,) float64 on the CPU.

    Raises:
        UserError: the process is not a DDPM, or ``terms`` is out of range.
    """
    process = model.process
    if not isinstance(process, DDPM):
        raise UserError(
            f"variational bound: process {process.name!r} is continuous in time, and the bound is that of a discrete "
            "chain; only ddpm has one, use the PF-ODE likelihood."
        )
    if model.prediction == "epsilon" and float(process.signal(torch.ones(1))) == 0:
        raise UserError(
            "variational bound: the process leaves no signal at its last label, where a network that predicts epsilon "
            "says nothing of the item; use the PF-ODE likelihood."
        )
    terms = process.steps - 1 if terms is None else terms
    if not 1 <= terms <= process.steps - 1:
        raise UserError(f"variational bound: terms must lie in 1 .. {process.steps - 1}, got {terms}.")

    asked = model.asked(condition, len(items))

    def bound(start: int) -> Tensor:
        rows = slice(start, start + batch_size)
        own = None if asked is None else asked[rows]
        here = items[rows].to(model.device)
        return -log_mixed(model, lambda part: -_bound(part, process, here, levels, terms, seed, start, own).cpu())

    was_training = model.network.training
    model.network.eval()
    try:
        nats = spread(range(0, len(items), batch_size), bound)
    finally:
        model.network.train(was_training)
    return torch.cat(nats) / (items[0].numel() * math.log(2))


def _bound(
    model: ScoreModel,
    process: DDPM,
    items: Tensor,
    levels: int,
    terms: int,
    seed: int,
    first: int,
    condition: Condition | None,
) -> Tensor:
    """Return the bound of a batch in nats, (B,) float64."""
    x = dequantise(items, levels)
    numbers = range(first, first + len(x))
    noises = [generator(seed, "variational noise", n) for n in numbers]
    places = torch.stack([torch.rand(terms, generator=generator(seed, "variational labels", n)) for n in numbers])

    def denoised(t: Tensor) -> Tensor:
        """Draw x_t and return the clipped estimate of x_0; t (B,) in float64."""
        noise = torch.stack([torch.randn(x.shape[1:], generator=stream) for stream in noises]).to(x)
        signal, sigma = (per_item(c(t), x).to(x) for c in (process.signal, process.noise))
        return model.denoise(signal * x + sigma * noise, t.to(x), condition).clamp(-1, 1)

    first_label = precise(torch.full((len(x),), 1.0, device=x.device)) / process.steps
    total = _prior_term(process, x) + _decoder_term(process, denoised(first_label), items, levels)
    for place, (low, high) in zip(places.T.to(x.device), _strata(process.steps, terms), strict=True):
        label = low + (precise(place) * (high - low)).floor()
        precision = [process.ratio((label - back) / process.steps) ** -2 for back in (1, 0)]
        square = precise(x - denoised(label / process.steps)).flatten(1).square().sum(1)
        total += (high - low) * 0.5 * (precision[0] - precision[1]) * square
    return total


def _strata(steps: int, terms: int) -> Iterator[tuple[int, int]]:
    """Cut t = 2 .. ``steps`` into ``terms`` runs [low, high) of nearly even length."""
    edges = [2 + (steps - 1) * i // terms for i in range(terms + 1)]
    return itertools.pairwise(edges)


def _prior_term(process: DDPM, x: Tensor) -> Tensor:
    """Return KL(N(a x, sigma^2 I) || N(0, I)) at t = 1 (label N), (B,) in nats."""
    end = precise(torch.ones(1, device=x.device))
    signal, variance = process.signal(end), process.noise(end) ** 2
    square = (signal * precise(x).flatten(1)).square()
    return 0.5 * (square + variance - 1 - variance.log()).sum(1)


def _decoder_term(process: DDPM, mean: Tensor, items: Tensor, levels: int) -> Tensor:
    """Return -log of the mass that N(mean, beta_1) has in the bins of ``items``, (B,) in nats; the outer are unbounded.

    A bin above the mean is mirrored below it, where the difference of two small masses keeps its digits.
    """
    items, mean = precise(items), precise(mean)
    width = process.noise(torch.full((1,), 1 / process.steps, dtype=torch.float64, device=mean.device))
    low = DATA_RANGE / levels * items - 1
    low, high = (low - mean) / width, (low + DATA_RANGE / levels - mean) / width
    low, high = low.masked_fill(items == 0, -math.inf), high.masked_fill(items == levels - 1, math.inf)
    mirrored = low + high > 0
    low, high = torch.where(mirrored, -high, low), torch.where(mirrored, -low, high)
    above, below = torch.special.log_ndtr(high), torch.special.log_ndtr(low)
    return -(above + torch.log(-torch.expm1(below - above))).flatten(1).sum(1)
