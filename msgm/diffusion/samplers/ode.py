"""Samplers of the probability-flow ODE on a fixed grid."""

import itertools
import math
from dataclasses import dataclass

from torch import Tensor

from msgm.diffusion.samplers.base import SAMPLERS, Noise, Sampler, State, Watch
from msgm.diffusion.samplers.space import Eps, Grid, flow


@SAMPLERS.register("heun")
@dataclass(frozen=True)
class Heun(Sampler):
    """Heun's second-order step in rho; the step to 0 is Euler's."""

    source = "Karras et al., arXiv 2206.00364, algorithm 1"
    schedule = "karras"

    def evaluations(self, steps: int) -> int:
        return 2 * steps - 1

    def run(self, eps: Eps, y: Tensor, grid: Grid, noise: Noise, watch: Watch) -> Tensor:
        for step, (now, then) in enumerate(itertools.pairwise(grid.ratios)):
            slope = eps(y, now)
            watch(State(step, now, y, y - now * slope))
            guess = y + (then - now) * slope
            y = guess if then == 0 else y + (then - now) * 0.5 * (slope + eps(guess, then))
        return y


@SAMPLERS.register("pf-ode")
@dataclass(frozen=True)
class ProbabilityFlow(Sampler):
    """The classical Runge-Kutta step in ln rho on z = y / sqrt(1 + rho^2); then a denoising step."""

    source = "Song et al., arXiv 2011.13456, section 4.3"
    schedule = "log"

    def evaluations(self, steps: int) -> int:
        return 4 * (steps - 1) + 1

    def run(self, eps: Eps, y: Tensor, grid: Grid, noise: Noise, watch: Watch) -> Tensor:
        def slope(z: Tensor, ratio: float) -> Tensor:
            return flow(eps(math.hypot(1, ratio) * z, ratio), z, ratio)

        for step, (now, then) in enumerate(itertools.pairwise(grid.ratios)):
            if then == 0:
                denoised = y - now * eps(y, now)
                watch(State(step, now, y, denoised))
                return denoised
            z = y / math.hypot(1, now)
            width, middle = math.log(then / now), math.sqrt(now * then)
            first = eps(y, now)
            watch(State(step, now, y, y - now * first))
            k1 = flow(first, z, now)
            k2 = slope(z + 0.5 * width * k1, middle)
            k3 = slope(z + 0.5 * width * k2, middle)
            k4 = slope(z + width * k3, then)
            y = math.hypot(1, then) * (z + (width / 6) * (k1 + 2 * k2 + 2 * k3 + k4))
        return y
