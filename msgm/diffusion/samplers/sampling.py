"""Settings of sampling, and drawing samples."""

import functools
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, fields
from typing import Any

import torch
from torch import Tensor

from msgm.checks import at_least
from msgm.diffusion.conditions import Asked, Condition
from msgm.diffusion.model import ScoreModel
from msgm.diffusion.processes import Process
from msgm.diffusion.samplers.base import SAMPLERS, Noise, Sampler, State
from msgm.diffusion.samplers.space import EVEN_IN, Grid, Schedule, ratio_grid, sigma_space
from msgm.errors import UserError, nearest
from msgm.fields import Settings, own
from msgm.processes import spread

Callback = Callable[[range, State], None]
TWICE = (
    "sampling.guidance: these samples have classifier-free guidance already, and it is never applied twice; leave "
    "sampling.guidance at 1."
)
REDRAWS = 100
"""Draws of a sample at most, where a guidance rejects some."""


@dataclass
class SamplingSettings:
    """How to sample.

    The default lies within noise of 1000 steps on the digits, VP, VE and DDPM (scripts/bench/samplers.py); from 40
    steps down its junk rises, from 50 up nothing falls. Samplers of the PF-ODE make three times as much junk there at
    any number of steps: noise drawn on the way corrects the network's errors, which accumulate along an ODE.

    Example:
        >>> settings = msgm.diffusion.SamplingSettings(sampler="dpm++2m", steps=5)
        >>> msgm.sample(base, 4, settings, seed=1).shape
        torch.Size([4, 1, 8, 8])

    Attributes:
        sampler: a name in ``SAMPLERS``.
        steps: grid steps; the number of network evaluations depends on the sampler.
        schedule: spacing of the grid: even in t (``time``), in ln rho (``log``) or in rho^(1/7) (``karras``); None
            takes the one that suits the sampler.
        batch_size: samples made at a time; it does not change them.
        options: the sampler's own settings.
        guidance: scale of classifier-free guidance (``msgm.diffusion.guidance``) towards what samples are asked for; 1
            guides nothing. It changes nothing of samples that are asked for nothing.
    """

    sampler: str = "dpm++2m-sde"
    steps: int = 50
    schedule: Schedule | None = None
    batch_size: int = 500
    options: Settings = field(default_factory=dict)
    guidance: float = 1.0

    def __post_init__(self) -> None:
        if self.sampler not in SAMPLERS.entries:
            known = sorted(SAMPLERS.entries)
            hint = nearest(self.sampler, known)
            raise UserError(f"sampling.sampler: unknown sampler {self.sampler!r}; known: {', '.join(known)}.{hint}")
        at_least(2, self, "sampling", "steps")
        at_least(1, self, "sampling", "batch_size")
        if not math.isfinite(self.guidance):
            raise UserError(f"sampling.guidance must be finite, got {self.guidance}.")
        self._refuse_unknown_options()
        self.options = own(self.build(), self.options)

    def _refuse_unknown_options(self) -> None:
        known = [f.name for f in fields(SAMPLERS.entries[self.sampler])]  # type: ignore[arg-type]
        for key in self.options:
            if key not in known:
                raise UserError(
                    f"sampling.options.{key}: sampler {self.sampler!r} has no such option; "
                    f"known: {', '.join(known) or 'none'}.{nearest(str(key), known)}"
                )

    @classmethod
    def of(
        cls,
        sampler: str | Sampler,
        steps: int = 50,
        schedule: Schedule | None = None,
        batch_size: int = 500,
        guidance: float = 1.0,
        **options: Any,
    ) -> "SamplingSettings":
        """Return settings with a sampler by name and its options, or with a sampler object, which has its own.

        Raises:
            UserError: both an object and options, or a value that the settings refuse.
        """
        if not isinstance(sampler, Sampler):
            return cls(sampler, steps, schedule, batch_size, options, guidance)
        if options:
            raise UserError(
                f"sample: {', '.join(options)}: give the sampler's options to {type(sampler).__name__} itself."
            )
        own = {f.name: getattr(sampler, f.name) for f in fields(sampler)}  # type: ignore[arg-type]
        return cls(sampler.name, steps, schedule, batch_size, own, guidance)

    def build(self) -> Sampler:
        """Return the sampler with its options."""
        return SAMPLERS.build({"name": self.sampler, **self.options})

    def guided(self, model: ScoreModel, condition: Condition | None) -> ScoreModel:
        """Return the view of a model that samples asked for a condition are drawn from: guided, if it is to be.

        Raises:
            UserError: the model cannot be sampled so, or is a view with classifier-free guidance of its own.
        """
        model.check_sampler(self.build())
        if self.guidance == 1 or condition is None:
            return model
        from msgm.diffusion.guidance import ClassifierFree, views  # of models, which the samplers lie below

        if any(isinstance(view.guidance, ClassifierFree) for view in views(model)):
            raise UserError(TWICE)
        return ClassifierFree(self.guidance).wrap(model)

    @property
    def spacing(self) -> Schedule:
        """Spacing of the grid."""
        return self.schedule or self.build().schedule

    @property
    def evaluations(self) -> int | None:
        """Network evaluations a sample; None when the sampler adapts them."""
        return self.build().evaluations(self.steps)

    def describe(self, process: Process | None = None) -> str:
        """Return the protocol in a few words, with ``process`` also where walks start."""
        options = "".join(f", {key} {value}" for key, value in self.options.items())
        count = "adaptive" if self.evaluations is None else f"{self.evaluations} network evaluations"
        even = "" if self.evaluations is None else f", grid even in {EVEN_IN[self.spacing]}"
        top = f"; {process.describe_top()}" if process else ""
        return f"{self.sampler}{options}, {count}{even}{self.describe_guidance()}{top}"

    def describe_guidance(self) -> str:
        """Return a phrase on classifier-free guidance, to follow others; empty where there is none."""
        return "" if self.guidance == 1 else f", classifier-free guidance of scale {self.guidance:g} where asked"


@torch.no_grad()
def sample(
    model: ScoreModel,
    count: int,
    settings: SamplingSettings | None = None,
    seed: int = 0,
    first: int = 0,
    callback: Callback | None = None,
    condition: Asked = None,
) -> Tensor:
    """Draw samples ``first`` .. ``first + count`` of the endless sequence that ``seed`` names.

    Example:
        >>> settings = msgm.diffusion.SamplingSettings(steps=3)
        >>> images = msgm.sample(base, 4, settings, seed=1)
        >>> torch.allclose(msgm.sample(base, 2, settings, seed=1, first=2), images[2:], atol=1e-5)
        True

    Args:
        model: the model; its network is used in evaluation mode.
        count: number of samples.
        settings: sampler, steps and batch size.
        seed: names the sequence.
        first: index of the first sample.
        callback: called with the samples' numbers and the ``State`` once a step.
        condition: what is asked for: a label for all samples, a label for each, or a ``Condition``.

    Returns:
        (count, *shape) float32 on the CPU; images lie in [-1, 1] but for sampling error.

    Raises:
        UserError: a condition that the model does not read.
    """
    asked = model.asked(condition, count)
    chosen = settings or SamplingSettings()
    size, end = chosen.batch_size, first + count

    def walked(numbers: Sequence[int], purpose: str, watch: Callable[[State], None] | None = None) -> Tensor:
        noise = Noise(seed, numbers, model.shape, model.device, purpose)
        own = None if asked is None else asked[[number - first for number in numbers]]
        x = model.process.prior_std * noise()
        return solve(model, x, model.process.top, chosen, noise, watch, own).cpu()

    def drawn(numbers: range) -> Tensor:
        found = walked(numbers, "sample", functools.partial(callback, numbers) if callback else None)
        for attempt in range(1, REDRAWS):
            kept = model.accepts(found)
            if kept is None or kept.all():
                break
            again = (~kept).nonzero()[:, 0].tolist()
            found[again] = walked([numbers[place] for place in again], f"sample/{attempt}")
        return found

    return torch.cat(spread([range(begin, min(begin + size, end)) for begin in range(first, end, size)], drawn))


@torch.no_grad()
def solve(
    model: ScoreModel,
    x: Tensor,
    t: float,
    settings: SamplingSettings,
    noise: Noise,
    watch: Callable[[State], None] | None = None,
    condition: Condition | None = None,
) -> Tensor:
    """Run the sampler of ``settings`` from x_t at time t down to data, on a grid of ``settings.steps`` levels below t.

    Example:
        >>> from msgm.diffusion.samplers import Noise
        >>> settings, noise = msgm.diffusion.SamplingSettings(steps=3), Noise(1, range(2), (1, 8, 8), base.device)
        >>> solve(base, torch.randn(2, 1, 8, 8), 0.5, settings, noise).shape
        torch.Size([2, 1, 8, 8])

    Args:
        model: the model; its network is used in evaluation mode.
        x: (B, *shape) at time t, on the model's device.
        t: in (t_sample, top].
        settings: sampler and steps; its batch size is not read.
        noise: fresh noise shaped like x.
        watch: called with the ``State`` once a step.
        condition: of every item, on the model's device.

    Returns:
        (B, *shape) float32 on the model's device.
    """
    sampler = settings.build()
    ratios = ratio_grid(model.process, settings.steps, settings.spacing, t_start=t)
    signal = float(model.process.signal(torch.tensor([t], dtype=torch.float64)))
    was_training = model.network.training
    model.network.eval()
    try:
        grid = Grid(model.process, [*ratios, 0.0])
        eps = sigma_space(settings.guided(model, condition), condition, noise.seeds)
        return sampler.run(eps, x / signal, grid, noise, watch or (lambda state: None))
    finally:
        model.network.train(was_training)
