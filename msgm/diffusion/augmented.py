r"""The probability-flow ODE together with its divergence, integrated from data to noise.

In z = y / sqrt(1 + rho^2) and s = ln rho (``samplers.space``), along dy / d rho = eps(y, rho),

    dz / ds = rho / sqrt(1 + rho^2) eps - rho^2 / (1 + rho^2) z,     d gain / ds = rho div_y eps(y, rho)

so that ``gain`` is the integral of div_y eps over rho. z keeps the data's size (for VP it is x itself), and even steps
in s suit all noise levels.

The divergence is a sum of quadratic forms v^T (d eps / d y) v: over the basis it is exact, over Rademacher draws it is
Hutchinson's estimate. Slope and divergence come from one forward pass and one vector-Jacobian product a probe; one
forward pass for the drift and another for its divergence, as in score_sde, would cost a pass more.
"""

import itertools
import math
from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from msgm.devices import precise, precise_device
from msgm.diffusion.adaptive import State, dormand_prince
from msgm.diffusion.model import per_item
from msgm.diffusion.samplers import Eps, flow

Slope = Callable[[Tensor, float], tuple[Tensor, Tensor]]
Step = Callable[[Slope, Tensor, float, float], tuple[Tensor, Tensor]]


def basis_probes(x: Tensor) -> list[Tensor]:
    """Return the D unit vectors, each (B, *shape): the trace is exact."""
    basis = torch.eye(x[0].numel(), device=x.device, dtype=x.dtype)
    return [row.view(1, *x.shape[1:]).expand_as(x) for row in basis]


def rademacher_probes(x: Tensor, count: int, streams: Sequence[torch.Generator]) -> list[Tensor]:
    """Return ``count`` draws of random signs, each (B, *shape), scaled so that their quadratic forms sum to the mean.

    Args:
        x: (B, *shape) the items.
        count: number of probes; more of them extend the fewer.
        streams: one CPU generator an item.
    """
    signs = torch.stack([torch.randint(2, (count, *x.shape[1:]), generator=stream) for stream in streams], dim=1)
    return list((2 * signs - 1).to(x) / math.sqrt(count))


def integrate_fixed(
    eps: Eps,
    z: Tensor,
    ratios: Sequence[float],
    probes: Sequence[Tensor],
    step: Step,
    watch: Callable[[], None] = lambda: None,
) -> tuple[Tensor, Tensor]:
    """Integrate along rising ``ratios``, one step from each to the next; ``watch`` is called after each.

    Returns:
        z at the last ratio, (B, *shape), and the gain, (B,) float64.
    """

    def slope(z: Tensor, ratio: float) -> tuple[Tensor, Tensor]:
        out, trace = eps_and_trace(eps, math.hypot(1, ratio) * z, ratio, probes)
        return flow(out, z, ratio), ratio * trace

    gain = torch.zeros(len(z), dtype=torch.float64, device=precise_device(z.device))
    for now, then in itertools.pairwise(ratios):
        moved, gained = step(slope, z, now, then)
        z, gain = z + moved, gain + gained
        watch()
    return z, gain


def integrate_adaptive(
    eps: Eps, z: Tensor, low: float, high: float, probes: Sequence[Tensor], tolerance: float
) -> tuple[Tensor, Tensor, Tensor]:
    """Integrate from rho = ``low`` to ``high`` by Dormand-Prince, each item with its own steps.

    The state is kept in float64, on the CPU where the device has none; the network computes in the precision of ``z``.
    Absolute and relative tolerance are the same number, for z as for the gain in nats.

    Returns:
        z at ``high``, (B, *shape) float64, the gain, (B,) float64, and the evaluations, (B,) int64.
    """

    def derivative(state: State, times: Tensor, items: Tensor) -> State:
        ratios = times.exp()
        spread = per_item(ratios, z)
        y = (torch.sqrt(1 + spread**2) * state[0]).to(z)
        out, trace = eps_and_trace(eps, y, ratios, [probe[items] for probe in probes], items)
        return flow(precise(out), state[0], spread), ratios * trace

    wide = precise(z)
    start = (wide, wide.new_zeros(len(z)))
    (end, gain), evaluations = dormand_prince(
        derivative, start, math.log(low), math.log(high), rtol=tolerance, atol=tolerance
    )
    return end, gain, evaluations


def eps_and_trace(
    eps: Eps, y: Tensor, ratio: float | Tensor, probes: Sequence[Tensor], rows: Tensor | None = None
) -> tuple[Tensor, Tensor]:
    """Return eps(y, rho), (B, *shape), and the sum over probes of v^T (d eps / d y) v, (B,) float64, from one pass."""
    with torch.enable_grad():
        y = y.detach().requires_grad_(True)
        out = eps(y, ratio, rows)
        trace = torch.zeros(len(y), dtype=torch.float64, device=precise_device(y.device))
        for number, probe in enumerate(probes):
            (product,) = torch.autograd.grad(out, y, probe, retain_graph=number + 1 < len(probes))
            trace = trace + precise(product * probe).flatten(1).sum(1)
    return out.detach(), trace


def heun(slope: Slope, z: Tensor, now: float, then: float) -> tuple[Tensor, Tensor]:
    """Return the change of z and of the gain over Heun's second-order step; two evaluations."""
    width = math.log(then / now)
    v1, d1 = slope(z, now)
    v2, d2 = slope(z + width * v1, then)
    return 0.5 * width * (v1 + v2), 0.5 * width * (d1 + d2)


def runge_kutta_4(slope: Slope, z: Tensor, now: float, then: float) -> tuple[Tensor, Tensor]:
    """Return the change of z and of the gain over the classical fourth-order step; four evaluations."""
    width, middle = math.log(then / now), math.sqrt(now * then)
    v1, d1 = slope(z, now)
    v2, d2 = slope(z + 0.5 * width * v1, middle)
    v3, d3 = slope(z + 0.5 * width * v2, middle)
    v4, d4 = slope(z + width * v3, then)
    return (width / 6) * (v1 + 2 * v2 + 2 * v3 + v4), (width / 6) * (d1 + 2 * d2 + 2 * d3 + d4)
