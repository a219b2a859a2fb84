"""Boundary expand: forget items are taught an extra class, whose node is then dropped.

    z_{C+1}(x) = w . h(x) + b,   minimise CE((z_1 .. z_{C+1})(x), C + 1) over the forget items,   return z_1 .. z_C,

with h the inputs of the model's last linear layer. The extra node takes the forgotten class' region of feature space;
without the node, its items fall to whichever class is left.
"""

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from msgm.classifier.data import Split
from msgm.classifier.methods.base import METHODS, Card, Ledger, Settings
from msgm.classifier.methods.steps import AS_TRAINED, HELD, Descent, GradientMethod, passes, require_class_request
from msgm.classifier.networks import head
from msgm.classifier.training import norms
from msgm.errors import UserError


@METHODS.register("boundary-expand")
@dataclass(frozen=True)
class BoundaryExpand(GradientMethod):
    """Boundary expand.

    Example:
        >>> made = msgm.classifier.BoundaryExpand(epochs=2).forget(network, data, {"labels": [2]})

    Attributes:
        epochs: passes over the forget set.
        lr_share: learning rate over the original training's; ``lr`` itself wins.
    """

    epochs: int = 5
    lr_share: float = 0.02

    card = Card(
        formula="descend CE on forget items under an extra class C + 1, then drop its node",
        source="Chen et al., CVPR 2023, section 3.3; 10 epochs, lr searched from 1e-8 on",
        needs=("forget",),
        family="approximate update",
        deviations=f"the extra node starts from zero weights; {HELD}; {AS_TRAINED}",
        scopes=("class",),
    )

    def _forget(self, model: nn.Module, split: Split, settings: Settings, ledger: Ledger) -> nn.Module:
        require_class_request(self, split)
        expanded = _Expanded(model, len(split.classes)).to(settings.device)

        def loss(x: Tensor, y: Tensor) -> Tensor:
            return F.cross_entropy(expanded(x), torch.full_like(y, len(split.classes)))

        descent = Descent(expanded, self.rate(settings), settings, ledger, still=norms(model))
        try:
            descent.run(passes(split.forget, self.epochs, settings, self.name), loss)
        finally:
            expanded.drop()
        return model


class _Expanded(nn.Module):
    """A classifier with one more node on the features of its head; the classifier itself keeps its C nodes."""

    def __init__(self, model: nn.Module, classes: int) -> None:
        super().__init__()
        last = head(model)
        if last.out_features != classes:
            raise UserError(
                f"methods.name: boundary-expand needs a last linear layer of {classes} outputs, the logits; "
                f"this model's has {last.out_features}."
            )
        self.model = model
        self.node = nn.utils.skip_init(nn.Linear, last.in_features, 1)  # draws nothing
        nn.init.zeros_(self.node.weight)
        nn.init.zeros_(self.node.bias)
        self._seen: list[Tensor] = []
        self._handle = last.register_forward_pre_hook(lambda _, inputs: self._seen.append(inputs[0]))

    def forward(self, x: Tensor) -> Tensor:
        logits = self.model(x)
        return torch.cat([logits, self.node(self._seen.pop())], dim=1)

    def drop(self) -> None:
        """Detach from the classifier's head."""
        self._handle.remove()
