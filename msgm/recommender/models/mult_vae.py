r"""MultVAE: a variational autoencoder of users' rows with a multinomial likelihood.

With x_u the (I,) row of user u (1 where there is a cell), x~_u what dropout leaves of x_u / |x_u|,

    h = tanh(W_1' x~ + b_1),   mu = W_2' h + b_2,   log sigma^2 = W_3' h + b_3,
    z = mu + sigma eps,   eps ~ N(0, I),   pi = softmax(W_5' tanh(W_4' z + b_4) + b_5),

    loss_u = -sum_i x_ui log pi_i + beta KL,   KL = 1/2 sum (sigma^2 + mu^2 - 1 - log sigma^2),

and beta rises from 0 in a straight line while training (Liang et al., "Variational Autoencoders for Collaborative
Filtering", WWW 2018, arXiv 1802.05814, Eq. 3, 6, 7 and section 2.2.2). Items are ranked by the logits at z = mu without
dropout; the seen ones are then left out (-inf), as of every model here.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray
from scipy.sparse import csr_array

from msgm.checks import at_least, below_one, positive
from msgm.recommender.models.base import MODELS
from msgm.recommender.models.torch_base import TorchRecommender
from msgm.recommender.sparse import ones
from msgm.seeding import generator

if TYPE_CHECKING:
    import torch
    from torch import Tensor


@MODELS.register("mult-vae")
@dataclass
class MultVAE(TorchRecommender):
    """MultVAE; every cell counts as 1, ratings included. A user without a cell takes no part in the training.

    Example:
        >>> model = msgm.recommender.MultVAE(epochs=2).fit(matrix)
        >>> ids, scores = model.recommend(0, N=5)
        >>> answer = model.forget(users=[3])

    Attributes:
        hidden: width of the hidden layer of encoder and decoder.
        latent: length of z.
        dropout: share of the input's cells that are left out while training, [0, 1).
        beta: weight of the KL divergence where its rise ends.
        annealing: share of the training that the rise takes.
        epochs: of a fit.
        batch_size: users of a step.
        learning_rate: of Adam.
    """

    hidden: int = 300
    latent: int = 100
    dropout: float = 0.5
    beta: float = 0.5
    annealing: float = 0.5
    epochs: int = 120
    batch_size: int = 128
    learning_rate: float = 1e-3

    def __post_init__(self) -> None:
        super().__post_init__()
        at_least(1, self, "model", "hidden", "latent")
        at_least(0, self, "model", "beta")
        below_one(self, "model", "dropout")
        positive(self, "model", "annealing")

    def initial_tables(self) -> "dict[str, Tensor]":
        """Return weights, Glorot-normal, and biases of zero."""
        import torch

        items, draws = self.seen.shape[1], generator(self.seed, self.name, "tables")
        shapes = {
            "encoder": (items, self.hidden),
            "mean": (self.hidden, self.latent),
            "log_variance": (self.hidden, self.latent),
            "decoder": (self.latent, self.hidden),
            "output": (self.hidden, items),
        }
        tables = {}
        for name, (wide, high) in shapes.items():
            tables[f"{name}.weight"] = (2 / (wide + high)) ** 0.5 * torch.randn(wide, high, generator=draws)
            tables[f"{name}.bias"] = torch.zeros(high)
        return tables

    def encode(
        self, tables: "Mapping[str, Tensor]", rows: "Tensor", draws: "torch.Generator | None" = None
    ) -> "tuple[Tensor, Tensor]":
        """Return mu and log sigma^2, each (n, latent), of (n, I) rows; with dropout if ``draws`` are given."""
        import torch
        from torch.nn.functional import normalize

        rows = normalize(rows).to(tables["encoder.weight"].dtype)
        if draws is not None:
            kept = torch.rand(rows.shape, generator=draws) >= self.dropout
            rows = rows * kept / (1 - self.dropout)
        hidden = torch.tanh(_affine(tables, "encoder", rows))
        return _affine(tables, "mean", hidden), _affine(tables, "log_variance", hidden)

    def decode(self, tables: "Mapping[str, Tensor]", latent: "Tensor") -> "Tensor":
        """Return (n, I) logits of (n, latent) codes."""
        return _affine(tables, "output", _affine(tables, "decoder", latent).tanh())

    def sample(
        self, tables: "Mapping[str, Tensor]", rows: "Tensor", draws: "torch.Generator"
    ) -> "tuple[Tensor, Tensor, Tensor]":
        """Return codes z, (n, latent), log pi, (n, I), and KL, (n,), of (n, I) rows, with dropout and noise."""
        import torch

        mean, log_variance = self.encode(tables, rows, draws)
        latent = mean + (log_variance / 2).exp() * torch.randn(mean.shape, generator=draws)
        divergence = (log_variance.exp() + mean.square() - 1 - log_variance).sum(1) / 2
        return latent, self.decode(tables, latent).log_softmax(1), divergence

    def losses(self, tables: "Mapping[str, Tensor]", cells: NDArray[np.int64], seed: int = 0) -> "Tensor":
        """Return (n,) losses; the KL divergence of a user is shared out among the cells that the model has of him."""
        import torch

        users, places = np.unique(cells[:, 0], return_inverse=True)
        _, logs, divergence = self.sample(tables, self.rows(users), generator(seed, self.name, "losses"))
        share = self.beta / np.maximum(np.diff(self.seen.indptr)[users], 1)
        at = torch.from_numpy(places)
        return (torch.from_numpy(share.astype(np.float32)) * divergence)[at] - logs[at, torch.from_numpy(cells[:, 1])]

    def batch_losses(self, tables: "Mapping[str, Tensor]", seed: int, progress: float) -> "Iterator[Tensor]":
        active = np.flatnonzero(np.diff(self.seen.indptr))
        order = np.random.default_rng(seed).permutation(active)
        draws, beta = generator(seed, "noise"), self.beta * min(1.0, progress / self.annealing)
        for start in range(0, len(order), self.batch_size):
            yield self.user_losses(tables, order[start : start + self.batch_size], draws, beta).mean()

    def user_losses(
        self, tables: "Mapping[str, Tensor]", users: NDArray[np.int64], draws: "torch.Generator", beta: float
    ) -> "Tensor":
        """Return (n,) losses of whole users, differentiable in ``tables``."""
        rows = self.rows(users)
        _, logs, divergence = self.sample(tables, rows, draws)
        return beta * divergence - (rows * logs).sum(1)

    def rows(self, users: NDArray[np.int64]) -> "Tensor":
        """Return the (n, I) rows x of ``users``."""
        import torch

        return torch.from_numpy(ones(self.seen[users], np.float32).toarray())

    def score(self, users: NDArray[np.int64]) -> NDArray[np.floating[Any]]:
        return self.score_rows(self.seen[users])

    def score_rows(self, rows: csr_array) -> NDArray[np.floating[Any]]:
        import torch

        with torch.no_grad():
            mean, _ = self.encode(self.tables, torch.from_numpy(ones(rows, np.float32).toarray()))
            return np.asarray(self.decode(self.tables, mean).numpy())


def _affine(tables: "Mapping[str, Tensor]", name: str, rows: "Tensor") -> "Tensor":
    return rows @ tables[f"{name}.weight"] + tables[f"{name}.bias"]
