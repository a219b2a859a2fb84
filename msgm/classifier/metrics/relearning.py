"""Relearn time: steps of fine-tuning on the forget items until their loss is as low as in the original model again.

Few steps where many are needed from a retrained model mean that the information was hidden, not removed. Anchors: the
original itself (none, unless ``factor`` is below 1), a network of random weights, and the retrained models through the
band. A copy is trained, in eval mode: batch normalisation's statistics stay, dropout is off, nothing is drawn globally.

Deviations: the literature counts epochs of the training's own optimiser; steps of plain SGD tell models apart better.
"""

import copy
from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING
from weakref import WeakKeyDictionary

from msgm.checks import at_least, positive
from msgm.classifier.metrics.base import METRICS, Case, Live, Metric, Number
from msgm.seeding import derive_seed, generator

if TYPE_CHECKING:
    import torch
    from torch import Tensor, nn

    from msgm.classifier.data import Examples, Split

# The anchor is one number for all models of a comparison, so it is kept while their split lives.
_anchors: "WeakKeyDictionary[Split, dict[tuple[object, ...], float]]" = WeakKeyDictionary()


@METRICS.register("relearning")
@dataclass(frozen=True)
class Relearning(Metric):
    """Relearn time in steps.

    Example:
        >>> found = Relearning(cap=30).measure(case)
        >>> found["relearn_steps"] < found["relearn_steps_random"] == 30
        True

    Attributes:
        cap: steps at most; a model that has not arrived by then gets this number.
        factor: how many times the original's loss on the forget items is low enough.
        floor: a loss in nats that is low enough whatever the original's.
        lr_share: share of the training's peak learning rate; by plain SGD, without momentum, decay or schedule.
        items: forget items at most, drawn at random when there are more.
    """

    numbers = {  # noqa: RUF012
        "relearn_steps": Number("steps on the forget items until their loss is the original's again", "residue"),
        "relearn_steps_random": Number("the same from random weights", "residue"),
    }
    live = True

    cap: int = 200
    factor: float = 1.5
    floor: float = 0.01
    lr_share: float = 0.25
    items: int = 500

    def __post_init__(self) -> None:
        at_least(1, self, "options.relearning", "cap", "items")
        positive(self, "options.relearning", "factor", "floor", "lr_share")

    def measure(self, case: Case) -> dict[str, float | None]:
        live = case.live
        if live is None or not len(live.split.forget):
            return dict.fromkeys(self.numbers)
        settings = live.settings
        examples = live.split.forget.drawn(self.items, settings.seed, "relearn-items")
        x, y = _resident(examples, settings.device)
        goal = max(self.factor * forget_loss(copy.deepcopy(live.original).to(x.device).eval(), x, y), self.floor)
        known = _anchors.setdefault(live.split, {})
        key = (self, repr(settings.training), settings.seed, goal)
        if key not in known:
            seed = derive_seed(settings.seed, "relearn-random")
            untrained = settings.untrained(live.original, live.split.retain, seed)
            known[key] = float(self.steps(untrained, x, y, goal, live))
        own = float(self.steps(live.model, x, y, goal, live))
        return {"relearn_steps": own, "relearn_steps_random": known[key]}

    def steps(self, model: "nn.Module", x: "Tensor", y: "Tensor", goal: float, live: Live) -> int:
        """Return the steps that a copy of ``model`` takes to a loss of at most ``goal`` nats, 0 to ``cap``."""
        import torch
        from torch.nn.functional import cross_entropy

        settings = live.settings
        working = copy.deepcopy(model).to(x.device).eval()
        for value in working.parameters():
            value.requires_grad_(True)
        optimiser = torch.optim.SGD(working.parameters(), lr=self.lr_share * settings.training.lr)
        batches = _batches(len(x), settings.training.batch_size, settings.seed)
        for step in range(self.cap):
            if forget_loss(working, x, y) <= goal:
                return step
            batch = next(batches).to(x.device)
            optimiser.zero_grad()
            cross_entropy(working(x[batch]), y[batch]).backward()
            optimiser.step()
        return self.cap


def forget_loss(model: "nn.Module", x: "Tensor", y: "Tensor") -> float:
    """Return the mean cross-entropy in nats."""
    import torch

    with torch.no_grad():
        return float(torch.nn.functional.cross_entropy(model(x), y))


def _resident(examples: "Examples", device: "torch.device") -> "tuple[Tensor, Tensor]":
    import torch

    return examples.inputs(torch.arange(len(examples)), device), examples.labels.to(device)


def _batches(count: int, size: int, seed: int) -> "Iterator[Tensor]":
    import torch

    epoch = 0
    while True:
        yield from torch.randperm(count, generator=generator(seed, "relearn", epoch)).split(size)
        epoch += 1
