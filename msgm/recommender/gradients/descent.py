"""Some steps of Adam on a model's tables."""

from collections.abc import Callable

import torch
from torch import Tensor

from msgm.errors import RunError
from msgm.recommender.gradients.objectives import Tables
from msgm.seeding import generator


def descend(
    tables: Tables, loss: Callable[[Tables, int], Tensor | None], steps: int, rate: float
) -> tuple[Tables, int]:
    """Return the tables after steps of Adam, and how many were taken.

    Args:
        tables: to begin with; they are left as they are.
        loss: of tables and the number of the step; None ends the descent.
        steps: at most.
        rate: Adam's learning rate.

    Raises:
        RunError: the loss is not finite.
    """
    found = {name: table.clone().requires_grad_() for name, table in tables.items()}
    optimiser = torch.optim.Adam(found.values(), lr=rate)
    taken = 0
    for step in range(steps):
        value = loss(found, step)
        if value is None:
            break
        if not torch.isfinite(value):
            raise RunError(f"the loss is {value.item()} at step {step}; a smaller methods.learning_rate may help.")
        optimiser.zero_grad()
        value.backward()
        optimiser.step()
        taken += 1
    return {name: table.detach() for name, table in found.items()}, taken


def batch_of(cells: Tensor, size: int, seed: int, step: int) -> Tensor:
    """Return at most ``size`` of the cells, drawn without replacement for this step; all where there are no more."""
    if len(cells) <= size:
        return cells
    order = torch.randperm(len(cells), generator=generator(seed, "gradients", "batch", step))
    return cells[order[:size]]
