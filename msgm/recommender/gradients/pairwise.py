r"""Objectives of models fitted to triples of a user u, an item i that he has seen and items j that he has not.

    l = mean over j of softplus(x_uj - x_ui) + lambda / 2 (|row_u|^2 + |row_i|^2 + |row_j|^2),   Omega = 0,

with ``NEGATIVES`` items j drawn once for every cell, so that L is a function of the tables and has a Hessian; a fit
draws one anew in every epoch. The draws stay fixed after a request: a forgotten item never becomes a negative.
"""

from abc import abstractmethod
from typing import Self, cast

import numpy as np
import torch
from scipy.sparse import csr_array
from torch import Tensor
from torch.nn.functional import softplus

from msgm.errors import UserError
from msgm.recommender.gradients.objectives import Objective, Tables, squares
from msgm.recommender.gradients.pairs import Pairs
from msgm.recommender.models.adjacency import normalised
from msgm.recommender.models.base import Recommender
from msgm.recommender.models.bpr import BPR
from msgm.recommender.models.lightgcn import LightGCN
from msgm.recommender.models.negatives import Negatives
from msgm.recommender.models.torch_base import TorchRecommender
from msgm.recommender.propagation import propagate
from msgm.recommender.sparse import kept, rows_of
from msgm.seeding import derive_seed

NEGATIVES = 4


class Pairwise(Objective):
    """Base of the objectives of models fitted to triples; draws the negatives."""

    user_tables = ("users",)

    def __init__(self, model: BPR | LightGCN, seed: int) -> None:
        super().__init__(model, seed)
        self.regularisation = model.regularisation
        self.negatives, comparable = draw_negatives(model.seen, seed)
        self.weights = comparable.double()

    def read(self, model: Recommender) -> Tables:
        return {name: table.double() for name, table in cast(TorchRecommender, model).tables.items()}

    def store(self, model: Recommender, tables: Tables) -> None:
        cast(TorchRecommender, model).set_tables({name: table.float() for name, table in tables.items()})

    @abstractmethod
    def margins(self, tables: Tables, cells: Tensor) -> Tensor:
        """Return (m, NEGATIVES) x_ui - x_uj."""

    def penalties(self, tables: Tables, cells: Tensor) -> Tensor:
        """Return (m,) regularisation of the cells' triples, on the mean; a bias has none."""
        users, items = squares(tables, ("users",)), squares(tables, ("items",))
        rows = users[self.users[cells]] + items[self.items[cells]] + items[self.negatives[cells]].mean(1)
        return self.regularisation / 2 * rows

    def differences(self, users: Tensor, items: Tensor, cells: Tensor) -> Tensor:
        """Return (m, NEGATIVES) e_u . e_i - e_u . e_j for (U, d) rows e of users and (I, d) rows e of items."""
        candidates = torch.column_stack([self.items[cells], self.negatives[cells]])
        of_users = self.users[cells, None].expand_as(candidates)
        pairs = Pairs(of_users.flatten().numpy(), candidates.flatten().numpy(), self.shape)
        products = pairs.dots(users, items).reshape(candidates.shape)
        return products[:, :1] - products[:, 1:]

    def losses(self, tables: Tables, cells: Tensor) -> Tensor:
        return softplus(-self.margins(tables, cells)).mean(1) + self.penalties(tables, cells)

    def flipped(self, tables: Tables, cells: Tensor) -> Tensor:
        return softplus(self.margins(tables, cells)).mean(1) + self.penalties(tables, cells)

    def near(self, users: Tensor, items: Tensor) -> Tensor:
        of_user, of_item = torch.zeros(self.shape[0], dtype=torch.bool), torch.zeros(self.shape[1], dtype=torch.bool)
        of_user[users], of_item[items] = True, True
        reads = of_user[self.users] | of_item[self.items] | of_item[self.negatives].any(1)
        return torch.nonzero(reads).squeeze(1)


class BPRObjective(Pairwise):
    """The objective of ``BPR``."""

    item_tables = ("items", "bias")

    def margins(self, tables: Tables, cells: Tensor) -> Tensor:
        bias = tables["bias"]
        compared = bias[self.items[cells], None] - bias[self.negatives[cells]]
        return self.differences(tables["users"], tables["items"], cells) + compared

    def user_hessian(self, tables: Tables, cells: Tensor) -> Tensor:
        q, weights = tables["items"], self.weights[cells] / NEGATIVES
        margins = self.margins(tables, cells)
        curvatures = weights[:, None] * margins.sigmoid() * (-margins).sigmoid()
        features = (q[self.items[cells]][:, None] - q[self.negatives[cells]]).flatten(0, 1)
        penalty = self.regularisation * self.weights[cells].sum() * torch.eye(q.shape[1], dtype=torch.float64)
        return (features * curvatures.reshape(-1, 1)).T @ features + penalty


class LightGCNObjective(Pairwise):
    """The objective of ``LightGCN``; every loss depends on the whole graph, in L_F without the forgotten edges."""

    item_tables = ("items",)
    local = False

    def __init__(self, model: LightGCN, seed: int) -> None:
        super().__init__(model, seed)
        self.layers, self.operators = model.layers, model.operators
        self.seen, self.adjacency = model.seen, model.adjacency

    def margins(self, tables: Tables, cells: Tensor) -> Tensor:
        hidden = torch.cat([tables["users"], tables["items"]])
        users, items = propagate(hidden, self.adjacency, self.layers, self.operators).split(list(self.shape))
        return self.differences(users, items, cells)

    def without(self, forgotten: Tensor) -> Self:
        rest = super().without(forgotten)
        rest.adjacency = normalised(kept(self.seen, ~forgotten.numpy()))
        return rest


def draw_negatives(seen: csr_array, seed: int) -> tuple[Tensor, Tensor]:
    """Return (n, NEGATIVES) items that the cells' users have not seen, and (n,) whether there is one.

    Raises:
        UserError: every user has seen every item.
    """
    drawing, users = Negatives(seen), rows_of(seen)
    comparable = ~drawing.full[users]
    if not comparable.any():
        raise UserError("every user has seen every item: there is nothing to rank below.")
    draws = np.random.default_rng(derive_seed(seed, "gradients", "negatives"))
    found = np.zeros((len(users), NEGATIVES), dtype=np.int64)
    for column in range(NEGATIVES):
        found[comparable, column] = drawing.draw(users[comparable], draws)
    return torch.from_numpy(found), torch.from_numpy(comparable)
