"""The battery of edits: every registered one passes, and each rule refuses a faulty one."""

from dataclasses import dataclass

import pytest
import torch

from msgm.objectives import Card
from msgm.objectives.edits import EDITS, Edit, Influence
from msgm.testing import Refused, check_edit


@pytest.mark.parametrize("name", EDITS.entries)
def test_every_registered_edit_passes(name):
    check_edit(Influence(damping=1.0, iterations=2) if name == "influence" else EDITS.entries[name])


@dataclass
class Shrink(Edit):
    name, data, card = "shrink", "forget", Card("theta *= .9", "nobody", "none")

    def change(self, model, setup):
        with torch.no_grad():
            for weight in model.network.parameters():
                weight *= 0.9


class Leaking(Shrink):
    def apply(self, model, setup):
        self.facts = {}
        self.change(model, setup)
        return model


class Curious(Shrink):
    def change(self, model, setup):
        setup.items("retain", 2)


class Infinite(Shrink):
    def change(self, model, setup):
        for weight in model.network.parameters():
            weight.data.fill_(float("inf"))


class Noisy(Shrink):
    def change(self, model, setup):
        for weight in model.network.parameters():
            weight.data += torch.randn_like(weight)


class Telling(Shrink):
    def change(self, model, setup):
        self.facts["model"] = model


class Cardless(Shrink):
    card = None


class Greedy(Shrink):
    data = "test"


@pytest.mark.parametrize(
    ("edit", "rule"),
    [
        (Leaking, "shares storage"),
        (Curious, "reads retain items too"),
        (Infinite, "not finite"),
        (Noisy, "draws from the global generator"),
        (Telling, "facts or settings hold what a report cannot"),
        (Cardless, "card"),
        (Greedy, "expected one of forget, retain"),
        (dict, "no subclass of Edit"),
    ],
)
def test_a_faulty_edit_is_refused(edit, rule):
    with pytest.raises(Refused, match=rule):
        check_edit(edit)


def test_a_sound_edit_of_the_users_passes():
    check_edit(Shrink)
