r"""SCRUB: a student leaves its teacher on the forget set and stays with it on the retain set.

The teacher is the original model, frozen, and the student starts from it. With d(x) = tau^2 KL(teacher || student),
epoch e = 1, 2, ... makes a pass over the forget set on -d if e <= max_epochs, then one over the retain set on
gamma CE + alpha d. At the start the two models agree, where d has its minimum and a zero gradient: without dropout the
first pass over the forget set changes next to nothing, and forgetting starts at the second.

SCRUB+R rewinds: of the models after 0, 1, ..., ``epochs`` epochs it returns the one whose error on the forget set is
closest to the error that the last one makes on unseen items of the same classes.
"""

from dataclasses import dataclass, replace

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from msgm.checks import at_least, positive
from msgm.classifier.data import Examples, Split
from msgm.classifier.methods.base import METHODS, Card, Ledger, Settings
from msgm.classifier.methods.distillation import divergence, frozen, soft
from msgm.classifier.methods.steps import AS_TRAINED, HELD, Descent, GradientMethod, shuffled
from msgm.classifier.outputs import credit
from msgm.classifier.training import logits, norms
from msgm.ranges import Range, ranges

State = dict[str, Tensor]


@METHODS.register("scrub")
@dataclass(frozen=True)
class Scrub(GradientMethod):
    """SCRUB, and SCRUB+R with ``rewind``.

    Example:
        >>> made = msgm.classifier.Scrub(epochs=2).forget(network, data, {"labels": [2]})

    Attributes:
        epochs: passes over the retain set.
        lr_share: learning rate over the original training's; ``lr`` itself wins.
        max_epochs: how many of the epochs begin with a pass over the forget set.
        alpha: weight of the divergence on retain items.
        gamma: weight of the cross-entropy on retain items.
        temperature: tau of both divergences.
        forget_batch_size: forget items a step; retain items come in the original training's batches.
        rewind: return the epoch whose forget error is closest to that on unseen items (SCRUB+R).
    """

    epochs: int = 10
    lr_share: float = 0.3
    max_epochs: int = 2
    alpha: float = 0.5
    gamma: float = 1.0
    temperature: float = 2.0
    forget_batch_size: int = 16
    rewind: bool = False

    search = ranges(alpha=Range(0.05, 2.0, log=True), temperature=Range(1.0, 8.0))
    card = Card(
        formula="epochs to max_epochs: -tau^2 KL(teacher || student) on forget; all: gamma CE + alpha KL on retain",
        source=(
            "Kurmanji et al., NeurIPS 2023; published code: Adam 5e-4, weight decay .1, 10 epochs, 3 max, "
            "forget batches of 64, retain of 32, tau 2; or SGD 5e-4, 5 epochs, forget batches of 16, tau 4"
        ),
        needs=("forget", "retain", "tuning"),
        family="distillation",
        deviations=(
            f"{AS_TRAINED} (published ones step down); lr_share and max_epochs chosen on digits' tuning items; {HELD}; "
            "tuning items are read by rewind alone, the original may win there as epoch 0, and of equally close epochs "
            "the latest wins"
        ),
    )

    def __post_init__(self) -> None:
        super().__post_init__()
        at_least(1, self, "methods", "forget_batch_size")
        at_least(0, self, "methods", "max_epochs", "alpha", "gamma")
        positive(self, "methods", "temperature")

    def reads(self) -> tuple[str, ...]:
        return self.card.needs if self.rewind else ("forget", "retain")

    def _forget(self, model: nn.Module, split: Split, settings: Settings, ledger: Ledger) -> nn.Module:
        teacher, kept = frozen(model), [_state(model)]
        descent = Descent(model, self.rate(settings), settings, ledger, norms(model))
        small = replace(settings, training=replace(settings.training, batch_size=self.forget_batch_size))

        def leave(x: Tensor, _: Tensor) -> Tensor:
            return -divergence(model(x), soft(teacher, x, self.temperature), self.temperature)

        def stay(x: Tensor, y: Tensor) -> Tensor:
            out = model(x)
            away = divergence(out, soft(teacher, x, self.temperature), self.temperature)
            return self.gamma * F.cross_entropy(out, y) + self.alpha * away

        for epoch in range(1, self.epochs + 1):
            if epoch <= self.max_epochs:
                descent.run(shuffled(split.forget, small, self.name, "forget", epoch), leave)
            descent.run(shuffled(split.retain, settings, self.name, "retain", epoch), stay)
            if self.rewind:
                kept.append(_state(model))
        if self.rewind:
            ledger.artefacts |= rewound(model, kept, split, settings.device)
        return model


def rewound(
    model: nn.Module, kept: list[State], split: Split, device: torch.device
) -> dict[str, int | float | list[float]]:
    """Load into ``model`` the kept state that rewinding picks.

    Args:
        model: the last one; changed in place.
        kept: states by epoch, the first before any.
        split: of which the forget set and the tuning items are read: those of the forget set's classes, if any.
        device: where to compute.

    Returns:
        ``epoch`` picked, ``forget_errors`` by epoch, and ``unseen_error`` of the last model, in [0, 1].
    """
    same = np.flatnonzero(torch.isin(split.tuning.labels, split.forget.labels).numpy())
    unseen = _error(model, split.tuning.subset(same) if len(same) else split.tuning, device)
    errors = []
    for state in kept:
        model.load_state_dict(state)
        errors.append(_error(model, split.forget, device))
    chosen = min(range(len(kept)), key=lambda epoch: (abs(errors[epoch] - unseen), -epoch))
    model.load_state_dict(kept[chosen])
    return {"epoch": chosen, "forget_errors": errors, "unseen_error": unseen}


def _error(model: nn.Module, examples: Examples, device: torch.device) -> float:
    return float(1 - credit(logits(model, examples, device).numpy(), examples.labels.numpy()).mean())


def _state(model: nn.Module) -> State:
    return {name: value.detach().clone() for name, value in model.state_dict().items()}
