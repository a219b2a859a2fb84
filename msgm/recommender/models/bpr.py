r"""BPR: matrix factorisation that ranks what a user has seen above what he has not.

With x_ui = p_u . q_i + b_i, users u, items i seen by them and items j not seen (Rendle et al., "BPR: Bayesian
personalized ranking from implicit feedback", UAI 2009, section 4.1 and 4.3.1),

    sum over triples (u, i, j) of  -ln sigmoid(x_ui - x_uj) + lambda/2 (|p_u|^2 + |q_i|^2 + |q_j|^2).

An epoch takes every cell (u, i) once, in random order, with a j drawn anew. With s = sigmoid(x_uj - x_ui), the gradient
of a triple is

    dp_u = -s (q_i - q_j),   dq_i = -s p_u,   dq_j = s p_u,   db_i = -s,   db_j = s

but for the regularisation, so that a batch's are sums of weighted rows, and rows that no triple names stay as they are.
Steps are those of Adagrad (``touched_rows``). Deviations: batches and Adagrad in place of single steps of SGD; cells in
random order without replacement in place of draws with it; b is not regularised.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray
from scipy.sparse import csr_array
from scipy.special import expit

from msgm.checks import at_least
from msgm.errors import RunError, UserError
from msgm.recommender.models.base import MODELS
from msgm.recommender.models.negatives import Negatives
from msgm.recommender.models.pairwise_fold_in import solve_users
from msgm.recommender.models.torch_base import TorchRecommender
from msgm.recommender.models.touched_rows import TouchedRows
from msgm.recommender.requests import Deletion
from msgm.recommender.sparse import rows_of
from msgm.seeding import derive_seed

if TYPE_CHECKING:
    from torch import Tensor

DEVIATION = 0.01
"""Of the first factors."""
TINY = 1e-8
Tables = dict[str, NDArray[np.float32]]


@MODELS.register("bpr")
@dataclass
class BPR(TorchRecommender):
    """BPR; every cell counts as 1, ratings included; cells of users who have seen every item are not trained on.

    Its tables are ``users`` (U, d), ``items`` (I, d) and ``bias`` (I,). A fit differentiates by hand, by Adagrad; the
    losses that torch differentiates are for methods that forget.

    Example:
        >>> model = msgm.recommender.BPR(factors=8, epochs=2).fit(matrix)
        >>> ids, scores = model.recommend(0, N=5)
        >>> answer = model.forget(users=[3])

    Attributes:
        factors: d, length of the rows without the bias.
        regularisation: lambda.
        epochs: of a fit.
        batch_size: triples of a step.
        learning_rate: eta of Adagrad.
    """

    factors: int = 64
    regularisation: float = 0.02
    epochs: int = 50
    batch_size: int = 4096
    learning_rate: float = 0.05

    def __post_init__(self) -> None:
        super().__post_init__()
        at_least(1, self, "model", "factors")
        at_least(0, self, "model", "regularisation")

    @property
    def user_factors(self) -> NDArray[np.float32]:
        """The table ``users``, (U, d); in the same memory."""
        return np.asarray(self.tables["users"])

    @property
    def item_factors(self) -> NDArray[np.float32]:
        """The table ``items``, (I, d); in the same memory."""
        return np.asarray(self.tables["items"])

    @property
    def item_bias(self) -> NDArray[np.float32]:
        """The table ``bias``, (I,); in the same memory."""
        return np.asarray(self.tables["bias"])

    def initial_tables(self) -> "dict[str, Tensor]":
        """Return small random factors, zeros for users without a cell, and biases of zero."""
        import torch

        draws = np.random.default_rng(derive_seed(self.seed, self.name, "tables"))
        users, items = (
            np.float32(DEVIATION) * draws.standard_normal((size, self.factors), dtype=np.float32)
            for size in self.seen.shape
        )
        users[np.diff(self.seen.indptr) == 0] = 0
        bias = np.zeros(len(items), dtype=np.float32)
        return {"users": torch.from_numpy(users), "items": torch.from_numpy(items), "bias": torch.from_numpy(bias)}

    def prepare(self) -> None:
        self.negatives = Negatives(self.seen)

    def mark(self, deletion: Deletion) -> None:
        super().mark(deletion)
        self.prepare()

    def train(self, epochs: int, stage: str = "fit") -> list[float]:
        """Train the tables further on ``seen``, as described for every torch model; Adagrad starts afresh.

        The means are of the losses without the regularisation.
        """
        self.prepare()
        tables = {name: np.array(table) for name, table in self.tables.items()}
        squares = {name: np.full_like(table, TINY) for name, table in tables.items()}
        means: list[float] = []
        for epoch in range(epochs):
            total, count = 0.0, 0
            for batch in self._batches(derive_seed(self.seed, self.name, stage, epoch)):
                total, count = total + self._step(tables, squares, batch), count + len(batch)
            means.append(total / count)
            if not np.isfinite(means[-1]):
                raise RunError(f"bpr: the loss of epoch {epoch} is {means[-1]}; try a smaller learning_rate.")
        self._take(tables)
        return means

    def _take(self, tables: Tables) -> None:
        import torch

        self.set_tables({name: torch.from_numpy(table) for name, table in tables.items()})

    def _batches(self, seed: int) -> Iterator[NDArray[np.int64]]:
        """Yield (n, 3) triples (u, i, j), each batch sorted by user; all cells once, in random order."""
        draws = np.random.default_rng(seed)
        users, items = rows_of(self.seen), self.seen.indices
        if self.negatives.full.any():
            open_ = ~self.negatives.full[users]
            users, items = users[open_], items[open_]
        if not len(users):
            raise UserError("every user has seen every item: bpr has nothing to rank below.")
        triples = np.stack([users, items, self.negatives.draw(users, draws)])
        starts = range(0, len(users), self.batch_size)
        batch = np.empty(len(users), dtype=np.min_scalar_type(len(starts)))
        batch[draws.permutation(len(users))] = np.arange(len(users)) // self.batch_size
        triples = triples.take(np.argsort(batch, kind="stable"), axis=1)
        for start in starts:
            yield triples[:, start : start + self.batch_size].T

    def _step(self, tables: Tables, squares: Tables, triples: NDArray[np.int64]) -> float:
        """Take a step, in place, on (n, 3) triples; return the sum of their losses before it."""
        users = TouchedRows(triples[:, 0], len(tables["users"]))
        items = TouchedRows(triples[:, 1:].T.ravel(), len(tables["items"]))
        p, q, b = users.of(tables["users"]), items.of(tables["items"]), items.of(tables["bias"])
        i, j = items.places.reshape(2, -1)
        leads = q.take(i, axis=0) - q.take(j, axis=0)
        margins = np.einsum("nd,nd->n", p.take(users.places, axis=0), leads) + b[i] - b[j]
        pulls = expit(-margins)
        signed = np.concatenate([pulls, -pulls])
        of_users = users.sums(leads, np.arange(len(leads)), pulls)
        of_items = items.sums(p, np.tile(users.places, 2), signed)
        of_biases = np.bincount(items.places, signed, len(b)).astype(np.float32)
        users.shrink(of_users, p, self.regularisation)
        items.shrink(of_items, q, self.regularisation)
        for name, rows, slopes in (("users", users, of_users), ("items", items, of_items), ("bias", items, of_biases)):
            rows.ascend(tables[name], squares[name], slopes, self.learning_rate)
        return float((np.log1p(np.exp(-np.abs(margins))) - np.minimum(margins, 0)).sum())

    def losses(self, tables: "Mapping[str, Tensor]", cells: NDArray[np.int64], seed: int = 0) -> "Tensor":
        others = self.negatives.draw(cells[:, 0], np.random.default_rng(seed))
        return self.triple_losses(tables, np.column_stack([cells, others]))

    def batch_losses(self, tables: "Mapping[str, Tensor]", seed: int, progress: float) -> "Iterator[Tensor]":
        for batch in self._batches(seed):
            yield self.triple_losses(tables, batch).mean()

    def triple_losses(self, tables: "Mapping[str, Tensor]", triples: NDArray[np.int64]) -> "Tensor":
        """Return (n,) losses, regularisation included, of (n, 3) triples (u, i, j), differentiable in ``tables``."""
        import torch
        from torch.nn.functional import softplus

        u, i, j = torch.from_numpy(triples).unbind(1)
        user, item, other = tables["users"][u], tables["items"][i], tables["items"][j]
        margins = (user * (item - other)).sum(1) + tables["bias"][i] - tables["bias"][j]
        norms = user.square().sum(1) + item.square().sum(1) + other.square().sum(1)
        return softplus(-margins) + self.regularisation / 2 * norms

    def score(self, users: NDArray[np.int64]) -> NDArray[np.floating[Any]]:
        return np.asarray(self.user_factors[users] @ self.item_factors.T + self.item_bias)

    def fold_in(self, cells: csr_array) -> NDArray[np.float32]:
        """Return (n, d) factors of users with the (n, I) ``cells``, given the model's items; see pairwise_fold_in."""
        centres = np.zeros((cells.shape[0], self.factors), dtype=np.float32)
        return solve_users(cells, self.item_factors, self.item_bias, centres, self.regularisation, self.seed)

    def score_rows(self, rows: csr_array) -> NDArray[np.floating[Any]]:
        return np.asarray(self.fold_in(rows) @ self.item_factors.T + self.item_bias)
