r"""LightGCN: matrix factorisation by BPR whose factors are means over the graph of users and items.

    E = (H^0 + A H^0 + ... + A^L H^0) / (L + 1),   x_ui = e_u . e_i,

with trained tables H^0 and the normalised adjacency A of the training cells (He et al., "LightGCN", SIGIR 2020, arXiv
2002.02126, Eq. 3 to 8). Trained by BPR (Eq. 15): over triples of a user u, an item i seen and one j not seen,

    loss = softplus(x_uj - x_ui) + lambda/2 (|h_u|^2 + |h_i|^2 + |h_j|^2)  >= 0.

Both the loss and the ranking read the propagated E; only the regularisation reads the tables. Deviation: lambda weighs
the rows of a triple, as in the authors' code, not the whole tables.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray
from scipy.sparse import csr_array

from msgm.checks import at_least
from msgm.errors import UserError
from msgm.recommender.models.adjacency import joined, normalised, without
from msgm.recommender.models.base import MODELS
from msgm.recommender.models.negatives import Negatives
from msgm.recommender.models.pairwise_fold_in import solve_users
from msgm.recommender.models.torch_base import TorchRecommender, cells_of
from msgm.recommender.requests import Deletion
from msgm.seeding import generator

if TYPE_CHECKING:
    from torch import Tensor

    from msgm.recommender.propagation import Operator

DEVIATION = 0.1
"""Of the first tables, as in the paper's code."""


@MODELS.register("lightgcn")
@dataclass
class LightGCN(TorchRecommender):
    """LightGCN; every cell counts as 1, ratings included. A step propagates over the whole graph.

    ``user_factors`` (U, d) and ``item_factors`` (I, d) are E, what the model ranks by; ``adjacency`` is that of
    ``seen`` at all times, and holds no other edge; ``operators`` are those of GNNDelete, one for each request.

    Example:
        >>> model = msgm.recommender.LightGCN(factors=8, epochs=2).fit(matrix)
        >>> ids, scores = model.recommend(0, N=5)
        >>> answer = model.forget(users=[3])

    Attributes:
        factors: d.
        layers: L.
        regularisation: lambda.
        epochs: of a fit.
        batch_size: triples of a step.
        learning_rate: of Adam.
    """

    factors: int = 64
    layers: int = 3
    regularisation: float = 1e-3
    epochs: int = 80
    batch_size: int = 4096
    learning_rate: float = 0.01

    def __post_init__(self) -> None:
        super().__post_init__()
        at_least(1, self, "model", "factors", "layers")
        at_least(0, self, "model", "regularisation")

    def initial_tables(self) -> "dict[str, Tensor]":
        import torch

        draws = generator(self.seed, self.name, "tables")
        sizes = zip(("users", "items"), self.seen.shape, strict=True)
        return {name: DEVIATION * torch.randn(size, self.factors, generator=draws) for name, size in sizes}

    def _fit(self) -> None:
        self.operators: list[Operator] = []
        super()._fit()

    def prepare(self) -> None:
        self.adjacency = normalised(self.seen)
        self.negatives = Negatives(self.seen)

    def embeddings(self, tables: "Mapping[str, Tensor]", operators: "list[Operator] | None" = None) -> "Tensor":
        """Return (U + I, d) rows E of users, then of items, by the model's own operators unless others are given."""
        import torch

        from msgm.recommender.propagation import propagate

        hidden = torch.cat([tables["users"], tables["items"]])
        return propagate(hidden, self.adjacency, self.layers, self.operators if operators is None else operators)

    def losses(self, tables: "Mapping[str, Tensor]", cells: NDArray[np.int64], seed: int = 0) -> "Tensor":
        negatives = self.negatives.draw(cells[:, 0], np.random.default_rng(seed))
        return self.triple_losses(tables, np.column_stack([cells, negatives]))

    def triple_losses(self, tables: "Mapping[str, Tensor]", triples: NDArray[np.int64]) -> "Tensor":
        """Return (n,) losses of (n, 3) triples (user, item seen, item not seen), differentiable in ``tables``."""
        import torch
        from torch.nn.functional import softplus

        users = len(tables["users"])
        nodes = torch.from_numpy(triples + np.array([0, users, users])).unbind(1)
        # index_select: its gradient is a plain addition of rows, several times faster than that of indexing.
        embeddings = self.embeddings(tables)
        user, item, other = (embeddings.index_select(0, node) for node in nodes)
        rows = torch.cat([tables["users"], tables["items"]])
        norms = sum(rows.square().sum(1).index_select(0, node) for node in nodes)
        return softplus((user * (other - item)).sum(1)) + self.regularisation / 2 * norms

    def batch_losses(self, tables: "Mapping[str, Tensor]", seed: int, progress: float) -> "Iterator[Tensor]":
        draws = np.random.default_rng(seed)
        cells = cells_of(self.seen)
        cells = cells[~self.negatives.full[cells[:, 0]]]
        if not len(cells):
            raise UserError("every user has seen every item: lightgcn has nothing to rank below.")
        triples = np.column_stack([cells, self.negatives.draw(cells[:, 0], draws)])[draws.permutation(len(cells))]
        for start in range(0, len(triples), self.batch_size):
            yield self.triple_losses(tables, triples[start : start + self.batch_size]).mean()

    def set_tables(self, tables: "Mapping[str, Tensor]") -> None:
        super().set_tables(tables)
        self.refresh()

    def refresh(self, nodes: NDArray[np.bool_] | None = None) -> None:
        """Compute E anew from tables, graph and operators, of the (U + I,) ``nodes`` alone if they are given."""
        import torch

        with torch.no_grad():
            found = self.embeddings(self.tables).numpy()
        if nodes is not None:
            found = np.where(nodes[:, None], found, np.concatenate([self.user_factors, self.item_factors]))
        self.user_factors: NDArray[np.float32] = found[: self.seen.shape[0]]
        self.item_factors: NDArray[np.float32] = found[self.seen.shape[0] :]

    def mark(self, deletion: Deletion) -> None:
        """Drop the cells from ``seen`` and, exactly, from the graph; E stays until it is refreshed."""
        self.adjacency = without(self.adjacency, deletion)
        super().mark(deletion)
        self.negatives = Negatives(self.seen)

    def score(self, users: NDArray[np.int64]) -> NDArray[np.floating[Any]]:
        return np.asarray(self.user_factors[users] @ self.item_factors.T)

    def fold_in(self, cells: csr_array) -> NDArray[np.float32]:
        """Return (n, d) rows of E of users with the (n, I) ``cells``, given the model's items.

        A user's row is e = c + h / (L + 1), with h his own table row and c what comes to him from his items along the
        graph, so that lambda |h|^2 is lambda (L + 1)^2 |e - c|^2. What would come from him to the items is left out.
        """
        import torch

        from msgm.recommender.propagation import propagate

        count = self.layers + 1
        with torch.no_grad():
            hidden = torch.cat([self.tables["users"], self.tables["items"]])
            means = propagate(hidden, self.adjacency, self.layers - 1, self.operators).numpy()
        centres = joined(cells, self.seen) @ means[self.seen.shape[0] :] * np.float32(self.layers / count)
        bias = np.zeros(len(self.item_factors), dtype=np.float32)
        regularisation = self.regularisation * count**2
        return solve_users(cells, self.item_factors, bias, centres, regularisation, self.seed)

    def score_rows(self, rows: csr_array) -> NDArray[np.floating[Any]]:
        return np.asarray(self.fold_in(rows) @ self.item_factors.T)

    def arrays(self) -> dict[str, NDArray[Any]]:
        found = super().arrays() | {"user_factors": self.user_factors, "item_factors": self.item_factors}
        for number, operator in enumerate(self.operators):
            found[f"operator.{number}.weights"] = operator.weights.numpy()
            found[f"operator.{number}.nodes"] = operator.nodes
        return found

    def restore(self, arrays: Mapping[str, NDArray[Any]]) -> None:
        import torch

        from msgm.recommender.propagation import Operator

        super().restore(arrays)
        self.user_factors, self.item_factors = np.array(arrays["user_factors"]), np.array(arrays["item_factors"])
        self.operators = [
            Operator(torch.from_numpy(np.array(arrays[name])), arrays[name.replace("weights", "nodes")])
            for name in sorted(arrays, key=lambda name: (len(name), name))
            if name.startswith("operator.") and name.endswith(".weights")
        ]
