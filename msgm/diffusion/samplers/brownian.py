r"""The reverse SDE by torchsde, on a Brownian path that is the same at any number of steps.

With s = 1 - t the reverse SDE runs forwards,

    dx = (g(t)^2 score(x, t) - f(t) x) ds + g(t) dW(s),

and its noise is additive, so that Milstein's method is Euler's and a Runge-Kutta method of strong order 1.5 needs two
evaluations a step. Refining the grid converges to one path and not only in distribution.
"""

import itertools
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

import torch
from torch import Tensor

from msgm.diffusion.samplers.base import SAMPLERS, Noise, Sampler, State, Watch
from msgm.diffusion.samplers.space import Eps, Grid

RESOLUTION = 1e-6


@SAMPLERS.register("torchsde")
@dataclass(frozen=True)
class TorchSDE(Sampler):
    """A step of ``torchsde.sdeint`` in x and s = 1 - t from each level to the next, then a denoising step.

    A sample's Brownian path depends on its seed alone: other numbers of steps and the other method use the same path.
    Its tree costs some milliseconds a sample and step, which makes this the sampler to study convergence with, not a
    fast one.

    Example:
        >>> base.sample(2, TorchSDE(method="euler"), steps=5).shape
        torch.Size([2, 1, 8, 8])

    Attributes:
        method: ``euler`` (strong order 1; ``euler-maruyama`` on this path) or ``srk`` (strong order 1.5).
    """

    method: Literal["euler", "srk"] = "srk"

    source = "Li et al., arXiv 2001.01328 (torchsde); Rossler, SIAM J. Numer. Anal. 48 (2010), SRA1"
    schedule = "time"

    def evaluations(self, steps: int) -> int:
        return 2 * steps - 1 if self.method == "srk" else steps

    def run(self, eps: Eps, y: Tensor, grid: Grid, noise: Noise, watch: Watch) -> Tensor:
        import torchsde

        path = Paths(noise.seeds, y)
        for step, (now, then) in enumerate(itertools.pairwise(grid.ratios)):
            start = grid.signals[step] * y
            # In float64: a time of float32 may lie beyond the path's end.
            span = 1 - torch.tensor(grid.times[step : step + 2], dtype=torch.float64)
            sde = Reverse(eps, grid, y.shape)
            flat = start.flatten(1)
            slope = sde.eps(span[0], flat).view_as(y)
            watch(State(step, now, y, y - now * slope))
            if then == 0:
                return y - now * slope
            with torch.random.fork_rng(devices=[y.device] if y.is_cuda else []):  # sdeint tries g_prod on random input
                ends = torchsde.sdeint(sde, flat, span, bm=path, method=self.method, dt=float(span[1] - span[0]))
            y = ends[-1].view_as(y) / grid.signals[step + 1]
        return y


class Reverse:
    """The reverse SDE as torchsde reads it, on items flattened to (B, D)."""

    noise_type, sde_type = "additive", "ito"

    def __init__(self, predict: Eps, grid: Grid, shape: Sequence[int]) -> None:
        self.predict, self.process, self.shape = predict, grid.process, shape
        self._last: tuple[float, Tensor, Tensor] | None = None

    def eps(self, s: Tensor, x: Tensor) -> Tensor:
        """Return eps at x (B, D); the last result is cached, as torchsde evaluates each point twice in a row."""
        if self._last is None or self._last[0] != float(s) or self._last[1] is not x:
            t = 1 - s
            y = (x / self.process.signal(t).to(x)).view(self.shape)
            self._last = (float(s), x, self.predict(y, float(self.process.ratio(t))).flatten(1))
        return self._last[2]

    def f(self, s: Tensor, x: Tensor) -> Tensor:
        """Return the drift."""
        t = 1 - s
        pull = float(self.process.diffusion(t) ** 2 / self.process.noise(t))
        return -pull * self.eps(s, x) - float(self.process.drift(t)) * x

    def g_prod(self, s: Tensor, x: Tensor, v: Tensor) -> Tensor:
        """Return the diffusion times v."""
        return float(self.process.diffusion(1 - s)) * v


class Paths:
    """A Brownian path on [0, 1] for every item, as torchsde asks for one of the batch; ``RESOLUTION`` in time."""

    # Asked for by srk alone, but a path without it is another one.
    levy_area_approximation = "space-time"

    def __init__(self, seeds: Sequence[int], y: Tensor) -> None:
        from torchsde import BrownianInterval

        self.shape, self._like = y.flatten(1).shape, y
        # halfway_tree: else the path depends on the times at which it is asked for.
        self._paths = [
            BrownianInterval(
                size=(1, self.shape[1]),
                dtype=torch.promote_types(y.dtype, torch.float32),
                device="cpu",
                entropy=seed,
                tol=RESOLUTION,
                halfway_tree=True,
                levy_area_approximation=self.levy_area_approximation,
            )
            for seed in seeds
        ]

    def __call__(self, ta: Tensor, tb: Tensor, return_U: bool = False) -> Any:
        """Return the increments (B, D) from ta to tb, and with ``return_U`` their integrals too."""
        found = [path(float(ta), float(tb), return_U=return_U) for path in self._paths]
        if not return_U:
            return torch.cat(found).to(self._like)
        return tuple(torch.cat(parts).to(self._like) for parts in zip(*found, strict=True))
