r"""Gaussian diffusion processes: VE, VP and sub-VP SDEs, discrete DDPM, and the path of flow matching.

Every process is a path ``x_t = a(t) x_0 + sigma(t) eps`` with eps ~ N(0, I), t in (0, 1], and solves the linear SDE
``dx = f(t) x dt + g(t) dw`` with ``f = d ln a / dt`` and ``g^2 = d sigma^2 / dt - 2 f sigma^2`` (Song et al.,
"Score-Based Generative Modeling through Stochastic Differential Equations", arXiv 2011.13456, section 3 and appendix
B).

Divided by a(t), all of them are the same process: ``x_t / a = x_0 + rho eps`` with ``rho = sigma / a``, a
variance-exploding path in "sigma-space". Solvers and likelihoods are written once in (x / a, rho) and never ask which
process they have.

With ``B(t) = int_0^t beta``:

========  ====================  ======================  ==================  =============
process   a                     sigma                   rho                 g^2
========  ====================  ======================  ==================  =============
VE        1                     s_min (s_max/s_min)^t   sigma               sigma^2 2 ln(s_max/s_min)
VP, DDPM  exp(-B/2)             sqrt(1 - exp(-B))       sqrt(exp(B) - 1)    beta
sub-VP    exp(-B/2)             1 - exp(-B)             2 sinh(B/2)         beta (1 - exp(-2B))
flow      1 - t                 t                       t / (1 - t)         2 t / (1 - t)
========  ====================  ======================  ==================  =============

**The top.** Every walk between noise and data (samplers, likelihoods, restoration) ends at ``top``, the largest time
with rho <= 200, and takes the prior N(0, prior_std^2 I) to hold there. Schedules that run on to (almost) no signal,
as DDPM's cosine schedule to rho = 20,291, one rescaled to zero terminal SNR or flow matching, spend half a grid's
steps at noise levels without information. At the top an item x differs from the prior by
KL = a^2 |x|^2 / (2 prior_std^2) nats.

The file is long because the five processes, each with an example that runs, are read side by side.
"""

import functools
import math
from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from msgm.diffusion.prediction import Prediction
from msgm.errors import UserError
from msgm.registry import Registry, plain

TOP_RATIO = 200.0
"""The largest rho at which a walk over a process with a falling signal starts or ends."""


class Process(ABC):
    """A Gaussian path from data (t = 0) to noise (t = 1). All functions map a tensor of times to one of that shape.

    Example:
        >>> process, t = msgm.VP(), torch.tensor([0.2, 0.8])
        >>> torch.allclose(process.ratio(t), process.noise(t) / process.signal(t))
        True
        >>> torch.allclose(process.time(process.ratio(t)), t)
        True

    Attributes:
        prediction: output of the networks that are made here for it.
        t_min: smallest time of training and likelihood (score_sde: 1e-5).
        t_sample: smallest time of sampling (score_sde: 1e-5 for VE, 1e-3 for the others).
    """

    name: ClassVar[str]
    prediction: ClassVar[Prediction] = "epsilon"
    t_min: float = 1e-5
    t_sample: float = 1e-3

    @abstractmethod
    def signal(self, t: Tensor) -> Tensor:
        """Return a(t)."""

    @abstractmethod
    def noise(self, t: Tensor) -> Tensor:
        """Return sigma(t)."""

    @abstractmethod
    def ratio(self, t: Tensor) -> Tensor:
        """Return rho(t) = sigma(t) / a(t), increasing in t."""

    @abstractmethod
    def time(self, ratio: Tensor) -> Tensor:
        """Return the t at which ``ratio(t)`` has the given value."""

    @abstractmethod
    def drift(self, t: Tensor) -> Tensor:
        """Return f(t) of the SDE's drift f(t) x."""

    @abstractmethod
    def diffusion(self, t: Tensor) -> Tensor:
        """Return g(t)."""

    @abstractmethod
    def label(self, t: Tensor) -> Tensor:
        """Return the time label that the network reads."""

    @property
    @abstractmethod
    def prior_std(self) -> float:
        """Standard deviation of the N(0, s^2 I) that x is drawn from at ``top``."""

    @property
    def top(self) -> float:
        """Time at which every walk between data and noise ends or starts."""
        return 1.0

    def at_top(self) -> tuple[float, float]:
        """Return a and rho at ``top``."""
        time = torch.tensor(self.top, dtype=torch.float64)
        return float(self.signal(time)), float(self.ratio(time))

    def describe_top(self) -> str:
        """Return a phrase on where walks start and how far the prior is from the noised data there."""
        signal, ratio = self.at_top()
        mismatch = 0.5 * (signal / self.prior_std) ** 2
        last = float(self.ratio(torch.ones((), dtype=torch.float64)))
        cut = "" if self.top == 1 else f", the largest level up to {TOP_RATIO:g} of a process that runs to {last:.4g}"
        return (
            f"walks start at sigma / a = {ratio:.4g}{cut}; the prior there is {mismatch:.1e} |x|^2 nats from the "
            "noised item x"
        )

    def input_scale(self, t: Tensor) -> Tensor:
        """Return the factor on x_t before the network reads it."""
        return torch.ones_like(t)

    def training_times(self, u: Tensor) -> Tensor:
        """Map uniform numbers in [0, 1) to training times."""
        return self.t_min + (1 - self.t_min) * u


class _BetaProcess(Process):
    """Base of VP, sub-VP and DDPM: a(t) = exp(-B(t) / 2)."""

    @abstractmethod
    def beta(self, t: Tensor) -> Tensor:
        """Return beta(t) = B'(t)."""

    @abstractmethod
    def integral(self, t: Tensor) -> Tensor:
        """Return B(t)."""

    @abstractmethod
    def time_of_integral(self, integral: Tensor) -> Tensor:
        """Return the t at which B(t) has the given value."""

    def signal(self, t: Tensor) -> Tensor:
        return torch.exp(-0.5 * self.integral(t))

    def drift(self, t: Tensor) -> Tensor:
        return -0.5 * self.beta(t)

    @property
    def prior_std(self) -> float:
        return 1.0

    @functools.cached_property
    def top(self) -> float:
        """Largest time with rho <= ``TOP_RATIO``."""
        if float(self.ratio(torch.ones((), dtype=torch.float64))) <= TOP_RATIO:
            return 1.0
        return float(self.time(torch.tensor(TOP_RATIO, dtype=torch.float64)))


class _VariancePreserving(_BetaProcess):
    """a^2 + sigma^2 = 1. expm1 keeps sigma accurate at small t, where 1 - exp(-B) loses its digits in float32."""

    def noise(self, t: Tensor) -> Tensor:
        return torch.sqrt(-torch.expm1(-self.integral(t)))

    def ratio(self, t: Tensor) -> Tensor:
        return torch.sqrt(torch.expm1(self.integral(t)))

    def time(self, ratio: Tensor) -> Tensor:
        return self.time_of_integral(torch.log1p(ratio**2))

    def diffusion(self, t: Tensor) -> Tensor:
        return torch.sqrt(self.beta(t))


class _LinearBeta(_BetaProcess):
    """beta(t) = beta_min + (beta_max - beta_min) t; the network reads 999 t."""

    beta_min: float
    beta_max: float

    def __post_init__(self) -> None:
        if not 0 < self.beta_min < self.beta_max:
            raise UserError(f"process: expected 0 < beta_min < beta_max, got {self.beta_min} and {self.beta_max}.")

    def beta(self, t: Tensor) -> Tensor:
        return self.beta_min + (self.beta_max - self.beta_min) * t

    def integral(self, t: Tensor) -> Tensor:
        return self.beta_min * t + 0.5 * (self.beta_max - self.beta_min) * t**2

    def time_of_integral(self, integral: Tensor) -> Tensor:
        slope = self.beta_max - self.beta_min
        return 2 * integral / (torch.sqrt(self.beta_min**2 + 2 * slope * integral) + self.beta_min)

    def label(self, t: Tensor) -> Tensor:
        return 999 * t


PROCESSES: Registry[Process] = Registry("process")


@PROCESSES.register("ve")
@dataclass(frozen=True)
class VE(Process):
    """Variance exploding: sigma(t) = sigma_min (sigma_max / sigma_min)^t.

    .02 .. 100 on [-1, 1] is score_sde's .01 .. 50 on [0, 1]. The network reads x / sqrt(1 + sigma^2) and ln sigma, and
    puts out eps like every network here (score_sde: no input scaling, output -eps / sigma).

    Example:
        >>> msgm.VE(sigma_min=0.01, sigma_max=100.0).noise(torch.tensor([0.0, 0.5, 1.0]))
        tensor([1.0000e-02, 1.0000e+00, 1.0000e+02])
    """

    sigma_min: float = 0.02
    sigma_max: float = 100.0
    t_sample = 1e-5

    def __post_init__(self) -> None:
        if not 0 < self.sigma_min < self.sigma_max:
            raise UserError(f"process: expected 0 < sigma_min < sigma_max, got {self.sigma_min} and {self.sigma_max}.")

    @property
    def _log_range(self) -> float:
        return math.log(self.sigma_max / self.sigma_min)

    def signal(self, t: Tensor) -> Tensor:
        return torch.ones_like(t)

    def noise(self, t: Tensor) -> Tensor:
        return self.sigma_min * torch.exp(self._log_range * t)

    def ratio(self, t: Tensor) -> Tensor:
        return self.noise(t)

    def time(self, ratio: Tensor) -> Tensor:
        return torch.log(ratio / self.sigma_min) / self._log_range

    def drift(self, t: Tensor) -> Tensor:
        return torch.zeros_like(t)

    def diffusion(self, t: Tensor) -> Tensor:
        return self.noise(t) * math.sqrt(2 * self._log_range)

    def label(self, t: Tensor) -> Tensor:
        return math.log(self.sigma_min) + self._log_range * t

    def input_scale(self, t: Tensor) -> Tensor:
        return torch.rsqrt(1 + self.noise(t) ** 2)

    @property
    def prior_std(self) -> float:
        return self.sigma_max


@PROCESSES.register("vp")
@dataclass(frozen=True)
class VP(_LinearBeta, _VariancePreserving):
    """Variance preserving with linear beta: the continuous limit of DDPM.

    Example:
        >>> process, t = msgm.VP(), torch.tensor([0.2, 0.8])
        >>> torch.allclose(process.signal(t) ** 2 + process.noise(t) ** 2, torch.ones(2))
        True
    """

    beta_min: float = 0.1
    beta_max: float = 20.0


@PROCESSES.register("subvp")
@dataclass(frozen=True)
class SubVP(_LinearBeta):
    """Sub-VP: VP's signal with the smaller noise 1 - exp(-B).

    Example:
        >>> process, t = msgm.SubVP(), torch.tensor([0.2, 0.8])
        >>> torch.allclose(process.noise(t), 1 - process.signal(t) ** 2)
        True
    """

    beta_min: float = 0.1
    beta_max: float = 20.0

    def noise(self, t: Tensor) -> Tensor:
        return -torch.expm1(-self.integral(t))

    def ratio(self, t: Tensor) -> Tensor:
        return 2 * torch.sinh(0.5 * self.integral(t))

    def time(self, ratio: Tensor) -> Tensor:
        return self.time_of_integral(2 * torch.asinh(0.5 * ratio))

    def diffusion(self, t: Tensor) -> Tensor:
        return torch.sqrt(self.beta(t) * -torch.expm1(-2 * self.integral(t)))


@PROCESSES.register("flow")
@dataclass(frozen=True)
class Flow(Process):
    """The straight path of flow matching and rectified flow: x_t = (1 - t) x_0 + t eps, as diffusers has it.

    Networks made for it put out the velocity v = eps - x_0 (Lipman et al., arXiv 2210.02747; Liu et al., arXiv
    2209.03003) and read ``labels`` t; eps = x_t + (1 - t) v. Training minimises the error of eps as it does for every
    process, which weighs the error of v by (1 - t)^2.

    At t_min, 1e-4, the shrinking of the items by 1 - t costs 1.4e-4 bits/dim of likelihood; VP has ten times the rho
    there. t_sample is VP's by its rho.

    Example:
        >>> process, t = msgm.diffusion.Flow(), torch.tensor([0.25, 0.5])
        >>> process.signal(t), process.ratio(t)
        (tensor([0.7500, 0.5000]), tensor([0.3333, 1.0000]))

    Attributes:
        labels: the network's label at t = 1; diffusers' num_train_timesteps.
    """

    labels: int = 1000
    prediction = "flow_prediction"
    t_min = 1e-4
    t_sample = 1e-2

    def __post_init__(self) -> None:
        if self.labels < 1:
            raise UserError(f"process.labels must be at least 1, got {self.labels}.")

    def signal(self, t: Tensor) -> Tensor:
        return 1 - t

    def noise(self, t: Tensor) -> Tensor:
        return t

    def ratio(self, t: Tensor) -> Tensor:
        return t / (1 - t)

    def time(self, ratio: Tensor) -> Tensor:
        return 1 / (1 + 1 / ratio)

    def drift(self, t: Tensor) -> Tensor:
        return -1 / (1 - t)

    def diffusion(self, t: Tensor) -> Tensor:
        return torch.sqrt(2 * t / (1 - t))

    def label(self, t: Tensor) -> Tensor:
        return self.labels * t

    @property
    def top(self) -> float:
        """The time with rho = ``TOP_RATIO``; at 1 no signal is left."""
        return TOP_RATIO / (1 + TOP_RATIO)

    @property
    def prior_std(self) -> float:
        return self.top


@PROCESSES.register("ddpm")
@dataclass(frozen=True)
class DDPM(_VariancePreserving):
    """Discrete DDPM (Ho et al., arXiv 2006.11239) of ``steps`` betas, as diffusers' DDPMScheduler makes them.

    Label i of 0 .. N-1 sits at t = (i + 1) / N (the convention of DPM-Solver, arXiv 2206.00927), so that label 0 has
    the first beta's noise. Between labels B(t) is linear and the network reads a fraction, which lets the same solvers
    and the PF-ODE run on it; training draws the N labels only. A last beta of 1 leaves no signal at the last label
    ("zero terminal SNR", Lin et al., arXiv 2305.08891); no level lies between it and the label before.

    Example:
        >>> process = msgm.DDPM(steps=1000, schedule="squaredcos_cap_v2")
        >>> process.label(torch.tensor([0.001, 0.5, 1.0]))
        tensor([  0., 499., 999.])

    Attributes:
        steps: number of labels N.
        schedule: diffusers' name: linear, scaled_linear or squaredcos_cap_v2.
        beta_min: first beta of a linear schedule.
        beta_max: last beta of a linear schedule.
        betas: the betas themselves; when given, the other settings are not read.
    """

    steps: int = 1000
    schedule: str = "linear"
    beta_min: float = 1e-4
    beta_max: float = 0.02
    betas: tuple[float, ...] | None = None

    def __post_init__(self) -> None:
        if self.betas is not None:
            object.__setattr__(self, "betas", tuple(plain(self.betas)))
            object.__setattr__(self, "steps", len(self.betas))
            if not all(0 < b < 1 for b in self.betas[:-1]) or not all(0 < b <= 1 for b in self.betas[-1:]):
                raise UserError("process.betas must lie strictly between 0 and 1; the last one may be 1.")
        elif not 0 < self.beta_min < self.beta_max < 1:
            raise UserError(f"process: expected 0 < beta_min < beta_max < 1, got {self.beta_min} and {self.beta_max}.")
        if self.steps < 2:
            raise UserError(f"process.steps must be at least 2, got {self.steps}.")
        object.__setattr__(self, "t_min", 1 / self.steps)
        object.__setattr__(self, "t_sample", 1 / self.steps)

    def __repr__(self) -> str:
        if self.betas is None:
            ends = f"beta_min={self.beta_min}, beta_max={self.beta_max}"
            return f"DDPM(steps={self.steps}, schedule={self.schedule!r}, {ends})"
        return f"DDPM({self.steps} betas from {self.betas[0]:.4g} to {self.betas[-1]:.4g})"

    @functools.cached_property
    def _integrals(self) -> Tensor:
        """B at t = 0, 1/N, ..., 1, in float64; infinite at 1 when the last beta is 1."""
        if self.betas is not None:
            betas = torch.tensor(self.betas, dtype=torch.float64)
        else:
            betas = _diffusers_betas(self.schedule, self.steps, self.beta_min, self.beta_max)
        return torch.cat([torch.zeros(1, dtype=torch.float64), -torch.log1p(-betas).cumsum(0)])

    @functools.cached_property
    def _tables(self) -> dict[tuple[torch.device, torch.dtype], Tensor]:
        return {}

    def _table(self, like: Tensor) -> Tensor:
        """Return B's table on the device of ``like``, copied there once."""
        key = (like.device, like.dtype)
        if key not in self._tables:
            self._tables[key] = self._integrals.to(*key)
        return self._tables[key]

    def _below(self, t: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Return the position of t in its interval between labels, in (0, 1], and B at both ends of the interval.

        A label belongs to the interval that it ends, whose beta is its own.
        """
        place, table = t * self.steps, self._table(t)
        knot = (place.ceil() - 1).clamp(0, self.steps - 1)
        return place - knot, table[knot.long()], table[knot.long() + 1]

    def integral(self, t: Tensor) -> Tensor:
        part, low, high = self._below(t)
        return low + part * (high - low)

    def beta(self, t: Tensor) -> Tensor:
        _, low, high = self._below(t)
        return (high - low) * self.steps

    def time_of_integral(self, integral: Tensor) -> Tensor:
        table = self._table(integral)
        knot = (torch.searchsorted(table, integral, right=True) - 1).clamp(0, self.steps - 1)
        return (knot + (integral - table[knot]) / (table[knot + 1] - table[knot])) / self.steps

    @functools.cached_property
    def top(self) -> float:
        """Time of the largest label with rho <= ``TOP_RATIO``, as the network is trained at labels only."""
        labels = int((torch.sqrt(torch.expm1(self._integrals)) <= TOP_RATIO).sum()) - 1
        if labels < 2:
            raise UserError(
                f"process: {labels} of {self.steps} labels lie at sigma / a <= {TOP_RATIO:g}, and a walk needs two; "
                "take smaller betas."
            )
        return labels / self.steps

    def label(self, t: Tensor) -> Tensor:
        return self.steps * t - 1

    def training_times(self, u: Tensor) -> Tensor:
        return ((u * self.steps).floor() + 1) / self.steps


def _diffusers_betas(schedule: str, steps: int, beta_min: float, beta_max: float) -> Tensor:
    from diffusers import DDPMScheduler

    try:
        scheduler = DDPMScheduler(steps, beta_min, beta_max, schedule)
    except NotImplementedError:
        raise UserError(
            f"process.schedule: unknown schedule {schedule!r}; known: linear, scaled_linear, squaredcos_cap_v2."
        ) from None
    return scheduler.betas.double()
