"""Samplers in sigma-space, one family a file; importing a file registers its samplers."""

from msgm.diffusion.samplers.base import SAMPLERS, Noise, OneStep, Sampler, State, Watch
from msgm.diffusion.samplers.brownian import TorchSDE
from msgm.diffusion.samplers.corrector import PredictorCorrector
from msgm.diffusion.samplers.dpm_solver import DPMSolver2M, DPMSolver2MSDE, DPMSolver3MSDE
from msgm.diffusion.samplers.ode import AdaptiveProbabilityFlow, Heun, ProbabilityFlow
from msgm.diffusion.samplers.sampling import Callback, SamplingSettings, sample, solve
from msgm.diffusion.samplers.sde import DDIM, Ancestral, EulerMaruyama, ReverseDiffusion
from msgm.diffusion.samplers.space import Eps, Grid, flow, ratio_grid, sigma_space

__all__ = [
    "DDIM",
    "SAMPLERS",
    "AdaptiveProbabilityFlow",
    "Ancestral",
    "Callback",
    "DPMSolver2M",
    "DPMSolver2MSDE",
    "DPMSolver3MSDE",
    "Eps",
    "EulerMaruyama",
    "Grid",
    "Heun",
    "Noise",
    "OneStep",
    "PredictorCorrector",
    "ProbabilityFlow",
    "ReverseDiffusion",
    "Sampler",
    "SamplingSettings",
    "State",
    "TorchSDE",
    "Watch",
    "flow",
    "ratio_grid",
    "sample",
    "sigma_space",
    "solve",
]
