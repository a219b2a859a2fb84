"""DPM-Solver++: exponential integrators in lambda = -ln rho for the denoised image."""

import itertools
import math
from dataclasses import dataclass

from torch import Tensor

from msgm.diffusion.samplers.base import SAMPLERS, Noise, Sampler, State, Watch
from msgm.diffusion.samplers.space import Eps, Grid


@SAMPLERS.register("dpm++2m")
@dataclass(frozen=True)
class DPMSolver2M(Sampler):
    """PF-ODE, DPM-Solver++(2M): second order from one evaluation a step."""

    source = "Lu et al., arXiv 2211.01095, algorithm 2"
    schedule = "karras"

    def evaluations(self, steps: int) -> int:
        return steps

    def run(self, eps: Eps, y: Tensor, grid: Grid, noise: Noise, watch: Watch) -> Tensor:
        previous: Tensor | None = None
        last_width = 0.0
        for step, (now, then) in enumerate(itertools.pairwise(grid.ratios)):
            denoised = y - now * eps(y, now)
            watch(State(step, now, y, denoised))
            if then == 0:
                return denoised
            width = math.log(now / then)
            direction = denoised
            if previous is not None:
                direction = denoised + (width / (2 * last_width)) * (denoised - previous)
            y = (then / now) * y - math.expm1(-width) * direction
            previous, last_width = denoised, width
        return y
