"""The battery of objectives: every registered one passes, a plugin passes, and each rule refuses a faulty one."""

import random
from dataclasses import dataclass, field

import numpy as np
import pytest
import torch

from msgm.errors import UserError
from msgm.objectives import (
    OBJECTIVES,
    Anchor,
    Card,
    EraseDiff,
    Mask,
    Mixed,
    Objective,
    Orthogonal,
    Subtract,
    Term,
    mean_square,
)
from msgm.testing import Refused, check_objective


@dataclass
class NegativeGradient(Mixed):
    """alpha L_r - (1 - alpha) L_f: gradient ascent on the forget set."""

    name = "negative-gradient"
    card = Card("L_f = -mean (eps_theta - eps)^2", "NegGrad+", "none")

    def forget_loss(self, predicted, forget):
        return -mean_square(predicted - forget.eps)


@pytest.mark.parametrize("name", OBJECTIVES.entries)
def test_every_registered_objective_passes(name):
    check_objective(OBJECTIVES.entries[name])


@pytest.mark.parametrize(
    "objective",
    [
        NegativeGradient,
        NegativeGradient(alpha=0.5, every=1),
        NegativeGradient(every=3),
        Orthogonal(variant="inner"),
        Orthogonal(variant="marginal"),
        EraseDiff(multiplier=None),
        EraseDiff(variant="weighted"),
        NegativeGradient(alpha=0.5, every=1, combine="pcgrad", mask=Mask(), anchor=Anchor(), replay=20),
        Subtract(descent="nothing", weight=1, ceiling=1.0),
        Subtract(descent="retain", weight=1, combine={"name": "cap", "ratio": 0.1}),
        Subtract(importance=0.5),
    ],
    ids=repr,
)
def test_a_plugin_and_other_settings_pass(objective):
    check_objective(objective)


class Plain(Objective):
    """A base of faulty objectives: noise prediction on the retain set, right in everything."""

    name = "plain"
    card = Card("mean (eps_theta - eps)^2", "a test", "none")
    data = "retain"

    def terms(self, predict, retain, forget):
        return {"retain": Term(1.0, mean_square(predict(retain.x, retain.t) - retain.eps))}


@dataclass
class NoCard(Plain):
    card = Card("", "a test", "none")


@dataclass
class OtherData(Plain):
    data = "everything"


class NoDataclass(Plain):
    weight: float = 1.0


@dataclass
class NeedsSetting(Plain):
    weight: float = field(kw_only=True)


@dataclass
class Unreported(Plain):
    def effective(self):
        return {"weight": float("nan")}


@dataclass
class ChangedSetting(Plain):
    weight: float = 1.0

    def __post_init__(self):
        self.weight = self.weight + 1


@dataclass
class ObjectSetting(Plain):
    weights: torch.Tensor = field(default_factory=lambda: torch.ones(2))


@dataclass
class ValueErrorSetting(Plain):
    weight: float = 1.0

    def __post_init__(self):
        if self.weight < 0:
            raise ValueError("no")


@dataclass
class UnnamedSetting(Plain):
    weight: float = 1.0

    def __post_init__(self):
        if self.weight < 0:
            raise UserError("a number is negative.")


@dataclass
class NaNSetting(Plain):
    weight: float = float("nan")


@dataclass
class AnySetting(Plain):
    weight: object = 1.0


@dataclass
class UndeclaredForget(Plain):
    def uses_forget(self, step):
        return True


@dataclass
class NeverForgets(NegativeGradient):
    def uses_forget(self, step):
        return False

    def forget_batches(self, step):
        return 0


@dataclass
class Miscounts(NegativeGradient):
    def forget_batches(self, step):
        return step


@dataclass
class IgnoresForget(NegativeGradient):
    def forget_loss(self, predicted, forget):
        return predicted.flatten(1).mean(1) * 0


@dataclass
class NoTerms(Plain):
    def terms(self, predict, retain, forget):
        return {}


@dataclass
class UnnamedTerm(Plain):
    def terms(self, predict, retain, forget):
        return {"": super().terms(predict, retain, forget)["retain"]}


@dataclass
class Averaged(Plain):
    def terms(self, predict, retain, forget):
        return {key: Term(1.0, term.values.mean()) for key, term in super().terms(predict, retain, forget).items()}


@dataclass
class InfiniteWeight(Plain):
    def terms(self, predict, retain, forget):
        return {key: Term(float("inf"), term.values) for key, term in super().terms(predict, retain, forget).items()}


@dataclass
class Explodes(Plain):
    def terms(self, predict, retain, forget):
        return {"retain": Term(1.0, mean_square(predict(retain.x, retain.t)) / (retain.t < 1).float())}


@dataclass
class Detached(Plain):
    def terms(self, predict, retain, forget):
        return {key: Term(1.0, term.values.detach()) for key, term in super().terms(predict, retain, forget).items()}


@dataclass
class InfiniteGradient(Plain):
    def terms(self, predict, retain, forget):
        return {"retain": Term(1.0, (predict(retain.x, retain.t) * 0).abs().flatten(1).sum(1).sqrt())}


@dataclass
class GlobalTorch(Plain):
    def terms(self, predict, retain, forget):
        return {"retain": Term(1.0, mean_square(predict(retain.x, retain.t) - torch.randn_like(retain.x)))}


@dataclass
class GlobalNumpy(Plain):
    def terms(self, predict, retain, forget):
        noise = torch.from_numpy(np.random.randn(*retain.x.shape)).float()
        return {"retain": Term(1.0, mean_square(predict(retain.x, retain.t) - noise))}


@dataclass
class GlobalPython(Plain):
    def terms(self, predict, retain, forget):
        return {"retain": Term(random.random(), mean_square(predict(retain.x, retain.t)))}


@dataclass
class Counting(Plain):
    def terms(self, predict, retain, forget):
        self.calls = getattr(self, "calls", 0) + 1
        return {"retain": Term(1.0, self.calls * mean_square(predict(retain.x, retain.t)))}


@dataclass
class InPlace(Plain):
    def terms(self, predict, retain, forget):
        loss = mean_square(predict(retain.x.clone(), retain.t))
        retain.x.zero_()
        return {"retain": Term(1.0, loss * 0 + 1.0 + 0 * loss)}


@dataclass
class BatchNormed(Plain):
    def terms(self, predict, retain, forget):
        values = mean_square(predict(retain.x, retain.t) - retain.eps)
        return {"retain": Term(1.0, values / values.detach().mean())}


@dataclass
class RandomPreparation(Plain):
    def prepare(self, setup):
        self.offset = torch.seed() and torch.rand(1)


@dataclass
class UnseededPreparation(Plain):
    def prepare(self, setup):
        self.factor = float(np.random.default_rng().uniform(1, 2))

    def terms(self, predict, retain, forget):
        return {"retain": Term(1.0, self.factor * mean_square(predict(retain.x, retain.t)))}


@dataclass
class CombinesOthers(NegativeGradient):
    combines = True

    def terms(self, predict, retain, forget):
        return {f"{key} loss": term for key, term in super().terms(predict, retain, forget).items()}

    def merge(self, retain, forget):
        return [r + f for r, f in zip(retain, forget, strict=True)]


@dataclass
class CombinesToOne(NegativeGradient):
    combines = True

    def merge(self, retain, forget):
        return [retain[0] + forget[0]]


FAULTS = [
    (int, "int is no subclass of Objective"),
    (NoDataclass, "NoDataclass is no dataclass"),
    (NeedsSetting, "cannot be built with its defaults.*weight"),
    (NoCard, "NoCard.card: its formula is missing or empty"),
    (OtherData, "OtherData.data is 'everything'; expected one of all, retain, forget, retain.forget, all.forget"),
    (Unreported, "Unreported.effective holds what a report cannot"),
    (ChangedSetting, "ChangedSetting.weight does not round-trip: built from 2.0 it is 3.0"),
    (ObjectSetting, "ObjectSetting.weights is a Tensor, which a config cannot hold"),
    (ValueErrorSetting, r"refuses weight=-1.0 with a ValueError where a UserError is expected"),
    (UnnamedSetting, r"refuses weight=-1.0 without naming the setting"),
    (NaNSetting, "NaNSetting.weight is NaN by default"),
    (AnySetting, "AnySetting takes weight=nan; refuse with a UserError what is no finite number"),
    (UndeclaredForget, "asks for forget batches, which its data, 'retain', lack"),
    (NeverForgets, "declares forget data and asks for none in the first 1000 steps"),
    (Miscounts, r"forget_batches\(1\) is 1, but 0 of the steps before use a forget batch"),
    (IgnoresForget, "its loss does not depend on the forget batch"),
    (NoTerms, "gives no term on a step without a forget batch"),
    (UnnamedTerm, "the name '' of a term is no text"),
    (Averaged, r"the term 'retain' has shape \(\); expected one loss for each sample, \(6,\)"),
    (InfiniteWeight, "the weight of the term 'retain' is inf"),
    (Explodes, "the term 'retain' is not finite at every time of the path"),
    (Detached, "no gradient of the loss reaches the network"),
    (InfiniteGradient, "the gradient of the loss is not finite"),
    (GlobalTorch, "draws from the global generator of torch"),
    (GlobalNumpy, "draws from the global generator of NumPy"),
    (GlobalPython, "draws from the global generator of Python"),
    (Counting, "gives another result when it is called again"),
    (InPlace, "changes the batch that it was given"),
    (BatchNormed, "a sample's loss 'retain' depends on the other samples of its batch"),
    (RandomPreparation, "RandomPreparation.prepare draws from the global generator of torch"),
    (UnseededPreparation, "prepare is not deterministic"),
    (CombinesOthers, "its terms must be forget and another; they are forget loss, retain loss"),
    (CombinesToOne, r"merge gives gradients of shapes \[\(2,\)\]"),
]


@pytest.mark.parametrize(("faulty", "sentence"), FAULTS, ids=[cls.__name__ for cls, _ in FAULTS])
def test_a_faulty_objective_is_refused_in_one_sentence(faulty, sentence):
    with pytest.raises(Refused, match=sentence) as refused:
        check_objective(faulty)
    assert "\n" not in str(refused.value)


def test_the_base_of_the_faulty_ones_is_right():
    check_objective(dataclass(Plain))


def test_an_objective_is_left_as_it_was_given():
    objective = Orthogonal(variant="marginal")
    check_objective(objective)
    assert objective.teacher is None
