"""Samplers in sigma-space, one family a file. Every file here is imported, so that its samplers register themselves."""

import importlib
import pkgutil

from msgm.diffusion.samplers.base import SAMPLERS, Noise, OneStep, Sampler, State, Watch
from msgm.diffusion.samplers.sampling import Callback, SamplingSettings, sample, solve
from msgm.diffusion.samplers.space import Eps, Grid, flow, ratio_grid, sigma_space

for _file in pkgutil.iter_modules(__path__):
    importlib.import_module(f"{__name__}.{_file.name}")

__all__ = [
    "SAMPLERS",
    "Callback",
    "Eps",
    "Grid",
    "Noise",
    "OneStep",
    "Sampler",
    "SamplingSettings",
    "State",
    "Watch",
    "flow",
    "ratio_grid",
    "sample",
    "sigma_space",
    "solve",
]
