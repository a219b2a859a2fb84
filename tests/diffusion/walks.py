"""Walks of single samplers on exact models, in float64."""

import pytest
import torch

from msgm.diffusion import SAMPLERS, VE
from msgm.diffusion.samplers import Grid, Noise, ratio_grid
from tests.helpers import PROCESS_CASES, Mixture

CASES = pytest.mark.parametrize("process", PROCESS_CASES.values(), ids=PROCESS_CASES)


def two_bumps(process):
    return Mixture(process, [[-1.0, 0.5], [1.0, 0.2]], [0.4, 0.3], [1.0, 2.0])


class Repeated(Mixture):
    """One item is ``count`` independent draws, so that thousands of them cost one stream of noise."""

    def __init__(self, process, model, count):
        super().__init__(process, model.means, model.stds, model.weights)
        self.shape = (count, *model.shape)

    def coefficients(self, t):
        return [each.repeat_interleave(self.shape[0], 0) for each in super().coefficients(t)]

    def eps(self, x, t, condition=None):
        return super().eps(x.flatten(0, 1), t).view_as(x)


def exact_eps(model):
    """The model's eps in sigma-space, in float64 throughout."""
    space = Mixture(VE(), model.means, model.stds, model.weights)

    def eps(y, ratio, rows=None):
        ratios = torch.as_tensor(ratio, dtype=torch.float64).reshape(-1).expand(len(y))
        return space.eps(y, VE().time(ratios))

    return eps


def grid_of(process, steps, schedule):
    return Grid(process, [*ratio_grid(process, steps, schedule), 0.0])


def scale(process):
    """Std of y at the top."""
    return process.prior_std / process.at_top()[0]


def start_noise(process, count):
    g = torch.Generator().manual_seed(0)
    return scale(process) * torch.randn(count, 2, generator=g, dtype=torch.float64)


def run(name, eps, start, process, ratios, noise=None, watch=lambda state: None, seed=0, **options):
    noise = noise or Noise(seed, range(len(start)), start.shape[1:], start.device)
    return SAMPLERS.build({"name": name, **options}).run(eps, start, Grid(process, ratios), noise, watch)


def solve(name, process, steps, start, **options):
    """From the top to data of ``two_bumps``, on the sampler's own grid."""
    ratios = grid_of(process, steps, SAMPLERS.entries[name].schedule).ratios
    return run(name, exact_eps(two_bumps(process)), start, process, ratios, **options)
