r"""DPM-Solver++: exponential integrators in lambda = -ln rho for the denoised image.

Over a step of width h = ln(rho / rho'), with k = 1 for the PF-ODE and k = 2 for the reverse SDE,

    y' = exp(-k h) y + int_0^h k exp(-k (h - u)) D(lambda + u) du  [+ rho' sqrt(1 - exp(-2 h)) z  for k = 2].

D is extrapolated from the last levels; the first step knows one level, and the last one, to level 0, is D itself.
"""

import itertools
import math
from abc import abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

from torch import Tensor

from msgm.diffusion.samplers.base import SAMPLERS, Noise, Sampler, State, Watch
from msgm.diffusion.samplers.space import Eps, Grid

Known = tuple[float, Tensor]


class Multistep(Sampler):
    """Base of the family.

    Attributes:
        rate: the module's k.
        order: levels that a step looks at.
    """

    rate: ClassVar[int]
    order: ClassVar[int]

    def evaluations(self, steps: int) -> int:
        return steps

    def of_reverse_sde(self) -> bool:
        return self.rate == 2

    @abstractmethod
    def integral(self, h: float, known: Sequence[Known]) -> Tensor:
        """Return the module's integral. ``known`` holds (lambda, D) of the last levels, the newest first."""

    def run(self, eps: Eps, y: Tensor, grid: Grid, noise: Noise, watch: Watch) -> Tensor:
        known: list[Known] = []
        for step, (now, then) in enumerate(itertools.pairwise(grid.ratios)):
            denoised = y - now * eps(y, now)
            watch(State(step, now, y, denoised))
            if then == 0:
                return denoised
            h = math.log(now / then)
            known = [(-math.log(now), denoised), *known][: self.order]
            y = math.exp(-self.rate * h) * y + self.integral(h, known)
            if self.rate == 2:
                y = y + then * math.sqrt(-math.expm1(-2 * h)) * noise()
        return y


class _Midpoint(Multistep):
    """Takes D in the middle of the step for all of it."""

    order = 2

    def integral(self, h: float, known: Sequence[Known]) -> Tensor:
        middle = known[0][1]
        if len(known) > 1:
            middle = middle + (h / 2) * _slope(*known)
        return -math.expm1(-self.rate * h) * middle


@SAMPLERS.register("dpm++2m")
@dataclass(frozen=True)
class DPMSolver2M(_Midpoint):
    """PF-ODE, DPM-Solver++(2M): second order from one evaluation a step, D extrapolated to the step's middle.

    Example:
        >>> base.sample(2, DPMSolver2M(), steps=5).shape
        torch.Size([2, 1, 8, 8])
    """

    source = "Lu et al., arXiv 2211.01095, algorithm 2"
    schedule = "log"
    errors = (-0.0055, 0.0028, 0.0044, 0.0047)
    rate = 1


@SAMPLERS.register("dpm++2m-sde")
@dataclass(frozen=True)
class DPMSolver2MSDE(_Midpoint):
    """Reverse SDE, SDE-DPM-Solver++(2M): exact for a constant D, which is extrapolated to the step's middle.

    Example:
        >>> base.sample(2, DPMSolver2MSDE(), steps=5).shape
        torch.Size([2, 1, 8, 8])
    """

    source = "Lu et al., arXiv 2211.01095, SDE-DPM-Solver++(2M)"
    schedule = "log"
    errors = (0.0013, 0.0104, 0.0122, 0.0126)
    rate = 2


@SAMPLERS.register("dpm++3m-sde")
@dataclass(frozen=True)
class DPMSolver3MSDE(Multistep):
    """Reverse SDE, DPM-Solver++(3M) SDE: the integral of the parabola through the last three D.

    Deviation: the second derivative enters in full, k-diffusion and diffusers take half of it.

    Example:
        >>> base.sample(2, DPMSolver3MSDE(), steps=5).shape
        torch.Size([2, 1, 8, 8])
    """

    source = "Lu et al., arXiv 2211.01095; Crowson, k-diffusion, sample_dpmpp_3m_sde"
    schedule = "log"
    errors = (-0.0041, 0.0032, 0.0047, 0.0050)
    rate = 2
    order = 3

    def integral(self, h: float, known: Sequence[Known]) -> Tensor:
        # Moments of the kernel: int_0^h k exp(-k (h - u)) u^n du.
        zeroth = -math.expm1(-self.rate * h)
        first = h - zeroth / self.rate
        second = h**2 - 2 * first / self.rate
        if len(known) == 1:
            return zeroth * known[0][1]
        slope = _slope(*known[:2])
        if len(known) == 2:
            return zeroth * known[0][1] + first * slope
        # Newton's form of the parabola: D + u (slope + gap bend) + u^2 bend.
        bend = (slope - _slope(*known[1:])) / (known[0][0] - known[2][0])
        gap = known[0][0] - known[1][0]
        return zeroth * known[0][1] + first * (slope + gap * bend) + second * bend


def _slope(newer: Known, older: Known) -> Tensor:
    """Return the divided difference dD / d lambda of two levels."""
    return (newer[1] - older[1]) / (newer[0] - older[0])
