"""What a sampler is: a walk down a grid of noise levels in sigma-space (``space``).

Noise comes from one CPU generator a sample, seeded by (seed, index): a sample depends on neither the batch size, nor
the number of processes, nor the device, beyond rounding.
"""

from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from msgm.diffusion.samplers.space import Eps, Grid, Schedule
from msgm.registry import Registry
from msgm.seeding import derive_seed


class Noise:
    """Fresh N(0, 1) noise, each sample from its own stream.

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
        """Return (len(numbers), *shape) that was not drawn before."""
        return torch.stack([torch.randn(self.shape, generator=stream) for stream in self._streams]).to(self.device)


@dataclass(frozen=True)
class State:
    """Where a walk stands after a network evaluation.

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
    """A way down the grid. Subclasses are dataclasses whose fields are its options.

    Attributes:
        source: paper and equation.
        schedule: the spacing of the grid that suits it.
    """

    name: ClassVar[str]
    source: ClassVar[str]
    schedule: ClassVar[Schedule]

    @abstractmethod
    def evaluations(self, steps: int) -> int | None:
        """Return the network evaluations on a grid of ``steps`` levels and 0; None when the sampler adapts them."""

    @abstractmethod
    def run(self, eps: Eps, y: Tensor, grid: Grid, noise: Noise, watch: Watch) -> Tensor:
        """Walk y (B, *shape) from the grid's first level to its last, calling ``watch`` once a step."""


SAMPLERS: Registry[Sampler] = Registry("sampling.options")
