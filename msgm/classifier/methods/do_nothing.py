"""The original model as it is: the row that every method has to beat."""

from dataclasses import dataclass

from torch import nn

from msgm.classifier.data import Split
from msgm.classifier.methods.base import METHODS, Card, Ledger, Method, Settings


@METHODS.register("do-nothing")
@dataclass(frozen=True)
class DoNothing(Method):
    """Leave the model alone.

    Example:
        >>> made = msgm.classifier.DoNothing().forget(network, data, {"labels": [2]})
    """

    card = Card("the original model", "control", needs=(), family="none", touches="nothing")

    def _forget(self, model: nn.Module, split: Split, settings: Settings, ledger: Ledger) -> nn.Module:
        return model
