"""The battery of guidance: every registered one passes, and each rule refuses a faulty one."""

from dataclasses import dataclass, field
from typing import Any

import pytest
import torch

from msgm.diffusion.guidance import GUIDANCE, Guidance
from msgm.errors import UserError
from msgm.testing import Refused, check_guidance


@pytest.mark.parametrize("name", GUIDANCE.entries)
def test_every_registered_guidance_passes(name):
    check_guidance(GUIDANCE.entries[name])


@dataclass
class Cooler(Guidance):
    name, formula, source, deviations = "cooler", "f eps", "nobody", "none"

    def eps(self, model, x, t, condition):
        return 0.9 * model.eps(x, t, condition)


class Sourceless(Cooler):
    source = ""


class Unsaid(Cooler):
    no_density = " "


class Picky(Cooler):
    def check(self, classes):
        raise UserError("guidance.name: it guides nothing.")


class Cut(Cooler):
    def eps(self, model, x, t, condition):
        return model.eps(x, t, condition)[:1]


class Infinite(Cooler):
    def eps(self, model, x, t, condition):
        return model.eps(x, t, condition) / 0


class Noisy(Cooler):
    def eps(self, model, x, t, condition):
        return model.eps(x, t, condition) + 0.1 * torch.randn_like(x)


class Averaging(Cooler):
    def eps(self, model, x, t, condition):
        return model.eps(x, t, condition) + x.mean(0)


@dataclass
class Remembering(Cooler):
    seen: list[Any] = field(default_factory=list, init=False)

    def eps(self, model, x, t, condition):
        self.seen.append(0)
        return len(self.seen) * model.eps(x, t, condition)


class Tuning(Cooler):
    def prepare(self, setup):
        setup.tune_on_forget(2)


@dataclass
class Forgetful(Cooler):
    factor: float = field(default=0.5, init=False)

    def prepare(self, setup):
        self.factor = 0.9

    def eps(self, model, x, t, condition):
        return self.factor * model.eps(x, t, condition)


class Moving(Cooler):
    def prepare(self, setup):
        self.moved = False

    def recall(self, state, model):
        with torch.no_grad():
            next(model.network.parameters()).mul_(1 + 1e-6)


class Choosing(Cooler):
    def accepts(self, items):
        return items.flatten(1).mean(1)


class Telling(Cooler):
    def effective(self):
        return {"model": object()}


@pytest.mark.parametrize(
    ("guidance", "rule"),
    [
        (Sourceless, "its source is missing"),
        (Unsaid, "no_density is empty"),
        (Picky, "refuses an unconditional model and one of 10 classes: guidance.name: it guides nothing"),
        (Cut, r"has shape \(1, 1, 8, 8\)"),
        (Infinite, "not finite"),
        (Noisy, "draws from the global generator"),
        (Averaging, "depends on the other samples"),
        (Remembering, "gives another result when it is called again"),
        (Tuning, "does not say so"),
        (Forgetful, "recalled from its state guides otherwise"),
        (Moving, "changes the weights"),
        (Choosing, "one bool for each sample"),
        (Telling, "holds what a report cannot"),
        (dict, "no subclass of Guidance"),
    ],
)
def test_a_faulty_guidance_is_refused(guidance, rule):
    with pytest.raises(Refused, match=rule):
        check_guidance(guidance)


def test_a_sound_guidance_of_the_users_passes():
    check_guidance(Cooler)
