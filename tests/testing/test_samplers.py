"""The battery of samplers: every registered one passes, and each rule refuses a faulty one."""

from dataclasses import dataclass, replace

import pytest
import torch

from msgm.diffusion import SAMPLERS
from msgm.diffusion.samplers import OneStep, State
from msgm.testing import Refused, check_sampler


@pytest.mark.parametrize("name", SAMPLERS.entries)
def test_every_registered_sampler_passes(name):
    check_sampler(SAMPLERS.entries[name])


@pytest.mark.parametrize(
    "settings",
    [
        {"name": "heun", "churn": 5.0},
        {"name": "ddim", "eta": 1.0},
        {"name": "predictor-corrector", "predictor": "ancestral", "corrector": "annealed-langevin"},
    ],
    ids=str,
)
def test_other_settings_pass(settings):
    check_sampler(SAMPLERS.build(settings))


@dataclass(frozen=True)
class Euler(OneStep):
    """Euler's step of the PF-ODE, right in everything; the base of the faulty ones."""

    name = "euler"
    source = "a test"
    schedule = "log"

    def step(self, y, slope, grid, i):
        return y + (grid.ratios[i + 1] - grid.ratios[i]) * slope, 0.0


@dataclass(frozen=True)
class NoSource(Euler):
    """Has no source."""

    source = " "


@dataclass(frozen=True)
class Silent(Euler):
    pass


@dataclass(frozen=True)
class OtherSchedule(Euler):
    """Wants a spacing that there is not."""

    schedule = "linear"


@dataclass(frozen=True)
class Understates(Euler):
    """Announces fewer evaluations than it makes."""

    def evaluations(self, steps):
        return steps - 1


@dataclass(frozen=True)
class InPlace(Euler):
    """Works in the start that it was given."""

    def run(self, eps, y, grid, noise, watch):
        y *= 1.0 + 1e-3
        return super().run(eps, y, grid, noise, watch)


@dataclass(frozen=True)
class GlobalNoise(Euler):
    """Draws noise of its own."""

    def run(self, eps, y, grid, noise, watch):
        return super().run(eps, y, grid, lambda: torch.randn_like(y), watch)

    def step(self, y, slope, grid, i):
        return y + (grid.ratios[i + 1] - grid.ratios[i]) * slope, 1e-3


@dataclass(frozen=True)
class Flat(Euler):
    """Gives samples of another shape."""

    def run(self, eps, y, grid, noise, watch):
        return super().run(eps, y, grid, noise, watch).flatten(1)


@dataclass(frozen=True)
class Explodes(Euler):
    """Divides by the last level."""

    def run(self, eps, y, grid, noise, watch):
        return super().run(eps, y, grid, noise, watch) / grid.ratios[-1]


@dataclass(frozen=True)
class Unwatched(Euler):
    """Tells its watcher of nothing."""

    def run(self, eps, y, grid, noise, watch):
        return super().run(eps, y, grid, noise, lambda state: None)


@dataclass(frozen=True)
class WatchedTwice(Euler):
    """Tells its watcher of every step twice."""

    def run(self, eps, y, grid, noise, watch):
        return super().run(eps, y, grid, noise, lambda state: [watch(state), watch(state)])


@dataclass(frozen=True)
class Backwards(Euler):
    """Tells its watcher of rising levels."""

    def run(self, eps, y, grid, noise, watch):
        return super().run(eps, y, grid, noise, lambda state: watch(replace(state, ratio=-state.ratio)))


@dataclass(frozen=True)
class ShowsTheState(Euler):
    """Tells its watcher of the state where the denoised item belongs."""

    def run(self, eps, y, grid, noise, watch):
        return super().run(eps, y, grid, noise, lambda s: watch(State(s.step, s.ratio, s.y, s.y)))


@dataclass(frozen=True)
class EndsElsewhere(Euler):
    """Adds something to what it found."""

    def run(self, eps, y, grid, noise, watch):
        return super().run(eps, y, grid, noise, watch) + 0.01


@dataclass(frozen=True)
class Mixes(Euler):
    """Follows the mean of the batch."""

    def run(self, eps, y, grid, noise, watch):
        return super().run(eps, y - 0.1 * (y - y.mean(0)), grid, noise, watch)


@dataclass(frozen=True)
class Constant(Euler):
    """Starts every sample from zero."""

    def run(self, eps, y, grid, noise, watch):
        return super().run(eps, 0 * y, grid, noise, watch)


@dataclass(frozen=True)
class Noisy(Euler):
    """Adds twice the noise of the reverse SDE."""

    def step(self, y, slope, grid, i):
        now, then = grid.ratios[i : i + 2]
        return y + 2 * (then - now) * slope, 2 * (now**2 - then**2) ** 0.5


FAULTS = [
    (NoSource, "NoSource: its source is missing or empty"),
    (Silent, "Silent has no docstring, which must say what a step is"),
    (OtherSchedule, "OtherSchedule.schedule is 'linear'; expected one of time, log, karras"),
    (Understates, "announces 1 network evaluations on 2 levels and makes 2"),
    (InPlace, "changes the start that it was given"),
    (GlobalNoise, "draws from the global generator of torch"),
    (Flat, r"gives shape \(4, 6\) for samples of shape \(4, 2, 3\)"),
    (Explodes, "gives samples that are not finite"),
    (Unwatched, "never calls its watcher"),
    (WatchedTwice, r"of the steps \[0, 0, 1, 1"),
    (Backwards, "noise levels that do not fall"),
    (ShowsTheState, "a denoised item that is not y - rho eps"),
    (EndsElsewhere, "ends elsewhere than at the denoised item of its last step"),
    (Mixes, "a sample depends on the other samples of its batch"),
    (Constant, "samples of different noise are the same"),
    (Noisy, r"samples of N\(0.3, 0.6\^2\) under ve have the mean .* and the spread .* on 50 levels"),
]


@pytest.mark.parametrize(("faulty", "sentence"), FAULTS, ids=[cls.__name__ for cls, _ in FAULTS])
def test_a_faulty_sampler_is_refused_in_one_sentence(faulty, sentence):
    with pytest.raises(Refused, match=sentence) as refused:
        check_sampler(faulty)
    assert "\n" not in str(refused.value)
