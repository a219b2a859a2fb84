"""Samplers of the reverse SDE, one step a grid step."""

import itertools
import math
from dataclasses import dataclass

from torch import Tensor

from msgm.diffusion.samplers.base import SAMPLERS, Noise, Sampler, State, Watch
from msgm.diffusion.samplers.space import Eps, Grid


@SAMPLERS.register("euler-maruyama")
@dataclass(frozen=True)
class EulerMaruyama(Sampler):
    """Reverse SDE, one Euler-Maruyama step in tau = rho^2: y - (d tau / rho) eps + sqrt(d tau) z."""

    source = "Song et al., arXiv 2011.13456, appendix G"
    schedule = "time"

    def evaluations(self, steps: int) -> int:
        return steps

    def run(self, eps: Eps, y: Tensor, grid: Grid, noise: Noise, watch: Watch) -> Tensor:
        for step, (now, then) in enumerate(itertools.pairwise(grid.ratios)):
            slope = eps(y, now)
            watch(State(step, now, y, y - now * slope))
            drop = now**2 - then**2
            y = y - (drop / now) * slope
            if then > 0:
                y = y + math.sqrt(drop) * noise()
        return y
