r"""Attention over the shards' embeddings (RecEraser: Chen et al., WWW 2022, section 3.4).

A user has an embedding e_k in each of K shards. Each is moved to a common space and all are averaged,

    e'_k = W_k e_k + b_k,   a_k = softmax_k(h . relu(V e'_k + v)),   e = sum over k of a_k e'_k,

with h, V, v of their own for users and for items. Scores are e_u . e_i. W, b, V, v, h are learnt by BPR on all cells,
the shards' embeddings held, with lambda/2 (|e_u|^2 + |e_i|^2 + |e_j|^2) added for each triple.

Deviations: a fixed number of epochs in place of early stopping on test recall; W starts at the rotation that
brings the shard's items closest to the first shard's, as spaces fitted apart are turned against each other; the
embedding of a user in every shard is folded in from his cells, in place of a row that a shard of other users has not
trained; biases of items are left out. The loss is BPR's also for base models with another.
"""

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray
from scipy.sparse import csr_array

from msgm.errors import UserError
from msgm.recommender.models.negatives import Negatives
from msgm.recommender.sharding.combiners import Combiner, Scores, Shards
from msgm.recommender.sparse import rows_of
from msgm.seeding import derive_seed, generator

if TYPE_CHECKING:
    from torch import Tensor

FACTOR_MODELS = ("als", "bpr", "lightgcn")
EPOCHS = 50
BATCH = 1024
LEARNING_RATE = 0.001
REGULARISATION = 0.001
"""These four are RecEraser's for LightGCN; its 50 epochs are the most that it takes."""
SIDES = ("users", "items")


class Attention(Combiner):
    """RecEraser's aggregation; keeps one table of users and one of items."""

    name = "attention"

    def check(self, base: str, partition: str) -> None:
        if base not in FACTOR_MODELS:
            raise UserError(f"combiner attention needs a model of factors: {', '.join(FACTOR_MODELS)}; got {base}.")

    def fit(self, shards: Shards, seed: int) -> None:
        import torch

        sides = dict(zip(SIDES, stacked(shards), strict=True))
        tensors = {side: torch.from_numpy(values / spread(values)) for side, values in sides.items()}
        weights = _initial(alignments(sides["items"]), generator(seed, "attention"))
        optimiser = torch.optim.Adam(list(weights.values()), lr=LEARNING_RATE)
        for triples in _batches(shards.rows, seed):
            users, items = (aggregate(weights, side, tensors[side]) for side in SIDES)
            u, i, j = torch.from_numpy(triples).unbind(1)
            rows = users[u], items[i], items[j]
            margins = (rows[0] * (rows[1] - rows[2])).sum(1)
            norms = torch.stack([row.square().sum(1).mean() for row in rows]).sum()
            optimiser.zero_grad()
            (torch.nn.functional.softplus(-margins).mean() + REGULARISATION / 2 * norms).backward()
            optimiser.step()
        with torch.no_grad():
            self.tables = {side: aggregate(weights, side, tensors[side]).numpy() for side in SIDES}

    def score(self, shards: Shards, users: NDArray[np.int64], seen: csr_array) -> Scores:
        return np.asarray(self.tables["users"][users] @ self.tables["items"].T)

    def arrays(self) -> dict[str, NDArray[Any]]:
        return dict(self.tables)

    def restore(self, arrays: Mapping[str, NDArray[Any]]) -> None:
        self.tables = {side: np.array(arrays[side]) for side in SIDES}


def stacked(shards: Shards) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """Return (K, U, d) embeddings of users and (K, I, d) of items, of the shards that there are."""
    live: list[Any] = shards.live
    users, items = [model.fold_in(shards.rows) for model in live], [model.item_factors for model in live]
    return np.stack(users).astype(np.float32), np.stack(items).astype(np.float32)


def spread(values: NDArray[np.float32]) -> np.float32:
    """Return the standard deviation of all embeddings, their common unit; 1 where there is none."""
    return np.float32(values.std() or 1)


def alignments(items: NDArray[np.float32]) -> NDArray[np.float32]:
    """Return (K, d, d) rotations that bring every shard's (K, I, d) items closest to the first one's (Procrustes)."""
    left, _, right = np.linalg.svd(items.transpose(0, 2, 1) @ items[0])
    return np.asarray(left @ right)


def _initial(rotations: NDArray[np.float32], draws: Any) -> "dict[str, Tensor]":
    """Return W and b of every shard, and h, V and v of each side; V has width / 2 rows, as in the released code."""
    import torch

    shards, width = rotations.shape[:2]
    half = max(width // 2, 1)
    made = {"W": torch.from_numpy(rotations.copy()), "b": torch.zeros(shards, 1, width)}
    for side in SIDES:
        made[f"{side}.V"] = torch.randn(width, half, generator=draws) / width**0.5
        made[f"{side}.v"] = torch.zeros(half)
        made[f"{side}.h"] = torch.randn(half, generator=draws) / half**0.5
    return {name: value.requires_grad_() for name, value in made.items()}


def aggregate(weights: "Mapping[str, Tensor]", side: str, embeddings: "Tensor") -> "Tensor":
    """Return (n, d) embeddings in the common space of the (K, n, d) ones of all shards."""
    moved = embeddings @ weights["W"] + weights["b"]
    logits = (moved @ weights[f"{side}.V"] + weights[f"{side}.v"]).relu() @ weights[f"{side}.h"]
    return (logits.softmax(0).unsqueeze(2) * moved).sum(0)


def _batches(rows: csr_array, seed: int) -> Any:
    """Yield (n, 3) triples of a user, an item seen and one not seen, EPOCHS times through all cells."""
    known = Negatives(rows)
    users = rows_of(rows)
    usable = np.flatnonzero(~known.full[users])
    for epoch in range(EPOCHS):
        rng = np.random.default_rng(derive_seed(seed, "attention", epoch))
        negatives = known.draw(users[usable], rng)
        triples = np.stack([users[usable], rows.indices[usable].astype(np.int64), negatives], axis=1)
        order = rng.permutation(len(usable))
        for start in range(0, len(order), BATCH):
            yield triples[order[start : start + BATCH]]
