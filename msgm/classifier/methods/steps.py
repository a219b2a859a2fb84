"""Optimiser steps that the gradient-based methods share.

Where a method's own settings do not say otherwise, steps are taken as the original model was trained: its optimiser,
momentum, weight decay, batch size, augmentation and precision, at the method's own rate, which stays constant. Inputs
keep the standardisation of the original model. Methods that see forget items hold batch normalisation at the original's
running statistics: those of a batch of forget items (of one class, say) are no statistics of the data.
"""

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from msgm.checks import at_least, positive
from msgm.classifier.data import Examples, Split
from msgm.classifier.methods.base import Ledger, Method, Settings
from msgm.classifier.training import augmented, seeded, training_mode
from msgm.errors import UserError
from msgm.ranges import Range, ranges
from msgm.seeding import derive_seed

AS_TRAINED = "steps as in the original training (optimiser, batch size, augmentation) at a constant rate"
HELD = "batch normalisation is held at the original's statistics"

Batch = tuple[Tensor, ...]
"""Inputs and labels, in turn: (x, y), or (x, y, x', y') for two parts of the data."""
Loss = Callable[..., Tensor | None]


@dataclass(frozen=True)
class GradientMethod(Method):
    """Settings of the methods that take optimiser steps.

    Attributes:
        epochs: passes over the data.
        lr: learning rate; None takes ``lr_share`` of the original training's peak rate.
        lr_share: such a share, so that a default chosen on one network suits the rate of another.
    """

    epochs: int = 5
    lr: float | None = None
    lr_share: float = 0.1

    search = ranges(lr=Range(1e-4, 0.5, log=True), lr_share=Range(0.003, 1.0, log=True))

    def __post_init__(self) -> None:
        at_least(1, self, "methods", "epochs")
        positive(self, "methods", "lr", "lr_share")

    def rate(self, settings: Settings) -> float:
        """Return the learning rate."""
        return self.lr_share * settings.training.lr if self.lr is None else self.lr


@dataclass
class Descent:
    """Optimiser steps on a model, which keep their momentum from one pass to the next.

    Attributes:
        model: the model that moves.
        lr: learning rate.
        settings: of the request.
        ledger: where items are counted.
        still: modules in eval mode throughout: their statistics stay, their dropout is off.
    """

    model: nn.Module
    lr: float
    settings: Settings
    ledger: Ledger
    still: Sequence[nn.Module] = ()
    optimiser: torch.optim.Optimizer = field(init=False)
    _batches: int = field(default=0, init=False)

    def __post_init__(self) -> None:
        self.optimiser = self.settings.training.optimiser_of(self.model, self.lr)

    def run(self, batches: Iterable[Batch], loss: Loss) -> nn.Module:
        """Take an optimiser step on ``loss(*batch)`` for every batch, none where it is None; return the model.

        Dropout masks are seeded by (seed, batch number); torch's global generator is left unchanged.
        """
        device, training = self.settings.device, self.settings.training
        with seeded(device, self.settings.seed, "dropout", self._batches):
            for batch in batches:
                training_mode(self.model, any(len(x) == 1 for x in batch[::2]), self.still)
                with torch.autocast(device.type, torch.bfloat16, enabled=training.precision == "bf16"):
                    value = loss(*batch)
                if value is not None:
                    self.optimiser.zero_grad()
                    value.backward()
                    self.optimiser.step()
                self.ledger.saw(sum(len(x) for x in batch[::2]))
                self._batches += 1
        self.optimiser.zero_grad()
        return self.model


def cross_entropy(model: nn.Module) -> Loss:
    """Return the function of a batch (x, y) that gives its mean cross-entropy."""
    return lambda x, y: F.cross_entropy(model(x), y)


def shuffled(examples: Examples, settings: Settings, *stream: int | str) -> Iterator[tuple[Tensor, Tensor]]:
    """Yield every (inputs, labels) once, in the order and with the augmentation of (seed, stream)."""
    training, seed = settings.training, derive_seed(settings.seed, *stream)
    for number, (x, y) in enumerate(examples.batches(training.batch_size, seed, device=settings.device)):
        yield augmented(x, training.augment, seed, number), y


def passes(examples: Examples, epochs: int, settings: Settings, *stream: int | str) -> Iterator[tuple[Tensor, Tensor]]:
    """Yield the batches of ``epochs`` passes, each in an order of its own."""
    for epoch in range(epochs):
        yield from shuffled(examples, settings, *stream, epoch)


def retained_classes(split: Split) -> Tensor:
    """Return the sorted class numbers that the retain set has items of; at least two, as ``split_by`` sees to."""
    return split.retain.labels.unique()


def require_class_request(method: Method, split: Split) -> None:
    """Refuse a request for single items, where a method moves the decision boundary of whole classes."""
    if split.scope != "class":
        raise UserError(f"methods.name: {method.name} forgets whole classes, and this request empties none.")
