"""Samplers in sigma-space, one family a file; each registers itself."""

from msgm.diffusion.samplers import dpm_solver, ode, sde  # noqa: F401 - they register themselves
from msgm.diffusion.samplers.base import SAMPLERS, Noise, Sampler, State
from msgm.diffusion.samplers.sampling import SamplingSettings, sample, solve
from msgm.diffusion.samplers.space import Eps, Grid, flow, ratio_grid, sigma_space

__all__ = [
    "SAMPLERS",
    "Eps",
    "Grid",
    "Noise",
    "Sampler",
    "SamplingSettings",
    "State",
    "flow",
    "ratio_grid",
    "sample",
    "sigma_space",
    "solve",
]
