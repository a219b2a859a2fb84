"""``check_sampler``: what sampling, inpainting and previews rely on in every sampler.

Rules are tried on every process, on Gaussian data, whose score is exact, and of which samples must have the mean and
the spread.
"""

import itertools
from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from msgm.diffusion import DDPM, VE, VP, Process, SubVP
from msgm.diffusion.samplers import Eps, Grid, Noise, Sampler, State, ratio_grid
from msgm.diffusion.samplers.space import EVEN_IN
from msgm.testing.rules import check_settings, check_texts, made, repeated, require

PROCESSES = (VE(), VP(), SubVP(), DDPM())
"""Moments are measured on the first two; the others' walks differ from VP's in nothing but the grid."""
MEAN, STD = 0.3, 0.6
LEVELS = 50
"""Of the grid on which moments are measured."""
NUMBERS = 6000
"""Independent numbers whose moments are measured: their own errors are 1% of the spread."""
ALLOWED = 0.15
"""Error of the mean, in units of the spread, and of the spread, relative to it, on ``LEVELS`` levels."""


def check_sampler(sampler: Sampler | type[Sampler]) -> None:
    """Check that a sampler keeps every rule that sampling relies on.

    - It is a dataclass whose settings round-trip through a config, and wrong settings are UserErrors.
    - It has a name, a source, a description of its step, and a spacing of the grid that there is.
    - It evaluates the network as often as it says, and tells its watcher of every step with y, rho and D(y, rho).
    - It draws only from the noise that it is given: a sample depends on its own stream, not on the others of its batch
      nor on a global generator, and is the same again.
    - A walk ends at the denoised item of its last step.
    - Samples of a Gaussian have its mean and spread, within 15% of the spread on 50 levels.

    Example:
        >>> from msgm.diffusion import SAMPLERS
        >>> from msgm.testing import check_sampler
        >>> check_sampler(SAMPLERS.entries["heun"])

    Args:
        sampler: a sampler with its settings, or a class, which is tried with its defaults.

    Raises:
        Refused: a rule is broken; the message says which in one sentence.
    """
    found = made(sampler, Sampler)
    check_settings(found)
    _check_card(found)
    for process in PROCESSES:
        _check_evaluations(found, process)
        _check_walk(found, process)
        _check_samples_apart(found, process)
    _check_moments(found)


def _gaussian(y: Tensor, ratio: float | Tensor, rows: Tensor | None = None) -> Tensor:
    """Return the exact eps of data from N(MEAN, STD^2) at y and rho."""
    level = torch.as_tensor(ratio, dtype=y.dtype).reshape(-1, *[1] * (y.dim() - 1))
    return level * (y - MEAN) / (STD**2 + level**2)


def _walk(
    sampler: Sampler,
    process: Process,
    eps: Eps,
    levels: int,
    shape: tuple[int, ...],
    numbers: Sequence[int] = range(4),
    watch: Callable[[State], None] = lambda state: None,
) -> Tensor:
    """Return samples of the given numbers, walked from the top of the path to data."""
    noise = Noise(0, numbers, shape, torch.device("cpu"))
    signal, _ = process.at_top()
    y = process.prior_std / signal * noise().double()
    grid = Grid(process, [*ratio_grid(process, levels, sampler.schedule), 0.0])
    before = y.clone()
    found = sampler.run(eps, y, grid, noise, watch)
    require(torch.equal(y, before), f"{type(sampler).__name__}.run changes the start that it was given.")
    return found


def _check_card(sampler: Sampler) -> None:
    cls = type(sampler)
    check_texts(cls.__name__, cls, "name", "source", "__doc__")
    schedule = getattr(cls, "schedule", None)
    require(schedule in EVEN_IN, f"{cls.__name__}.schedule is {schedule!r}; expected one of {', '.join(EVEN_IN)}.")
    require(
        not str(cls.__doc__).startswith(f"{cls.__name__}("),
        f"{cls.__name__} has no docstring, which must say what a step is.",
    )


def _check_evaluations(sampler: Sampler, process: Process) -> None:
    """Check the announced number of network evaluations, on grids of several sizes."""
    for levels in (2, 5, 12):
        calls: list[int] = []

        def counted(y: Tensor, ratio: float | Tensor, rows: Tensor | None = None, calls: list[int] = calls) -> Tensor:
            calls.append(1)
            return _gaussian(y, ratio)

        _walk(sampler, process, counted, levels, (2,))
        announced = sampler.evaluations(levels)
        require(
            announced is None or announced == len(calls),
            f"{type(sampler).__name__} announces {announced} network evaluations on {levels} levels and makes "
            f"{len(calls)}.",
        )


def _check_walk(sampler: Sampler, process: Process) -> None:
    """Check what comes out, that it comes out again, and what the watcher sees."""
    name = type(sampler).__name__
    seen: list[State] = []
    found = repeated(f"{name}.run", lambda: {"samples": _walk(sampler, process, _gaussian, 6, (2, 3))})["samples"]
    require(found.shape == (4, 2, 3), f"{name}.run gives shape {tuple(found.shape)} for samples of shape (4, 2, 3).")
    require(bool(found.isfinite().all()), f"{name}.run gives samples that are not finite.")
    _walk(sampler, process, _gaussian, 6, (2, 3), watch=seen.append)
    require(bool(seen), f"{name}.run never calls its watcher.")
    if sampler.evaluations(6) is not None:
        steps = [state.step for state in seen]
        require(steps == list(range(6)), f"{name} tells its watcher of the steps {steps}; expected 0 to 5, once each.")
    require(
        all(later.ratio < earlier.ratio for earlier, later in itertools.pairwise(seen)),
        f"{name} tells its watcher of noise levels that do not fall.",
    )
    for state in seen:
        denoised = state.y - state.ratio * _gaussian(state.y, state.ratio)
        require(
            torch.allclose(state.denoised, denoised, rtol=1e-6, atol=1e-8),
            f"{name} tells its watcher of a denoised item that is not y - rho eps(y, rho), at step {state.step}.",
        )
    require(
        torch.allclose(found, seen[-1].denoised, rtol=1e-6, atol=1e-8),
        f"{name} ends elsewhere than at the denoised item of its last step.",
    )


def _check_samples_apart(sampler: Sampler, process: Process) -> None:
    whole = _walk(sampler, process, _gaussian, 8, (3,), range(5))
    part = _walk(sampler, process, _gaussian, 8, (3,), range(2, 5))
    require(
        torch.allclose(whole[2:], part, rtol=1e-3, atol=1e-4),
        f"{type(sampler).__name__}: a sample depends on the other samples of its batch.",
    )
    require(
        bool(torch.pdist(whole).min() > 1e-6), f"{type(sampler).__name__}: samples of different noise are the same."
    )


def _check_moments(sampler: Sampler) -> None:
    for process in PROCESSES[:2]:
        found = _walk(sampler, process, _gaussian, LEVELS, (NUMBERS,), range(1))
        mean, std = float((found.mean() - MEAN) / STD), float(found.std() / STD)
        require(
            abs(mean) < ALLOWED and abs(std - 1) < ALLOWED,
            f"{type(sampler).__name__}: samples of N({MEAN}, {STD}^2) under {process.name} have the mean "
            f"{found.mean():.3g} and the spread {found.std():.3g} on {LEVELS} levels.",
        )
