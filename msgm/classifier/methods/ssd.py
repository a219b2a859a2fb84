r"""Selective synaptic dampening: shrink the weights that matter more to the forget set than to all training data.

With diagonal importances I(S) = mean_{i in S} (d CE_i / d theta)^2, weights where I(forget) > alpha I(all) are
multiplied by min(lambda I(all) / I(forget), 1). All data contain the forget set, so that I(all) >= share of the forget
set * I(forget): an alpha of more than 1 / share selects nothing, whatever the model. On random items the two
importances are alike and the method does next to nothing; the share of weights selected is reported for that reason.
"""

from dataclasses import dataclass
from typing import Literal

import torch
import torch.nn.functional as F
from torch import nn

from msgm.checks import at_least, positive
from msgm.classifier.data import Examples, Split
from msgm.classifier.methods.base import METHODS, Card, Ledger, Method, Settings
from msgm.classifier.methods.curvature import squared_gradients
from msgm.curvature import Weights, dampen, items_at_once, weights_of
from msgm.ranges import Range, ranges

FEW = 1e-4


@METHODS.register("ssd")
@dataclass(frozen=True)
class SSD(Method):
    """Selective synaptic dampening.

    Example:
        >>> made = msgm.classifier.SSD().forget(network, data, {"labels": [2]})

    Attributes:
        alpha: how many times as important to the forget set a weight must be to be selected.
        dampening: lambda, the strength of shrinking; smaller shrinks more.
        fisher: ``per_sample`` squares every item's gradient; ``batch`` those of batch means, as published code does,
            which makes importances depend on the batch size.
        batch_size: of ``batch``.
    """

    alpha: float = 5.0
    dampening: float = 1.0
    fisher: Literal["per_sample", "batch"] = "per_sample"
    batch_size: int = 128

    search = ranges(alpha=Range(1.0, 100.0, log=True), dampening=Range(0.1, 10.0, log=True))
    card = Card(
        formula="theta *= min(lambda I_d / I_f, 1) where I_f > alpha I_d; I = mean squared gradient of the loss",
        source="Foster et al., AAAI 2024; alpha 10, lambda 1 there, with fisher: batch of 128",
        needs=("forget", "retain"),
        family="edit",
        deviations="alpha is chosen on digits' tuning items, where the published 10 can select no weight",
    )

    def __post_init__(self) -> None:
        positive(self, "methods", "alpha", "dampening")
        at_least(1, self, "methods", "batch_size")

    def _forget(self, model: nn.Module, split: Split, settings: Settings, ledger: Ledger) -> nn.Module:
        model.eval()
        with ledger.preparing():
            everything = self._importance(model, split.train, settings)
        ledger.stored(sum(value.numel() * value.element_size() for value in everything.values()))
        forget = self._importance(model, split.forget, settings)
        ledger.saw(len(split.forget))
        share = dampen(model, forget, everything, self.alpha, self.dampening)
        ledger.artefacts["selected_share"] = share
        if share < FEW:
            ledger.artefacts["warning"] = (
                f"only {share:.1e} of the weights were selected: the model is all but the same."
            )
        return model

    def _importance(self, model: nn.Module, examples: Examples, settings: Settings) -> Weights:
        if self.fisher == "per_sample":
            return importance(model, examples, settings.device)
        return batch_importance(model, examples, self.batch_size, settings.device)


def importance(model: nn.Module, examples: Examples, device: torch.device) -> Weights:
    """Return the mean over items of the squared gradient of the cross-entropy, in the shapes of the weights."""
    total = {name: torch.zeros_like(value) for name, value in weights_of(model).items()}
    for x, y in examples.batches(items_at_once(model), device=device):
        for name, value in squared_gradients(
            model, x, y, torch.full_like(x.flatten(1)[:, 0], 1 / len(examples))
        ).items():
            total[name] += value
    return total


def batch_importance(model: nn.Module, examples: Examples, size: int, device: torch.device) -> Weights:
    """Return the mean over batches, in order, of the squared gradient of the batch's mean cross-entropy."""
    weights = dict(model.named_parameters())
    total = {name: torch.zeros_like(value) for name, value in weights_of(model).items()}
    count = -(-len(examples) // size)
    for x, y in examples.batches(size, device=device):
        gradients = torch.autograd.grad(F.cross_entropy(model(x), y), list(weights.values()))
        for name, gradient in zip(weights, gradients, strict=True):
            total[name] += gradient.square() / count
    return total
