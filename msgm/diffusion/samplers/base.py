"""Base of samplers: a walk down a grid of noise levels in sigma-space (``space``).

Noise comes from one CPU generator a sample, seeded by (seed, index): a sample depends on neither the batch size, nor
the number of processes, nor the device, beyond rounding.
"""

import inspect
import re
from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from dataclasses import dataclass, fields
from typing import ClassVar

import torch
from torch import Tensor

from msgm.diffusion.samplers.space import EVEN_IN, Eps, Grid, Schedule
from msgm.registry import Registry
from msgm.seeding import derive_seed

VARIANCES = (0.01, 0.05, 0.25, 1.0)
MEASURED_STEPS = 50


class Noise:
    """Fresh N(0, 1) noise, each sample from its own stream.

    Example:
        >>> from msgm.diffusion.samplers import Noise
        >>> both, second = Noise(1, [4, 5], (3,), torch.device("cpu")), Noise(1, [5], (3,), torch.device("cpu"))
        >>> torch.equal(both()[1], second()[0])
        True

    Args:
        seed: names the sequence of samples.
        numbers: the samples' places in it.
        shape: of one sample.
        device: of what is returned; the streams are the CPU's.
        purpose: names the stream, so that different uses of the same numbers do not share their noise.
    """

    def __init__(
        self,
        seed: int,
        numbers: Sequence[int],
        shape: tuple[int, ...],
        device: torch.device,
        purpose: str = "sample",
    ) -> None:
        self.shape, self.device = shape, device
        self.seeds = [derive_seed(seed, purpose, number) for number in numbers]
        self._streams = [torch.Generator().manual_seed(s) for s in self.seeds]

    def __call__(self) -> Tensor:
        """Return the next (len(numbers), *shape) noise of the streams."""
        return torch.stack([torch.randn(self.shape, generator=stream) for stream in self._streams]).to(self.device)


@dataclass(frozen=True)
class State:
    """State of a walk after a network evaluation.

    Example:
        >>> seen = []
        >>> settings = msgm.diffusion.SamplingSettings(sampler="ddim", steps=3)
        >>> images = msgm.sample(base, 2, settings, callback=lambda numbers, state: seen.append(state))
        >>> [state.step for state in seen], seen[0].denoised.shape
        ([0, 1, 2], torch.Size([2, 1, 8, 8]))

    Attributes:
        step: number of the grid step, from 0.
        ratio: rho there.
        y: (B, *shape) the noised items, divided by a.
        denoised: (B, *shape) the denoised items D(y, rho).
    """

    step: int
    ratio: float
    y: Tensor
    denoised: Tensor


Watch = Callable[[State], None]


class Sampler(ABC):
    """Base of samplers. Subclasses are dataclasses whose fields are its options; their docstrings define a step.

    Example:
        >>> [cls().evaluations(50) for cls in (msgm.diffusion.samplers.DDIM, msgm.diffusion.samplers.Heun)]
        [50, 99]

    Attributes:
        source: paper and equation.
        schedule: the spacing of the grid that suits it.
        errors: its samples' variance over the true one, minus 1, on N(0, v) for the v of ``VARIANCES``, by the exact
            score of a linear DDPM on ``MEASURED_STEPS`` levels; None where noise and state are no linear functions.
    """

    name: ClassVar[str]
    source: ClassVar[str]
    schedule: ClassVar[Schedule]
    errors: ClassVar[tuple[float, ...] | None] = None

    @abstractmethod
    def evaluations(self, steps: int) -> int | None:
        """Return the network evaluations on a grid of ``steps`` levels and 0; None when the sampler adapts them."""

    def of_reverse_sde(self) -> bool:
        """Return whether a walk is a path of the reverse SDE, of which each level is evaluated once.

        From such a path the models of shards read who is responsible (``msgm.diffusion.shards``).
        """
        return False

    @abstractmethod
    def run(self, eps: Eps, y: Tensor, grid: Grid, noise: Noise, watch: Watch) -> Tensor:
        """Walk y (B, *shape) from the grid's first level to its last, calling ``watch`` once a step."""

    @classmethod
    def describe(cls, steps: int = 50) -> str:
        """Return the sampler's card as text: its step, source, cost on ``steps`` levels, grid and options."""
        count = cls().evaluations(steps)
        text = re.split(r"\n\n(?:Example|Attributes):", inspect.getdoc(cls) or "")[0].replace("``", "")
        step, *notes = (" ".join(paragraph.split()) for paragraph in text.split("\n\n"))
        lines = {
            "step": step,
            "notes": " ".join(notes) or "none",
            "source": cls.source,
            "network evaluations": "as many as it needs" if count is None else f"{count} at {steps} steps",
            "schedule": f"even in {EVEN_IN[cls.schedule]}",
            "measured": _measured(cls.errors),
            "options": ", ".join(f"{f.name}={f.default}" for f in fields(cls)) or "none",  # type: ignore[arg-type]
        }
        return "\n".join(f"{key}: {value}" for key, value in lines.items())


def _measured(errors: Sequence[float] | None) -> str:
    """Return a sampler's measured errors as a sentence."""
    if errors is None:
        return "no closed form"
    found = ", ".join(f"{error:+.2g} at v = {v:g}" for error, v in zip(errors, VARIANCES, strict=True))
    return f"variance of samples / true - 1 on N(0, v), exact score, linear DDPM, {MEASURED_STEPS} steps: {found}"


class OneStep(Sampler):
    """A sampler whose step is a Gaussian: its mean from one network evaluation, its width from the grid alone.

    Such a sampler can be the predictor of a predictor-corrector sampler.

    Example:
        >>> from dataclasses import dataclass
        >>> from msgm.diffusion.samplers import Grid, Noise, OneStep
        >>> @dataclass
        ... class Euler(OneStep):
        ...     "y <- y + (rho' - rho) eps."
        ...     name, source, schedule = "euler-example", "Euler", "karras"
        ...     def step(self, y, slope, grid, i):
        ...         return y + (grid.ratios[i + 1] - grid.ratios[i]) * slope, 0.0
        >>> noise, grid = Noise(0, range(2), (3,), torch.device("cpu")), Grid(msgm.VE(), [3.0, 1.0, 0.0])
        >>> Euler().run(lambda y, ratio: y, noise(), grid, noise, lambda state: None).shape
        torch.Size([2, 3])
    """

    @abstractmethod
    def step(self, y: Tensor, slope: Tensor, grid: Grid, i: int) -> tuple[Tensor, float]:
        """Return mean and std of y at level i + 1 > 0, given y at level i and ``slope`` = eps(y, rho_i)."""

    def advance(self, eps: Eps, y: Tensor, grid: Grid, i: int, noise: Noise, watch: Watch) -> Tensor:
        """Return y at the next level; level 0 is the denoised image."""
        now, then = grid.ratios[i : i + 2]
        slope = eps(y, now)
        denoised = y - now * slope
        watch(State(i, now, y, denoised))
        if then == 0:
            return denoised
        mean, std = self.step(y, slope, grid, i)
        return mean + std * noise() if std else mean

    def evaluations(self, steps: int) -> int:
        return steps

    def run(self, eps: Eps, y: Tensor, grid: Grid, noise: Noise, watch: Watch) -> Tensor:
        for i in range(len(grid.ratios) - 1):
            y = self.advance(eps, y, grid, i, noise, watch)
        return y


SAMPLERS: Registry[Sampler] = Registry("sampling.options")
