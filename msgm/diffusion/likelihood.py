r"""Exact likelihood by the probability-flow ODE, in bits/dim for images of levels and in nats for vectors.

In sigma-space (``samplers``) the flow is dy/d rho = eps(y, rho), so along it d log p(y)/d rho = -div eps. From a point
x at t_min, with y = x / a and rho running up from rho(t_min) to rho(1),

    log p(x) = log N(x_1; 0, prior_std^2 I) + D (ln a(1) - ln a(t_min)) + int div_y eps(y, rho) d rho

(Song et al., arXiv 2011.13456, appendix D.2, after the change of variables). Steps are fixed, even in ln rho, so that
the value of an image does not depend on its batch mates; they are taken in z = y / sqrt(1 + rho^2), which stays of the
data's size (for VP it is x itself). The divergence is the trace of the Jacobian, exactly (D vector-Jacobian
products) in few dimensions, else Hutchinson's estimate v^T J v with Rademacher v; each stage costs one forward pass and
one vector-Jacobian product a probe. Probe i of item n depends on (seed, n, i) alone: models and sets are compared with
common probes.

Images: with x = 2 (k + u) / L - 1 the bits/dim of the levels k are at most
``-log2 p(x) / D + log2(L) - log2(2)`` (uniform dequantisation; 7 is added at 256 levels).
"""

import itertools
import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

from msgm.data.pixels import DATA_RANGE, dequantise
from msgm.diffusion.model import ScoreModel
from msgm.diffusion.samplers import Eps, flow, ratio_grid, sigma_space
from msgm.errors import UserError
from msgm.seeding import generator


@dataclass
class LikelihoodSettings:
    """How to integrate.

    Attributes:
        solver: ``heun`` (2 evaluations a step) or ``rk4`` (4).
        steps: fixed steps in ln rho from t_min to 1.
        probes: Hutchinson probes an item.
        exact_dims: the divergence is exact up to this many dimensions.
        batch_size: items at a time; it does not change the values.
    """

    solver: Literal["heun", "rk4"] = "rk4"
    steps: int = 25
    probes: int = 1
    exact_dims: int = 16
    batch_size: int = 500

    def __post_init__(self) -> None:
        for key in ("steps", "probes", "batch_size"):
            if getattr(self, key) < 1:
                raise UserError(f"evaluation.likelihood.{key} must be at least 1, got {getattr(self, key)}.")

    @property
    def evaluations(self) -> int:
        """Network evaluations an item."""
        return self.steps * (2 if self.solver == "heun" else 4)

    def describe(self, dims: int) -> str:
        """Return the protocol in a few words."""
        trace = "exact divergence" if dims <= self.exact_dims else f"{self.probes} Rademacher probe(s)"
        return f"PF-ODE, {self.solver}, {self.evaluations} evaluations, {trace}"


Derivative = Callable[[Tensor, float], tuple[Tensor, Tensor]]


def log_likelihood(
    model: ScoreModel, x: Tensor, settings: LikelihoodSettings | None = None, seed: int = 0, first: int = 0
) -> Tensor:
    """Return log p_{t_min}(x) in nats.

    Args:
        model: the model; evaluation mode is used.
        x: (B, *shape) items, images in [-1, 1].
        settings: solver, steps and probes.
        seed: of the probes.
        first: number of the first item, which names its probes.

    Returns:
        (B,) float64 on the CPU.
    """
    settings = settings or LikelihoodSettings()
    was_training = model.network.training
    frozen = [p for p in model.network.parameters() if p.requires_grad]
    model.network.eval()
    for p in frozen:
        p.requires_grad_(False)
    try:
        parts = x.split(settings.batch_size)
        starts = range(first, first + len(x), settings.batch_size)
        values = [
            _integrate(model, part.to(model.device), settings, seed, n) for part, n in zip(parts, starts, strict=True)
        ]
    finally:
        for p in frozen:
            p.requires_grad_(True)
        model.network.train(was_training)
    return torch.cat(values)


def negative_log_likelihood(
    model: ScoreModel, items: Tensor, levels: int | None, settings: LikelihoodSettings | None = None, seed: int = 0
) -> Tensor:
    """Return the negative log-likelihood of raw items: bits/dim when ``levels`` is given, else nats an item.

    Args:
        model: the model.
        items: (B, *shape); integer levels 0 .. ``levels`` - 1, or vectors.
        levels: grey levels of the data set; None for vectors.
        settings: solver, steps and probes.
        seed: of the probes and of the dequantisation noise, which is item n's own.

    Returns:
        (B,) float64 on the CPU.
    """
    if levels is None:
        return -log_likelihood(model, items, settings, seed)
    u = torch.stack(
        [torch.rand(items.shape[1:], generator=generator(seed, "dequantise", n)) for n in range(len(items))]
    )
    nats = -log_likelihood(model, dequantise(items.cpu(), levels, u), settings, seed)
    return nats / (items[0].numel() * math.log(2)) + bits_offset(levels)


def bits_offset(levels: int) -> float:
    """Return what turns the bits/dim of a density over [-1, 1] into those of levels: log2(levels) - log2(2)."""
    return math.log2(levels) - math.log2(DATA_RANGE)


def _integrate(model: ScoreModel, x: Tensor, settings: LikelihoodSettings, seed: int, first: int) -> Tensor:
    process, dims = model.process, x[0].numel()
    ratios = ratio_grid(process, settings.steps + 1, "log", process.t_min)[::-1]
    start, end = (process.signal(torch.tensor([t], dtype=torch.float64)).item() for t in (process.t_min, 1.0))
    derivative = _derivative(sigma_space(model), _probes(x, settings, seed, first))
    step = _heun if settings.solver == "heun" else _runge_kutta_4
    z = x / (start * math.hypot(1, ratios[0]))
    gain = torch.zeros(len(x), dtype=torch.float64, device=x.device)
    for now, then in itertools.pairwise(ratios):
        moved, gained = step(derivative, z, now, then)
        z, gain = z + moved, gain + gained
    final = (end * math.hypot(1, ratios[-1]) * z).double().flatten(1)
    prior = -0.5 * (final / process.prior_std).square().sum(1) - dims * math.log(
        process.prior_std * math.sqrt(2 * math.pi)
    )
    return (prior + dims * (math.log(end) - math.log(start)) + gain).cpu()


def _probes(x: Tensor, settings: LikelihoodSettings, seed: int, first: int) -> list[Tensor]:
    """Return vectors whose quadratic forms sum to the trace: the basis, or scaled Rademacher draws."""
    dims = x[0].numel()
    if dims <= settings.exact_dims:
        basis = torch.eye(dims, device=x.device, dtype=x.dtype)
        return [row.view(1, *x.shape[1:]).expand_as(x) for row in basis]
    signs = torch.stack(
        [
            torch.randint(2, (settings.probes, *x.shape[1:]), generator=generator(seed, "probe", first + n))
            for n in range(len(x))
        ],
        dim=1,
    )
    return list((2 * signs - 1).to(x) / math.sqrt(settings.probes))


def _derivative(eps: Eps, probes: list[Tensor]) -> Derivative:
    """Return (z, rho) -> (dz / d ln rho, div_y eps * rho) by one forward pass and one product a probe."""

    def derivative(z: Tensor, ratio: float) -> tuple[Tensor, Tensor]:
        scale = math.hypot(1, ratio)
        with torch.enable_grad():
            y = (scale * z).detach().requires_grad_(True)
            out = eps(y, ratio)
            trace = torch.zeros(len(y), dtype=torch.float64, device=y.device)
            for number, probe in enumerate(probes):
                (product,) = torch.autograd.grad(out, y, probe, retain_graph=number + 1 < len(probes))
                trace = trace + (product * probe).flatten(1).sum(1, dtype=torch.float64)
        return flow(out.detach(), z, ratio), ratio * trace

    return derivative


def _heun(derivative: Derivative, z: Tensor, now: float, then: float) -> tuple[Tensor, Tensor]:
    width = math.log(then / now)
    v1, d1 = derivative(z, now)
    v2, d2 = derivative(z + width * v1, then)
    return 0.5 * width * (v1 + v2), 0.5 * width * (d1 + d2)


def _runge_kutta_4(derivative: Derivative, z: Tensor, now: float, then: float) -> tuple[Tensor, Tensor]:
    width, middle = math.log(then / now), math.sqrt(now * then)
    v1, d1 = derivative(z, now)
    v2, d2 = derivative(z + 0.5 * width * v1, middle)
    v3, d3 = derivative(z + 0.5 * width * v2, middle)
    v4, d4 = derivative(z + width * v3, then)
    return (width / 6) * (v1 + 2 * v2 + 2 * v3 + v4), (width / 6) * (d1 + 2 * d2 + 2 * d3 + d4)
