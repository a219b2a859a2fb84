"""Samplers of the probability-flow ODE dy = eps(y, rho) d rho, on a fixed grid or with steps of their own."""

import itertools
import math
from dataclasses import dataclass

import torch
from torch import Tensor

from msgm.checks import at_least, positive
from msgm.devices import precise
from msgm.diffusion.adaptive import dormand_prince
from msgm.diffusion.model import per_item
from msgm.diffusion.samplers.base import SAMPLERS, Noise, Sampler, State, Watch
from msgm.diffusion.samplers.space import Eps, Grid, flow


@SAMPLERS.register("heun")
@dataclass(frozen=True)
class Heun(Sampler):
    """Heun's second-order step in rho; the step to 0 is Euler's. With churn, noise is added before each step (EDM).

    Churn raises the level to rho (1 + gamma), gamma = min(churn / steps, sqrt(2) - 1), by fresh noise. Deviation: never
    above the top, where walks start.

    Example:
        >>> base.sample(2, Heun(churn=1.0), steps=5).shape
        torch.Size([2, 1, 8, 8])

    Attributes:
        churn: EDM's S_churn, at least 0; 0 is deterministic (algorithm 1).
        s_min: smallest rho that is churned.
        s_max: largest rho that is churned.
        s_noise: std of the added noise, relative to what the level asks for.
    """

    churn: float = 0.0
    s_min: float = 0.0
    s_max: float = math.inf
    s_noise: float = 1.0

    source = "Karras et al., arXiv 2206.00364, algorithms 1 and 2"
    schedule = "log"
    errors = (0.0003, 0.0083, 0.0099, 0.0102)

    def __post_init__(self) -> None:
        at_least(0, self, "sampling.options", "churn", "s_min", *(["s_max"] if self.s_max != math.inf else []))
        positive(self, "sampling.options", "s_noise")

    def evaluations(self, steps: int) -> int:
        return 2 * steps - 1

    def run(self, eps: Eps, y: Tensor, grid: Grid, noise: Noise, watch: Watch) -> Tensor:
        _, top = grid.process.at_top()
        gamma = min(self.churn / (len(grid.ratios) - 1), math.sqrt(2) - 1)
        for step, (level, then) in enumerate(itertools.pairwise(grid.ratios)):
            now = level
            if self.s_min <= level <= self.s_max:
                now = max(level, min(level * (1 + gamma), top))
            if now > level:
                y = y + self.s_noise * math.sqrt(now**2 - level**2) * noise()
            slope = eps(y, now)
            watch(State(step, now, y, y - now * slope))
            guess = y + (then - now) * slope
            y = guess if then == 0 else y + (then - now) * 0.5 * (slope + eps(guess, then))
        return y


@SAMPLERS.register("pf-ode")
@dataclass(frozen=True)
class ProbabilityFlow(Sampler):
    """The classical Runge-Kutta step in ln rho on z = y / sqrt(1 + rho^2); then a denoising step.

    Example:
        >>> base.sample(2, ProbabilityFlow(), steps=5).shape
        torch.Size([2, 1, 8, 8])
    """

    source = "Song et al., arXiv 2011.13456, section 4.3"
    schedule = "log"
    errors = (-0.0099, -0.0020, -0.0004, -0.0001)

    def evaluations(self, steps: int) -> int:
        return 4 * (steps - 1) + 1

    def run(self, eps: Eps, y: Tensor, grid: Grid, noise: Noise, watch: Watch) -> Tensor:
        def slope(z: Tensor, ratio: float) -> Tensor:
            return flow(eps(math.hypot(1, ratio) * z, ratio), z, ratio)

        for step, (now, then) in enumerate(itertools.pairwise(grid.ratios)):
            first = eps(y, now)
            watch(State(step, now, y, y - now * first))
            if then == 0:
                return y - now * first
            z = y / math.hypot(1, now)
            width, middle = math.log(then / now), math.sqrt(now * then)
            k1 = flow(first, z, now)
            k2 = slope(z + 0.5 * width * k1, middle)
            k3 = slope(z + 0.5 * width * k2, middle)
            k4 = slope(z + width * k3, then)
            y = math.hypot(1, then) * (z + (width / 6) * (k1 + 2 * k2 + 2 * k3 + k4))
        return y


@SAMPLERS.register("pf-ode-adaptive")
@dataclass(frozen=True)
class AdaptiveProbabilityFlow(Sampler):
    """Dormand and Prince's adaptive steps in ln rho on z = y / sqrt(1 + rho^2); then a denoising step.

    Every item takes steps of its own (``msgm.diffusion.adaptive``), so that it does not depend on its batch mates
    beyond the tolerance. Of the grid only its ends are read: ``steps`` has no effect. Items stand at different levels
    on the way, so that ``watch`` is called at the denoising step alone.

    Example:
        >>> base.sample(2, AdaptiveProbabilityFlow(rtol=0.01, atol=0.01), steps=5).shape
        torch.Size([2, 1, 8, 8])

    Attributes:
        rtol: relative tolerance of a step's error.
        atol: absolute tolerance, in units of z; the defaults are score_sde's.
    """

    rtol: float = 1e-5
    atol: float = 1e-5

    source = "Song et al., arXiv 2011.13456, section 4.3 and appendix D.4"
    schedule = "log"

    def __post_init__(self) -> None:
        positive(self, "sampling.options", "rtol", "atol")

    def evaluations(self, steps: int) -> None:
        return None

    def run(self, eps: Eps, y: Tensor, grid: Grid, noise: Noise, watch: Watch) -> Tensor:
        def slope(state: tuple[Tensor, ...], levels: Tensor, items: Tensor) -> tuple[Tensor, ...]:
            (z,) = state
            ratio = levels.exp()
            wide = per_item(ratio, z)
            found = eps((torch.hypot(torch.ones_like(wide), wide) * z).to(y), ratio, items)
            return (flow(found.to(z), z, wide),)

        levels = [ratio for ratio in grid.ratios if ratio > 0]
        first, last = levels[0], levels[-1]
        if last != first:
            start = (precise(y) / math.hypot(1, first),)
            (z,), _ = dormand_prince(slope, start, math.log(first), math.log(last), self.rtol, self.atol)
            y = (math.hypot(1, last) * z).to(y)
        if grid.ratios[-1] > 0:
            return y
        denoised = y - last * eps(y, last)
        watch(State(len(levels) - 1, last, y, denoised))
        return denoised
