"""Retraining from fresh weights on the retain set: the definition of having forgotten listed items."""

from dataclasses import dataclass

from torch import nn

from msgm.classifier.data import Split
from msgm.classifier.methods.base import METHODS, Card, Ledger, Method, Settings
from msgm.classifier.training import fit
from msgm.seeding import derive_seed


@METHODS.register("retrain")
@dataclass(frozen=True)
class Retrain(Method):
    """The original's training, on retain items alone, from weights of another seed.

    Example:
        >>> made = msgm.classifier.Retrain().forget(network, data, {"labels": [2]})
    """

    card = Card(
        formula="train fresh weights on the retain items, settings as the original's",
        source="the reference of the field",
        needs=("retain",),
        family="exact",
    )

    def _forget(self, model: nn.Module, split: Split, settings: Settings, ledger: Ledger) -> nn.Module:
        seed = derive_seed(settings.seed, self.name)
        fresh = settings.fresh(model, seed)
        ledger.saw(settings.training.epochs * len(split.retain))
        return fit(fresh, split.retain, settings.training, seed, settings.device)
