"""Some rows of a model's tables as one vector, for gradients and Hessians of these rows alone."""

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from msgm.recommender.gradients.objectives import Objective, Tables


@dataclass(frozen=True, eq=False)
class Block:
    """Rows of users and rows of items.

    As a vector, the users' rows come first, each the concatenation of the user's rows in all tables; then the items'.

    Attributes:
        objective: whose tables.
        users: (n,) rows of the user tables.
        items: (m,) rows of the item tables.
    """

    objective: Objective
    users: Tensor
    items: Tensor

    def vector(self, tables: Tables) -> Tensor:
        """Return the (p,) entries of these rows."""
        sides = ((self.objective.user_tables, self.users), (self.objective.item_tables, self.items))
        rows = [torch.cat([_flat(tables[name])[at] for name in names], 1) for names, at in sides]
        return torch.cat([part.flatten() for part in rows])

    def put(self, vector: Tensor, tables: Tables) -> Tables:
        """Return the tables with these rows replaced by ``vector``, differentiable in it; other rows are unchanged."""
        found, start = dict(tables), 0
        for names, at in ((self.objective.user_tables, self.users), (self.objective.item_tables, self.items)):
            widths = [_flat(tables[name]).shape[1] for name in names]
            stop = start + len(at) * sum(widths)
            parts = vector[start:stop].reshape(len(at), sum(widths)).split(widths, 1)
            for name, part in zip(names, parts, strict=True):
                found[name] = _flat(tables[name]).index_copy(0, at, part).reshape(tables[name].shape)
            start = stop
        return found

    def cells(self) -> Tensor:
        """Return the places of the cells whose loss depends on these rows."""
        if self.objective.local:
            return self.objective.near(self.users, self.items)
        return torch.arange(len(self.objective.users))

    def loss(self, objective: Objective, tables: Tables) -> Callable[[Tensor], Tensor]:
        """Return ``objective`` as a function of the vector, without the losses that do not depend on these rows."""
        cells = self.cells()
        return lambda vector: objective.total(self.put(vector, tables), cells)


def _flat(table: Tensor) -> Tensor:
    return table.reshape(len(table), -1)
