r"""Samplers in sigma-space: written once for every process.

With ``y = x / a`` and ``rho = sigma / a`` the reverse-time equations of every process read

- probability-flow ODE:  dy = eps(y, rho) d rho
- reverse SDE:           dy = 2 eps(y, rho) d rho + sqrt(2 rho) dw  (rho running down)

and the denoised image is ``D(y, rho) = y - rho eps(y, rho)``. A sampler walks down a grid rho_0 > rho_1 > ... > rho_n =
0; its last step, to 0, is the denoising step (no noise is added there), after which y = x_0 since a(0) = 1.

Noise comes from one CPU generator a sample, seeded by (seed, index): a sample depends on neither the batch size, nor
the number of processes, nor the device, beyond rounding.
"""

import itertools
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

from msgm.checks import at_least
from msgm.diffusion.model import ScoreModel
from msgm.diffusion.processes import Process
from msgm.errors import UserError, nearest
from msgm.seeding import generator

Eps = Callable[[Tensor, float], Tensor]
Noise = Callable[[], Tensor]
Step = Callable[[Eps, Tensor, Sequence[float], Noise], Tensor]
Schedule = Literal["time", "log", "karras"]


@dataclass(frozen=True)
class Sampler:
    """A sampler with its source and its cost in network evaluations on a grid of ``n`` steps."""

    name: str
    run: Step
    source: str
    evaluations: Callable[[int], int]
    schedule: Schedule


SAMPLERS: dict[str, Sampler] = {}


def sampler(name: str, source: str, evaluations: Callable[[int], int], schedule: Schedule) -> Callable[[Step], Step]:
    """Return a decorator that registers a sampler; ``schedule`` is the grid that suits it."""

    def add(run: Step) -> Step:
        SAMPLERS[name] = Sampler(name, run, source, evaluations, schedule)
        return run

    return add


@sampler("euler-maruyama", "Song et al., arXiv 2011.13456, appendix G", lambda n: n, "time")
def euler_maruyama(eps: Eps, y: Tensor, ratios: Sequence[float], noise: Noise) -> Tensor:
    """Reverse SDE, one Euler-Maruyama step in tau = rho^2: y - (d tau / rho) eps + sqrt(d tau) z."""
    for now, then in itertools.pairwise(ratios):
        drop = now**2 - then**2
        y = y - (drop / now) * eps(y, now)
        if then > 0:
            y = y + math.sqrt(drop) * noise()
    return y


@sampler("heun", "Karras et al., arXiv 2206.00364, algorithm 1", lambda n: 2 * n - 1, "karras")
def heun(eps: Eps, y: Tensor, ratios: Sequence[float], noise: Noise) -> Tensor:
    """PF-ODE, Heun's second-order step in rho; the step to 0 is Euler's."""
    for now, then in itertools.pairwise(ratios):
        slope = eps(y, now)
        guess = y + (then - now) * slope
        y = guess if then == 0 else y + (then - now) * 0.5 * (slope + eps(guess, then))
    return y


@sampler("dpm++2m", "Lu et al., arXiv 2211.01095, algorithm 2", lambda n: n, "karras")
def dpm_solver_2m(eps: Eps, y: Tensor, ratios: Sequence[float], noise: Noise) -> Tensor:
    """PF-ODE, DPM-Solver++(2M): exponential integrator in lambda = -ln rho, second order from one evaluation a step."""
    previous: Tensor | None = None
    last_width = 0.0
    for now, then in itertools.pairwise(ratios):
        denoised = y - now * eps(y, now)
        if then == 0:
            return denoised
        width = math.log(now / then)
        direction = denoised
        if previous is not None:
            direction = denoised + (width / (2 * last_width)) * (denoised - previous)
        y = (then / now) * y - math.expm1(-width) * direction
        previous, last_width = denoised, width
    return y


@sampler("pf-ode", "Song et al., arXiv 2011.13456, section 4.3", lambda n: 4 * (n - 1) + 1, "log")
def pf_ode(eps: Eps, y: Tensor, ratios: Sequence[float], noise: Noise) -> Tensor:
    """PF-ODE, the classical Runge-Kutta step in ln rho on z = y / sqrt(1 + rho^2); then a denoising step."""

    def slope(z: Tensor, ratio: float) -> Tensor:
        return flow(eps(math.hypot(1, ratio) * z, ratio), z, ratio)

    z = y / math.hypot(1, ratios[0])
    for now, then in itertools.pairwise(ratios[:-1]):
        width, middle = math.log(then / now), math.sqrt(now * then)
        k1 = slope(z, now)
        k2 = slope(z + 0.5 * width * k1, middle)
        k3 = slope(z + 0.5 * width * k2, middle)
        k4 = slope(z + width * k3, then)
        z = z + (width / 6) * (k1 + 2 * k2 + 2 * k3 + k4)
    y = math.hypot(1, ratios[-2]) * z
    return y - ratios[-2] * eps(y, ratios[-2])


def flow(eps: Tensor, z: Tensor, ratio: float) -> Tensor:
    """Return dz / d ln rho of the PF-ODE, z = y / sqrt(1 + rho^2); z keeps the data's size where y grows with rho."""
    scale = math.hypot(1, ratio)
    return (ratio / scale) * eps - (ratio / scale) ** 2 * z


def ratio_grid(process: Process, steps: int, schedule: Schedule, t_end: float | None = None) -> list[float]:
    """Return ``steps`` values of rho from t = 1 down to ``t_end``, as Python floats.

    Args:
        process: whose rho.
        steps: number of values, at least 2.
        schedule: even in t (``time``), in ln rho (``log``), or in rho^(1/7) (``karras``, arXiv 2206.00364, eq. 5).
        t_end: smallest time; by default the process's sampling limit.
    """
    end = process.t_sample if t_end is None else t_end
    if schedule == "time":
        times = torch.linspace(1, end, steps, dtype=torch.float64)
        return [float(r) for r in process.ratio(times)]
    high, low = (float(process.ratio(torch.tensor(t, dtype=torch.float64))) for t in (1.0, end))
    u = [i / (steps - 1) for i in range(steps)]
    if schedule == "log":
        return [high ** (1 - v) * low**v for v in u]
    return [(high ** (1 / 7) * (1 - v) + low ** (1 / 7) * v) ** 7 for v in u]


def sigma_space(model: ScoreModel) -> Eps:
    """Return eps as a function of (y, rho) instead of (x, t)."""

    def eps(y: Tensor, ratio: float) -> Tensor:
        time = model.process.time(torch.tensor([ratio], dtype=torch.float64)).clamp(0, 1)
        signal = float(model.process.signal(time))
        t = torch.full((len(y),), float(time), device=y.device)
        return model.eps(signal * y, t)

    return eps


@dataclass
class SamplingSettings:
    """How to sample.

    Attributes:
        sampler: a name in ``SAMPLERS``.
        steps: grid steps; the sampler tells the network evaluations.
        schedule: spacing of the grid; None takes the one that suits the sampler.
        batch_size: samples made at a time; it does not change them.
    """

    sampler: str = "dpm++2m"
    steps: int = 50
    schedule: Schedule | None = None
    batch_size: int = 500

    def __post_init__(self) -> None:
        if self.sampler not in SAMPLERS:
            known = sorted(SAMPLERS)
            hint = nearest(self.sampler, known)
            raise UserError(f"sampling.sampler: unknown sampler {self.sampler!r}; known: {', '.join(known)}.{hint}")
        at_least(2, self, "sampling", "steps")
        at_least(1, self, "sampling", "batch_size")

    @property
    def evaluations(self) -> int:
        """Network evaluations a sample."""
        return SAMPLERS[self.sampler].evaluations(self.steps)

    def describe(self) -> str:
        """Return the protocol in a few words."""
        return f"{self.sampler}, {self.evaluations} network evaluations"


@torch.no_grad()
def sample(
    model: ScoreModel,
    count: int,
    settings: SamplingSettings | None = None,
    seed: int = 0,
    first: int = 0,
) -> Tensor:
    """Draw samples ``first`` .. ``first + count`` of the endless sequence that ``seed`` names.

    Args:
        model: the model; its network is used in evaluation mode.
        count: number of samples.
        settings: sampler, steps and batch size.
        seed: names the sequence.
        first: index of the first sample.

    Returns:
        (count, *shape) float32 on the CPU; images lie in [-1, 1] but for sampling error.
    """
    settings = settings or SamplingSettings()
    chosen = SAMPLERS[settings.sampler]
    ratios = [*ratio_grid(model.process, settings.steps, settings.schedule or chosen.schedule), 0.0]
    start = model.process.prior_std / float(model.process.signal(torch.ones(1, dtype=torch.float64)))
    eps, was_training = sigma_space(model), model.network.training
    model.network.eval()
    batches = []
    try:
        for begin in range(first, first + count, settings.batch_size):
            numbers = range(begin, min(begin + settings.batch_size, first + count))
            noise = per_sample_noise(seed, numbers, model.shape, model.device)
            batches.append(chosen.run(eps, start * noise(), ratios, noise).cpu())
    finally:
        model.network.train(was_training)
    return torch.cat(batches)


def per_sample_noise(seed: int, numbers: Sequence[int], shape: tuple[int, ...], device: torch.device) -> Noise:
    """Return a function whose every call gives fresh N(0, 1) noise (len(numbers), *shape), each row its own stream."""
    streams = [generator(seed, "sample", number) for number in numbers]

    def draw() -> Tensor:
        return torch.stack([torch.randn(shape, generator=stream) for stream in streams]).to(device)

    return draw
