r"""Amnesiac unlearning: subtract from the weights the updates of every batch that held an item to forget, then repair.

Training is a sum of updates, theta = theta_init + sum_t d_t. The method needs d_t of the batches that held forget
items. The original training is deterministic, so they are found by replaying it, ``fit`` on all training items from
weights and orders of ``settings.original_seed``; the replay must end in the given model, byte for byte. Then
theta <- theta - sum_{t in touched} d_t, followed by a short training on the retain set.

A batch of B items holds one of n_f random items of n with a probability of about 1 - (1 - n_f / n)^B: for requests of
more than a few items nearly all training is subtracted, and the repair is what trains the model. The share is reported.
"""

from dataclasses import dataclass, replace

import numpy as np
import torch
from torch import Tensor, nn

from msgm.checks import at_least, positive
from msgm.classifier.data import Split
from msgm.classifier.methods.base import METHODS, Card, Ledger, Method, Settings
from msgm.classifier.training import Step, fit
from msgm.curvature import Weights, weights_of
from msgm.errors import UserError
from msgm.seeding import derive_seed


@METHODS.register("amnesiac")
@dataclass(frozen=True)
class Amnesiac(Method):
    """Amnesiac unlearning.

    Example:
        >>> # It replays the original training, of which it has to know everything.
        >>> made = msgm.classifier.Amnesiac().forget(
        ...     network, data, {"labels": [2]}, training=training, build=build, original_seed=0
        ... )

    Attributes:
        repair_epochs: passes over the retain set afterwards; 0 for none.
        repair_lr: their peak learning rate, other settings as the original training's; None for its own rate.
    """

    repair_epochs: int = 5
    repair_lr: float | None = None

    card = Card(
        formula="theta - sum of the updates of batches that held forget items; then repair on retain",
        source="Graves et al., AAAI 2021",
        needs=("forget", "retain"),
        family="approximate update",
        deviations=(
            "updates come from a replay of the deterministic training, counted as preparation, and storage "
            "counts those that were subtracted; a keeper who knows no request in advance stores all. Buffers (batch "
            "normalisation's statistics) are left to the repair"
        ),
    )

    def __post_init__(self) -> None:
        at_least(0, self, "methods", "repair_epochs")
        positive(self, "methods", "repair_lr")

    def _forget(self, model: nn.Module, split: Split, settings: Settings, ledger: Ledger) -> nn.Module:
        with ledger.preparing():
            kept = replay(model, split, settings)
        ledger.stored(kept.touched * sum(value.numel() * value.element_size() for value in kept.total.values()))
        with torch.no_grad():
            for name, value in model.named_parameters():
                value.sub_(kept.total[name])
        ledger.artefacts |= {"updates_subtracted": kept.touched, "updates_share": kept.touched / kept.steps}
        if not self.repair_epochs:
            return model
        rate = settings.training.lr if self.repair_lr is None else self.repair_lr
        repair = replace(settings.training, epochs=self.repair_epochs, lr=rate)
        ledger.saw(self.repair_epochs * len(split.retain))
        return fit(model, split.retain, repair, derive_seed(settings.seed, self.name), settings.device)


class Touched:
    """A watcher of training that sums the updates of the steps whose batch held a listed item.

    Attributes:
        total: the sum, by weight.
        touched: steps in the sum.
        steps: steps seen.
    """

    def __init__(self, model: nn.Module, listed: Tensor) -> None:
        self.listed = listed
        self.last = _copy(model)
        self.total: Weights = {name: torch.zeros_like(value) for name, value in self.last.items()}
        self.touched = self.steps = 0

    def __call__(self, step: Step) -> None:
        now = _copy(step.model)
        if self.listed[step.positions].any():
            for name, value in now.items():
                self.total[name] += value - self.last[name]
            self.touched += 1
        self.last, self.steps = now, self.steps + 1


def replay(model: nn.Module, split: Split, settings: Settings) -> Touched:
    """Train anew as the original was, and return the updates of the batches that held forget items.

    Raises:
        UserError: the training did not end in the given model.
    """
    seed = settings.original_seed
    again = settings.build(seed).to(settings.device)
    listed = torch.from_numpy(np.isin(split.train.indices, split.forget.indices))
    watch = Touched(again, listed)
    fit(again, split.train, settings.training, seed, settings.device, watch)
    given, found = model.state_dict(), again.state_dict()
    same = given.keys() == found.keys() and all(torch.equal(value, found[name]) for name, value in given.items())
    if not same:
        raise UserError(
            f"amnesiac: training anew from seed {seed} does not give this model, so its updates are unknown; "
            "it needs the original's own data, settings and seed, and a device that computes alike every time."
        )
    return watch


def _copy(model: nn.Module) -> Weights:
    return {name: value.clone() for name, value in weights_of(model).items()}
