r"""Sigma-space, in which every process is the same one, and the grids that samplers walk.

With ``y = x / a`` and ``rho = sigma / a`` the reverse-time equations of every process read

- probability-flow ODE:  dy = eps(y, rho) d rho
- reverse SDE:           dy = 2 eps(y, rho) d rho + sqrt(2 rho) dw  (rho running down)

and the denoised image is ``D(y, rho) = y - rho eps(y, rho)``.
"""

import functools
import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, Protocol

import torch
from torch import Tensor

from msgm.diffusion.conditions import Condition
from msgm.diffusion.model import ScoreModel, per_item
from msgm.diffusion.processes import Process

Schedule = Literal["time", "log", "karras"]
EVEN_IN: dict[Schedule, str] = {"time": "t", "log": "ln rho", "karras": "rho^(1/7)"}


class Eps(Protocol):
    """The predicted noise at y (B, *shape) and rho, one for all items or (B,).

    Example:
        >>> from msgm.diffusion.samplers import sigma_space
        >>> eps = sigma_space(base)
        >>> eps(torch.randn(2, 1, 8, 8), 0.5).shape
        torch.Size([2, 1, 8, 8])
    """

    def __call__(self, y: Tensor, ratio: "float | Tensor", rows: Tensor | None = None) -> Tensor:
        """Return eps(y, rho), shaped like y; ``rows`` are the items' places in the walk's batch, by default all."""


@dataclass(frozen=True)
class Grid:
    """The noise levels that a sampler visits.

    Example:
        >>> from msgm.diffusion.samplers import Grid, ratio_grid
        >>> grid = Grid(msgm.VP(), [*ratio_grid(msgm.VP(), 3, "time"), 0.0])
        >>> [f"{t:.4f}" for t in grid.times]
        ['1.0000', '0.5005', '0.0010', '0.0000']

    Attributes:
        process: whose levels they are, for the samplers that step in x and t.
        ratios: falling values of rho; when the last is 0, the last step is the denoising step.
    """

    process: Process
    ratios: Sequence[float]

    @functools.cached_property
    def times(self) -> list[float]:
        """Return the time of every level; 0 for level 0."""
        ratios = torch.tensor(self.ratios, dtype=torch.float64)
        floor = self.process.ratio(torch.zeros(1, dtype=torch.float64))
        return [float(t) for t in self.process.time(ratios.clamp_min(float(floor))).clamp(0, 1)]

    @functools.cached_property
    def signals(self) -> list[float]:
        """Return a(t) of every level."""
        return [float(a) for a in self.process.signal(torch.tensor(self.times, dtype=torch.float64))]


def ratio_grid(
    process: Process, steps: int, schedule: Schedule, t_end: float | None = None, t_start: float | None = None
) -> list[float]:
    """Return ``steps`` values of rho from ``t_start`` down to ``t_end``, as Python floats.

    Example:
        >>> from msgm.diffusion.samplers import ratio_grid
        >>> [round(ratio, 4) for ratio in ratio_grid(msgm.VE(), 3, "log")]
        [100.0, 1.4143, 0.02]

    Args:
        process: whose rho.
        steps: number of values, at least 2.
        schedule: even in t (``time``), in ln rho (``log``), or in rho^(1/7) (``karras``, arXiv 2206.00364, eq. 5).
        t_end: smallest time; by default the process's sampling limit.
        t_start: largest time; by default the process's top.
    """
    start = process.top if t_start is None else t_start
    end = process.t_sample if t_end is None else t_end
    if schedule == "time":
        times = torch.linspace(start, end, steps, dtype=torch.float64)
        return [float(r) for r in process.ratio(times)]
    high, low = (float(process.ratio(torch.tensor(t, dtype=torch.float64))) for t in (start, end))
    u = [i / (steps - 1) for i in range(steps)]
    if schedule == "log":
        return [high ** (1 - v) * low**v for v in u]
    return [(high ** (1 / 7) * (1 - v) + low ** (1 / 7) * v) ** 7 for v in u]


def sigma_space(model: ScoreModel, condition: Condition | None = None, seeds: Sequence[int] | None = None) -> Eps:
    """Return eps as a function of (y, rho) instead of (x, t), for one walk of a batch with its conditions.

    ``seeds`` name the trajectories of a walk that draws, as those of ``Noise`` do.

    Example:
        >>> from msgm.diffusion.samplers import sigma_space
        >>> y, ratio = torch.randn(2, 1, 8, 8), 0.5
        >>> denoised = y - ratio * sigma_space(base)(y, ratio)
    """
    walked = model.for_walk(seeds)

    def eps(y: Tensor, ratio: float | Tensor, rows: Tensor | None = None) -> Tensor:
        ratios = torch.as_tensor(ratio, dtype=torch.float64, device="cpu").reshape(-1)
        time = model.process.time(ratios).clamp(0, 1)
        signal = per_item(model.process.signal(time), y).to(y)
        t = time.to(device=y.device, dtype=torch.float32).expand(len(y))
        asked = condition if condition is None or rows is None else condition[rows]
        own = walked if rows is None else walked.for_rows(rows)
        return own.eps(signal * y, t, asked)

    return eps


def flow(eps: Tensor, z: Tensor, ratio: float | Tensor) -> Tensor:
    """Return dz / d ln rho of the PF-ODE, z = y / sqrt(1 + rho^2); z keeps the data's size where y grows with rho.

    ``ratio`` is one number, or a tensor that broadcasts over z.

    Example:
        >>> from msgm.diffusion.samplers import flow
        >>> z = torch.tensor([1.0, 2.0])
        >>> flow(z, z, 1.0)  # rho = 1: eps / sqrt(2) - z / 2
        tensor([0.2071, 0.4142])
    """
    scale = math.hypot(1, ratio) if isinstance(ratio, float) else torch.hypot(torch.ones_like(ratio), ratio)
    return (ratio / scale) * eps - (ratio / scale) ** 2 * z
