"""How strongly a request affects the rows of users and items, and how important they are to the retained cells."""

import torch
from torch import Tensor

from msgm.recommender.gradients.objectives import Objective, Tables


def spread(objective: Objective, forgotten: Tensor, hops: int) -> tuple[Tensor, Tensor]:
    """Return the (U,) and (I,) weights w_hops of ``ifru``, >= 0.

    Args:
        objective: for the cells, which are the edges of the graph.
        forgotten: (n,) mask of the cells.
        hops: k.
    """
    users, items = objective.users, objective.items
    sizes = objective.shape
    degrees = [1 + torch.bincount(at, minlength=size) for at, size in zip((users, items), sizes, strict=True)]
    of_users, of_items = (
        torch.bincount(at[forgotten], minlength=size) / degree
        for at, size, degree in zip((users, items), sizes, degrees, strict=True)
    )
    for _ in range(hops):
        to_users = torch.bincount(users, of_items[items], minlength=sizes[0]) / degrees[0]
        to_items = torch.bincount(items, of_users[users], minlength=sizes[1]) / degrees[1]
        of_users, of_items = of_users + to_users, of_items + to_items
    return of_users, of_items


def diagonal_fisher(objective: Objective, cells: Tensor, probes: int, generator: torch.Generator) -> Tables:
    """Return an estimate of sum over the cells of (grad l)^2, of the shape of the tables, >= 0.

    With r_z = +1 or -1 at random, the square of sum r_z grad l_z has that expectation; ``probes`` of it are averaged.

    Args:
        objective: for losses and tables.
        cells: their places.
        probes: gradients to take.
        generator: of the signs.
    """
    tables = {name: table.clone().requires_grad_() for name, table in objective.tables.items()}
    squares = {name: torch.zeros_like(table) for name, table in objective.tables.items()}
    losses = objective.losses(tables, cells)
    for _ in range(probes):
        signs = 2.0 * torch.randint(2, losses.shape, generator=generator) - 1
        slopes = torch.autograd.grad(losses @ signs.double(), list(tables.values()), retain_graph=True)
        for name, slope in zip(tables, slopes, strict=True):
            squares[name] += slope.square() / probes
    return squares
