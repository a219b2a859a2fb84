"""SISA under the common signature: an ensemble of isolated shards that retrains those which held the forget set."""

from dataclasses import asdict, dataclass
from typing import Literal

from torch import nn

from msgm.checks import at_least
from msgm.classifier.data import Split
from msgm.classifier.methods.base import METHODS, Card, Ledger, Method, Settings
from msgm.classifier.outputs import credit
from msgm.classifier.sisa import SISA, Ensemble, expected_cost
from msgm.classifier.training import logits
from msgm.seeding import derive_seed


@METHODS.register("sisa")
@dataclass(frozen=True)
class Sisa(Method):
    """Train an ensemble on all training items as preparation, then forget the request as one batch.

    Where the ensemble is stored, the next request continues with it. Shards and slices are drawn over all training
    items; items of earlier requests are left out of them as if they had been forgotten here.

    Example:
        >>> made = msgm.classifier.Sisa(shards=2).forget(network, data, {"labels": [2]}, held_out=unseen)

    Attributes:
        shards: S, models of the ensemble.
        slices: R, checkpoints of each shard.
        aggregation: ``mean`` of the softmax, ``proportional`` to the shards' sizes, or ``vote``.
    """

    shards: int = 5
    slices: int = 1
    aggregation: Literal["mean", "proportional", "vote"] = "mean"

    card = Card(
        formula="S models on disjoint shards of R checkpoints; train again from the last checkpoint before the items",
        source="Bourtoule et al., IEEE S&P 2021, arXiv 1912.03817",
        needs=("retain", "forget", "tuning"),
        family="exact",
        deviations=(
            "its original is an ensemble of its own, trained as preparation, and not the given model, which lends its "
            "architecture alone; a fresh optimiser and schedule at each slice; all items are used, where N mod S are "
            "dropped elsewhere; ties of votes go to the larger mean softmax; tuning items tell the accuracy before the "
            "request and decide nothing"
        ),
    )

    def __post_init__(self) -> None:
        at_least(1, self, "methods", "shards", "slices")

    def _forget(self, model: nn.Module, split: Split, settings: Settings, ledger: Ledger) -> nn.Module:
        seed = derive_seed(settings.seed, self.name)
        train = split.train if split.gone is None else split.train.join(split.gone).in_order()
        with ledger.preparing():
            system = SISA(
                lambda number: _network(model, settings, number),
                settings.training,
                seed,
                self.shards,
                self.slices,
                self.aggregation,
                settings.device,
                settings.folder,
            )
            trained = system.fit(train, () if split.gone is None else split.gone.indices)
            size = system.checkpoints.size()
            outputs = logits(system.ensemble(), split.tuning, settings.device)
            right = credit(outputs.numpy(), split.tuning.labels.numpy())
        work = system.forget(split.forget.indices)
        ledger.saw(work.points)
        ledger.stored(size)
        epochs, count, weights = settings.training.epochs, len(split.forget), size // (self.shards * self.slices)
        ledger.artefacts |= {
            "shards_retrained": len(work.shards),
            "stages_retrained": work.stages,
            "points_visited": work.points,
            "points_of_training": trained.points,
            "checkpoints_dropped": work.deleted,
            "tuning_accuracy_before": float(right.mean()),
            "expected": asdict(expected_cost(len(split.train), self.shards, self.slices, epochs, count, weights)),
        }
        return system.ensemble()


def _network(model: nn.Module, settings: Settings, seed: int) -> nn.Module:
    """Return a fresh network for a shard; an existing ensemble has no single network's weights to compare with."""
    if isinstance(model, Ensemble):
        return settings.build(seed).to(settings.device)
    return settings.fresh(model, seed)
