"""The battery of classifier methods: every registered one passes, and each rule refuses a faulty one."""

from dataclasses import dataclass

import numpy as np
import pytest
import torch
from torch import nn

from msgm.classifier.methods import METHODS, Card, Method
from msgm.errors import UserError
from msgm.testing import Refused, check_method

SETTINGS = {"forsaken": {"steps": 20}, "newton-certified": {"head_only": True}, "sisa": {"shards": 2}}


@pytest.mark.parametrize("name", METHODS.entries)
def test_every_registered_method_passes(name):
    check_method(METHODS.build({"name": name, **SETTINGS.get(name, {})}))


def test_other_settings_pass():
    check_method(METHODS.build({"name": "scrub", "rewind": True, "epochs": 2}))


CARD = Card("theta / 2", source="a test", needs=("retain",), family="approximate update")


@dataclass(frozen=True)
class Halve(Method):
    """Halves every weight, right in everything; the base of the faulty ones."""

    name = "halve"
    card = CARD

    def _forget(self, model, split, settings, ledger):
        split.retain.inputs(np.array([0]))
        with torch.no_grad():
            for weights in model.parameters():
                weights.mul_(0.5)
        return model


def card(**facts):
    return Card(**(vars(CARD) | facts))


@dataclass(frozen=True)
class NoSource(Halve):
    card = card(source="")


@dataclass(frozen=True)
class NeedsTest(Halve):
    card = card(needs=("retain", "test"))


@dataclass(frozen=True)
class ReadsMore(Halve):
    def reads(self):
        return ("retain", "forget")


@dataclass(frozen=True)
class OtherFamily(Halve):
    card = card(family="magic")


@dataclass(frozen=True)
class NoScope(Halve):
    card = card(scopes=())


@dataclass(frozen=True)
class ReadsForget(Halve):
    def _forget(self, model, split, settings, ledger):
        split.forget.inputs(np.array([0]))
        return super()._forget(model, split, settings, ledger)


@dataclass(frozen=True)
class ReadsTest(Halve):
    def _forget(self, model, split, settings, ledger):
        next(split.test.batches(4))
        return super()._forget(model, split, settings, ledger)


@dataclass(frozen=True)
class AnswersAll(Halve):
    card = card(scopes=("class",))


@dataclass(frozen=True)
class FailsOnItems(Halve):
    card = card(scopes=("class",))

    def _forget(self, model, split, settings, ledger):
        if split.scope != "class":
            raise RuntimeError("no class")
        return super()._forget(model, split, settings, ledger)


@dataclass(frozen=True)
class Fails(Halve):
    def _forget(self, model, split, settings, ledger):
        raise ZeroDivisionError("by zero")


@dataclass(frozen=True)
class FailsOnOne(Halve):
    def _forget(self, model, split, settings, ledger):
        if len(split.forget) == 1:
            raise UserError("give two items.")
        return super()._forget(model, split, settings, ledger)


@dataclass(frozen=True)
class InPlace(Halve):
    def unlearn(self, model, split, settings):
        made = super().unlearn(model, split, settings)
        with torch.no_grad():
            next(model.parameters()).zero_()
        return made


@dataclass(frozen=True)
class Shares(Halve):
    def unlearn(self, model, split, settings):
        made = super().unlearn(model, split, settings)
        made.model[0].mean = model[0].mean
        return made


@dataclass(frozen=True)
class InTraining(Halve):
    def unlearn(self, model, split, settings):
        made = super().unlearn(model, split, settings)
        made.model[4].train()
        return made


@dataclass(frozen=True)
class KeepsGradients(Halve):
    def unlearn(self, model, split, settings):
        made = super().unlearn(model, split, settings)
        for weights in made.model.parameters():
            weights.grad = torch.zeros_like(weights)
        return made


@dataclass(frozen=True)
class Narrow(Halve):
    def _forget(self, model, split, settings, ledger):
        return nn.Sequential(super()._forget(model, split, settings, ledger), nn.MaxPool1d(2))


@dataclass(frozen=True)
class Overflows(Halve):
    def _forget(self, model, split, settings, ledger):
        with torch.no_grad():
            for weights in model.parameters():
                weights.fill_(1e30)
        return model


@dataclass(frozen=True)
class GlobalNoise(Halve):
    def _forget(self, model, split, settings, ledger):
        with torch.no_grad():
            for weights in model.parameters():
                weights.add_(torch.randn_like(weights))
        return model


@dataclass(frozen=True)
class Unseeded(Halve):
    def _forget(self, model, split, settings, ledger):
        draws = np.random.default_rng()
        with torch.no_grad():
            for weights in model.parameters():
                weights.add_(float(draws.normal()))
        return model


@dataclass(frozen=True)
class Control(Halve):
    def _forget(self, model, split, settings, ledger):
        return model


@dataclass(frozen=True)
class NoControl(Halve):
    card = card(family="none")


@dataclass(frozen=True)
class Costly(Halve):
    def _forget(self, model, split, settings, ledger):
        ledger.saw(-1)
        return super()._forget(model, split, settings, ledger)


@dataclass(frozen=True)
class TensorArtefact(Halve):
    def _forget(self, model, split, settings, ledger):
        ledger.artefacts["mask"] = torch.ones(2)
        return super()._forget(model, split, settings, ledger)


FAULTS = [
    (NoSource, "NoSource.card: its source is missing or empty"),
    (NeedsTest, "NeedsTest: needs has test; known: forget, retain, tuning"),
    (ReadsMore, "ReadsMore: reads has forget; known: retain"),
    (OtherFamily, "OtherFamily: family has magic; known: exact"),
    (NoScope, "names no kind of request that it answers"),
    (ReadsForget, "ReadsForget reads forget items, which its card does not name"),
    (ReadsTest, "ReadsTest reads test items, which its card does not name"),
    (AnswersAll, "answers a request for single items, which its card does not name"),
    (FailsOnItems, "fails on a request for single items, which its card does not name, where a UserError is expected"),
    (Fails, "by zero"),
    (FailsOnOne, "fails on a request for 1 single items: give two items"),
    (InPlace, "changes the module that it was given"),
    (Shares, "shares storage with the one that was given"),
    (InTraining, "gives a module that is not in eval mode"),
    (KeepsGradients, "leaves gradients in the module"),
    (Narrow, r"outputs have shape \(2,\) an item; expected \(4,\)"),
    (Overflows, "outputs are not finite"),
    (GlobalNoise, "draws from the global generator of torch"),
    (Unseeded, "gives another result when it is called again"),
    (Control, "changes no weight; a control like that is of the family none"),
    (NoControl, "is of the family none and changes the module"),
    (Costly, "its cost has examples -1"),
    (TensorArtefact, "an artefact without an underscore first is no JSON value"),
]


@pytest.mark.parametrize(("faulty", "sentence"), FAULTS, ids=[cls.__name__ for cls, _ in FAULTS])
def test_a_faulty_method_is_refused_in_one_sentence(faulty, sentence):
    with pytest.raises(Refused, match=sentence) as refused:
        check_method(faulty)
    assert "\n" not in str(refused.value)


def test_the_base_of_the_faulty_ones_is_right():
    check_method(Halve)
