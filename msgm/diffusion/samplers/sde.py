r"""Samplers of the reverse SDE, one network evaluation a step.

From level i with rho to level i - 1 with rho' (the levels of ``Grid`` run the other way), with r = a_i / a_{i-1},
which is sqrt(1 - beta_i) for VP and DDPM and 1 for VE, the forward process is

    x_i = r x_{i-1} + G z,   G^2 = sigma_i^2 - r^2 sigma_{i-1}^2 = a_i^2 (rho^2 - rho'^2),

so that no step asks which process it has. The last step, to level 0, is the denoised image D(y, rho).
"""

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from msgm.diffusion.samplers.base import SAMPLERS, OneStep
from msgm.diffusion.samplers.space import Grid
from msgm.errors import UserError


@SAMPLERS.register("euler-maruyama")
@dataclass(frozen=True)
class EulerMaruyama(OneStep):
    """Euler-Maruyama in x and t: x - (f x - g^2 score) dt + g sqrt(dt) z.

    Deviations from score_sde: dt is the grid's, not 1/N, and the step from the last level to 0 is the denoised image,
    not the mean of one more step.

    Example:
        >>> base.sample(2, EulerMaruyama(), steps=5).shape
        torch.Size([2, 1, 8, 8])
    """

    source = "Song et al., arXiv 2011.13456, section 4.1"
    schedule = "time"
    errors = (0.367, 0.065, 0.033, 0.029)

    def of_reverse_sde(self) -> bool:
        return True

    def step(self, y: Tensor, slope: Tensor, grid: Grid, i: int) -> tuple[Tensor, float]:
        t = torch.tensor(grid.times[i], dtype=torch.float64)
        drift, variance = float(grid.process.drift(t)), float(grid.process.diffusion(t)) ** 2
        width = grid.times[i] - grid.times[i + 1]
        now, then = grid.signals[i : i + 2]
        # score = -eps / sigma, and sigma = a rho.
        mean = (now * (1 - drift * width) * y - (variance * width / (now * grid.ratios[i])) * slope) / then
        return mean, math.sqrt(variance * width) / then


@SAMPLERS.register("reverse-diffusion")
@dataclass(frozen=True)
class ReverseDiffusion(OneStep):
    """The reverse SDE, discretised as the forward process is: x' = (2 - r) x + G^2 score + G z.

    For VP and DDPM this is score_sde's (2 - sqrt(1 - beta_i)) x + beta_i score, for VE its sigma_i^2 - sigma_{i-1}^2.
    Deviations: r and G are those of the grid's own levels, whatever their number; sub-VP, where score_sde falls back on
    Euler-Maruyama, takes the same formula; the last step is the denoised image.

    Example:
        >>> base.sample(2, ReverseDiffusion(), steps=5).shape
        torch.Size([2, 1, 8, 8])
    """

    source = "Song et al., arXiv 2011.13456, appendix E"
    schedule = "time"
    errors = (0.676, 0.272, 0.127, 0.059)

    def of_reverse_sde(self) -> bool:
        return True

    def step(self, y: Tensor, slope: Tensor, grid: Grid, i: int) -> tuple[Tensor, float]:
        now, then = grid.ratios[i : i + 2]
        r, drop = grid.signals[i] / grid.signals[i + 1], now**2 - then**2
        return r * ((2 - r) * y - (drop / now) * slope), r * math.sqrt(drop)


@SAMPLERS.register("ancestral")
@dataclass(frozen=True)
class Ancestral(OneStep):
    """q(x_{i-1} | x_i, x_0) at the denoised x_0: y - ((rho^2 - rho'^2) / rho) eps + (rho' G / sigma) z.

    One formula for VE (SMLD), VP and DDPM. Deviations: score_sde's VP has variance beta_i (DDPM's "fixed large"), this
    one the posterior's ("fixed small") as its VE has; no clipping of the denoised image.

    Example:
        >>> base.sample(2, Ancestral(), steps=5).shape
        torch.Size([2, 1, 8, 8])
    """

    source = "Ho et al., arXiv 2006.11239, eq. 7; Song et al., arXiv 2011.13456, appendix F"
    schedule = "time"
    errors = (-0.536, -0.348, -0.214, -0.145)

    def of_reverse_sde(self) -> bool:
        return True

    def step(self, y: Tensor, slope: Tensor, grid: Grid, i: int) -> tuple[Tensor, float]:
        now, then = grid.ratios[i : i + 2]
        drop = now**2 - then**2
        return y - (drop / now) * slope, then * math.sqrt(drop) / now


@SAMPLERS.register("ddim")
@dataclass(frozen=True)
class DDIM(OneStep):
    """D + sqrt(rho'^2 - s^2) eps + s z with s = eta times ancestral's width; Euler's PF-ODE step in rho at eta 0.

    Example:
        >>> base.sample(2, DDIM(eta=0.5), steps=5).shape
        torch.Size([2, 1, 8, 8])

    Attributes:
        eta: 0 is deterministic, 1 is ``ancestral``.
    """

    eta: float = 0.0

    source = "Song et al., arXiv 2010.02502, eq. 12 and 16"
    schedule = "time"
    errors = (-0.392, -0.208, -0.109, -0.072)

    def __post_init__(self) -> None:
        if not 0 <= self.eta <= 1:
            raise UserError(f"sampling.options.eta must lie in [0, 1], got {self.eta}.")

    def of_reverse_sde(self) -> bool:
        return self.eta == 1

    def step(self, y: Tensor, slope: Tensor, grid: Grid, i: int) -> tuple[Tensor, float]:
        now, then = grid.ratios[i : i + 2]
        std = self.eta * then * math.sqrt(now**2 - then**2) / now
        return y + (math.sqrt(then**2 - std**2) - now) * slope, std
