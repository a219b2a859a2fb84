"""Random labels: the forget items are learnt again under labels that are not theirs.

    minimise  CE(x, y'),  x in D_f, y' uniform over the classes;   CE(x, y),  (x, y) in D_r.

``sequential`` takes, every epoch, a pass over the forget items and then one over the retain items; ``mixed`` shuffles
both into one. ``fresh`` labels are drawn anew whenever an item comes up, which is once an epoch (public code that draws
them for every batch and public code that draws them for every epoch do the same); ``fixed`` ones are drawn once.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor, nn

from msgm.classifier.data import Examples, Split
from msgm.classifier.methods.base import METHODS, Card, Ledger, Settings
from msgm.classifier.methods.steps import (
    AS_TRAINED,
    HELD,
    Descent,
    GradientMethod,
    cross_entropy,
    retained_classes,
    shuffled,
)
from msgm.classifier.training import norms
from msgm.seeding import generator


@METHODS.register("random-label")
@dataclass(frozen=True)
class RandomLabel(GradientMethod):
    """Random labels (RL).

    Example:
        >>> made = msgm.classifier.RandomLabel(epochs=2).forget(network, data, {"labels": [2]})

    Attributes:
        epochs: passes over the forget and the retain set.
        lr_share: learning rate over the original training's; ``lr`` itself wins.
        label_policy: ``fresh`` labels every epoch, or ``fixed`` ones.
        exclude_true: draw among the classes that the retain set has, but for the item's own; else among all classes.
        order: ``sequential``, a forget pass and then a retain pass, or ``mixed``.
    """

    epochs: int = 10
    lr_share: float = 0.5
    label_policy: Literal["fresh", "fixed"] = "fresh"
    exclude_true: bool = True
    order: Literal["sequential", "mixed"] = "mixed"

    card = Card(
        formula="descend CE on forget items under random labels and on retain items under their own",
        source=(
            "Golatkar et al., CVPR 2020; Fan et al., ICLR 2024, baseline: 10 epochs, lr 0.01, fresh labels, the true "
            "one allowed; sequential for CIFAR-10, mixed for CIFAR-100"
        ),
        needs=("retain", "forget"),
        family="approximate update",
        deviations=f"the true label is excluded and the order mixed by default; {HELD}; {AS_TRAINED}",
    )

    def _forget(self, model: nn.Module, split: Split, settings: Settings, ledger: Ledger) -> nn.Module:
        descent = Descent(model, self.rate(settings), settings, ledger, still=norms(model))
        return descent.run(self.batches(split, settings), cross_entropy(model))

    def batches(self, split: Split, settings: Settings) -> Iterator[tuple[Tensor, Tensor]]:
        """Yield the batches of all epochs, forget items under random labels."""
        for epoch in range(self.epochs):
            stream = (settings.seed, "labels", epoch if self.label_policy == "fresh" else 0)
            forget = self.relabelled(split, *stream)
            if self.order == "mixed":
                yield from shuffled(forget.join(split.retain), settings, "mixed", epoch)
                continue
            yield from shuffled(forget, settings, "forget", epoch)
            yield from shuffled(split.retain, settings, "retain", epoch)

    def relabelled(self, split: Split, *stream: int | str) -> Examples:
        """Return the forget items under labels drawn from the stream's name."""
        draws = generator(*stream)
        if not self.exclude_true:
            return split.forget.relabelled(torch.randint(len(split.classes), (len(split.forget),), generator=draws))
        classes = retained_classes(split)
        allowed = classes != split.forget.labels[:, None]
        chosen = torch.multinomial(allowed.float(), 1, generator=draws).squeeze(1)
        return split.forget.relabelled(classes[chosen])
