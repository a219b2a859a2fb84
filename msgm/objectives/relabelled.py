"""The network's own prediction under a label to retain, taught at forget items of a class-conditional model."""

import torch
from torch import Tensor

from msgm.diffusion.conditions import Condition
from msgm.objectives.base import Noised, Predict
from msgm.objectives.setup import Setup


def retained_labels(setup: Setup, classes: int) -> list[int]:
    """Return the labels that retain items have and no forget item has; all that retain items have where none is so."""
    kept = setup.retained or range(classes)
    return [label for label in kept if label not in setup.forgotten] or list(kept)


def told_labels(batch: Noised) -> Tensor | None:
    """Return the (B,) labels that a batch is told, -1 where it is told none; None where the network reads no label."""
    return None if batch.condition is None else batch.condition.labels


def under(predict: Predict, batch: Noised, labels: Tensor, others: Tensor, absent: Tensor) -> Tensor:
    """Return the prediction under other labels, without its gradient, as a target (B, *shape).

    Args:
        predict: the network.
        batch: forget items.
        labels: (B,) that they are told, -1 for none.
        others: (B,) labels in place of them.
        absent: (B, *shape) the target of items that are told no label.
    """
    asked = Condition(torch.where(labels < 0, labels, others))
    with torch.no_grad():
        own = predict(batch.x, batch.t, asked).to(absent)
    return torch.where((labels < 0).view(-1, *[1] * (own.dim() - 1)), absent, own)
