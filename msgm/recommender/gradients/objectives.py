r"""The objective of a fitted model as a differentiable function of its tables.

Every model here was fitted to

    L(theta; w) = sum over the cells z it has seen of w_z l(z; theta)  +  Omega(theta),        w_z = 1,

and a request for the cells F changes L to L_F: w_z = 0 on F, and whatever else a fit reads off the cells (a mean, a
graph) as it is without them. With s = x_ui, in models fitted by alternating least squares:

- ALS:  l = (1 + alpha) (1 - s)^2 - s^2,  Omega = sum over all u, i of s^2 + lambda (|P|^2 + |Q|^2): taking l away
  leaves a cell with the weight and the value of one never seen;
- MF:   l = (r - s)^2 + lambda (b_u^2 + |p_u|^2 + c_i^2 + |q_i|^2),  Omega = 0;

and for models fitted to triples see ``pairwise``. Each L is twice differentiable; with one side's tables held, s is
linear in the other's, and L is convex in it. Computation is in float64; the model's tables keep their own type.
"""

import copy
from abc import ABC, abstractmethod
from typing import Any, ClassVar, Self, cast

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from msgm.errors import UserError
from msgm.recommender.gradients.pairs import Pairs
from msgm.recommender.models.als import ALS
from msgm.recommender.models.base import Recommender
from msgm.recommender.models.mf import MF
from msgm.recommender.requests import Deletion
from msgm.recommender.sparse import rows_of

Tables = dict[str, Tensor]


class Objective(ABC):
    """L of one fitted model; the model itself is only read.

    Attributes:
        users: (n,) rows of the cells that the model has seen, in the order of ``seen.data``.
        items: (n,) their columns.
        values: (n,) their values.
        weights: (n,) w, 1 to begin with.
        tables: float64 copies of the fitted tables, by name; the first axis counts users, or items.
        user_tables: names of those that count users.
        item_tables: names of those that count items.
        local: whether a cell's loss reads no rows but those of its user, its item and its negatives.
    """

    user_tables: ClassVar[tuple[str, ...]] = ("user_factors",)
    item_tables: ClassVar[tuple[str, ...]] = ("item_factors",)
    local: ClassVar[bool] = True

    def __init__(self, model: Recommender, seed: int) -> None:
        seen = model.seen
        self.shape = seen.shape
        self.users = torch.from_numpy(rows_of(seen))
        self.items = torch.from_numpy(seen.indices.astype(np.int64))
        self.values = torch.from_numpy(seen.data.astype(np.float64))
        self.weights = torch.ones(seen.nnz, dtype=torch.float64)
        self.tables = self.read(model)

    def read(self, model: Recommender) -> Tables:
        """Return float64 copies of the model's tables."""
        names = (*self.user_tables, *self.item_tables)
        return {name: torch.from_numpy(getattr(model, name).astype(np.float64)) for name in names}

    def store(self, model: Recommender, tables: Tables) -> None:
        """Write these tables into the model, cast to its dtype."""
        for name, table in tables.items():
            old: NDArray[Any] = getattr(model, name)
            setattr(model, name, table.detach().numpy().astype(old.dtype))

    def cleared(self, tables: Tables, deletion: Deletion) -> Tables:
        """Return the tables with zeros in the rows of the users and items that are forgotten as a whole."""
        found = dict(tables)
        for names, numbers in ((self.user_tables, deletion.users), (self.item_tables, deletion.items)):
            found |= {name: found[name].index_fill(0, torch.from_numpy(numbers), 0) for name in names}
        return found

    def rows_changed(self, tables: Tables) -> int:
        """Return how many users and items have a row that differs from ``self.tables``."""
        changed = 0
        for names in (self.user_tables, self.item_tables):
            sides = [(tables[name] != self.tables[name]).reshape(len(tables[name]), -1).any(1) for name in names]
            changed += int(torch.stack(sides).any(0).sum())
        return changed

    @abstractmethod
    def losses(self, tables: Tables, cells: Tensor) -> Tensor:
        """Return (m,) l of the cells with these places, not weighted."""

    def flipped(self, tables: Tables, cells: Tensor) -> Tensor:
        """Return (m,) losses of the cells with the opposite label; each is bounded below by 0.

        Raises:
            UserError: ratings have no opposite.
        """
        raise UserError("label flipping is for cells that say yes or no; this model is fitted to ratings.")

    def background(self, tables: Tables) -> Tensor:
        """Return Omega."""
        return torch.zeros((), dtype=torch.float64)

    def total(self, tables: Tables, cells: Tensor) -> Tensor:
        """Return Omega and the weighted losses of the cells with these places; of all cells, it is L."""
        return (self.weights[cells] * self.losses(tables, cells)).sum() + self.background(tables)

    def pairs(self, cells: Tensor) -> Pairs:
        """Return the (m,) pairs of user and item that the cells are."""
        return Pairs(self.users[cells].numpy(), self.items[cells].numpy(), self.shape)

    def user_hessians(self, tables: Tables, users: Tensor) -> Tensor:
        """Return (n, w, w) Hessians of L in the row of each of these users, w entries long; for local models."""
        shared = self.background_hessian(tables)
        stops = torch.bincount(self.users, minlength=self.shape[0]).cumsum(0)
        starts = [0, *stops.tolist()]
        rows = [torch.arange(starts[u], starts[u + 1]) for u in users.tolist()]
        return torch.stack([shared + self.user_hessian(tables, cells) for cells in rows])

    def user_hessian(self, tables: Tables, cells: Tensor) -> Tensor:
        """Return the (w, w) Hessian, in a user's row, of the weighted losses of all of the user's cells."""
        raise NotImplementedError(f"{type(self).__name__} is not local")

    def background_hessian(self, tables: Tables) -> Tensor:
        """Return the Hessian of Omega in a user's row, (w, w) or a scalar 0; the same for every user."""
        return torch.zeros((), dtype=torch.float64)

    def near(self, users: Tensor, items: Tensor) -> Tensor:
        """Return the places of the cells whose loss reads a row of these users or items."""
        of_user, of_item = torch.zeros(self.shape[0], dtype=torch.bool), torch.zeros(self.shape[1], dtype=torch.bool)
        of_user[users], of_item[items] = True, True
        return torch.nonzero(of_user[self.users] | of_item[self.items]).squeeze(1)

    def without(self, forgotten: Tensor) -> Self:
        """Return L_F for the (n,) mask of F; the tables are shared."""
        rest = copy.copy(self)
        rest.weights = self.weights.masked_fill(forgotten, 0)
        return rest

    def replaced(self, forgotten: Tensor) -> Self:
        """Return L_F with the forgotten cells added back, labelled by the other users' feedback on the item.

        For implicit feedback a cell is weighted by the share of users who have the item, among those who retain any
        cell: the expected loss under that probability of an interaction.
        """
        kept_items = torch.bincount(self.items[~forgotten], minlength=self.shape[1]).double()
        rest = self.without(forgotten)
        people = max(len(torch.unique(self.users[~forgotten])), 1)
        rest.weights = torch.where(forgotten, (kept_items / people)[self.items], rest.weights)
        return rest


class ALSObjective(Objective):
    """The objective of ``ALS``."""

    def __init__(self, model: ALS, seed: int) -> None:
        super().__init__(model, seed)
        self.alpha, self.regularisation = model.alpha, model.regularisation

    def scores(self, tables: Tables, cells: Tensor) -> Tensor:
        """Return (m,) s."""
        return self.pairs(cells).dots(tables["user_factors"], tables["item_factors"])

    def losses(self, tables: Tables, cells: Tensor) -> Tensor:
        scores = self.scores(tables, cells)
        return (1 + self.alpha) * (1 - scores).square() - scores.square()

    def user_hessian(self, tables: Tables, cells: Tensor) -> Tensor:
        features = tables["item_factors"][self.items[cells]]
        return 2 * self.alpha * (features * self.weights[cells, None]).T @ features

    def background_hessian(self, tables: Tables) -> Tensor:
        items = tables["item_factors"]
        return 2 * (items.T @ items + self.regularisation * torch.eye(items.shape[1], dtype=torch.float64))

    def flipped(self, tables: Tables, cells: Tensor) -> Tensor:
        return self.alpha * self.scores(tables, cells).square()

    def background(self, tables: Tables) -> Tensor:
        users, items = tables["user_factors"], tables["item_factors"]
        return ((users @ (items.T @ items)) * users).sum() + self.regularisation * (
            users.square().sum() + items.square().sum()
        )


class MFObjective(Objective):
    """The objective of ``MF``; the mean rating is taken over the cells with a nonzero weight."""

    user_tables = ("user_bias", "user_factors")
    item_tables = ("item_bias", "item_factors")

    def __init__(self, model: MF, seed: int) -> None:
        super().__init__(model, seed)
        self.regularisation, self.mean = model.regularisation, float(model.mean[0])

    def losses(self, tables: Tables, cells: Tensor) -> Tensor:
        users, items = self.users[cells], self.items[cells]
        products = self.pairs(cells).dots(tables["user_factors"], tables["item_factors"])
        guesses = self.mean + tables["user_bias"][users] + tables["item_bias"][items] + products
        penalty = sum(
            squares(tables, names)[rows] for names, rows in ((self.user_tables, users), (self.item_tables, items))
        )
        return (self.values[cells] - guesses).square() + self.regularisation * penalty

    def user_hessian(self, tables: Tables, cells: Tensor) -> Tensor:
        factors, weights = tables["item_factors"][self.items[cells]], self.weights[cells]
        features = torch.cat([torch.ones(len(cells), 1, dtype=torch.float64), factors], 1)
        penalty = self.regularisation * weights.sum() * torch.eye(features.shape[1], dtype=torch.float64)
        return 2 * ((features * weights[:, None]).T @ features + penalty)

    def without(self, forgotten: Tensor) -> Self:
        rest = super().without(forgotten)
        rest.mean = float(self.values[~forgotten].mean())
        return rest

    def replaced(self, forgotten: Tensor) -> Self:
        """Return L_F with the forgotten cells added back, each with the other users' mean rating of its item."""
        rest = self.without(forgotten)
        kept_items, kept_values = self.items[~forgotten], self.values[~forgotten]
        counts = torch.bincount(kept_items, minlength=self.shape[1])
        sums = torch.bincount(kept_items, kept_values, minlength=self.shape[1])
        means = torch.where(counts > 0, sums / counts.clamp_min(1), rest.mean)
        rest.values = torch.where(forgotten, means[self.items], self.values)
        rest.weights = self.weights
        return rest

    def store(self, model: Recommender, tables: Tables) -> None:
        super().store(model, tables)
        cast(MF, model).mean = np.array([self.mean], dtype=np.float32)


def squares(tables: Tables, names: tuple[str, ...]) -> Tensor:
    """Return the squared length of every row of these tables together."""
    return torch.stack([tables[name].square().reshape(len(tables[name]), -1).sum(1) for name in names]).sum(0)
