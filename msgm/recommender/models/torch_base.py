"""Models that gradients train: tables of numbers, losses of cells that torch can differentiate, and Adam.

Tables are plain tensors by name and losses are functions of them, so that the same loss serves a fit, a gradient step
on single cells, and products with a Hessian: ``losses({name: tensor.clone().requires_grad_()}, cells, seed)``.
"""

from abc import abstractmethod
from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray
from scipy.sparse import csr_array

from msgm.checks import at_least, positive
from msgm.errors import RunError
from msgm.recommender.models.base import Recommender
from msgm.recommender.requests import Deletion
from msgm.recommender.sparse import rows_of
from msgm.seeding import derive_seed

if TYPE_CHECKING:
    from torch import Tensor

PREFIX = "table."


class TorchRecommender(Recommender):
    """A model trained by Adam. Subclasses are dataclasses with the first three attributes among their settings.

    The only exact way to forget is a refit, so ``forget`` does that; other methods approximate.

    Attributes:
        epochs: of a fit.
        batch_size: size of a batch, in the model's own unit.
        learning_rate: of Adam (Kingma and Ba, ICLR 2015), with its usual other constants.
        tables: the trained parameters: float32 tensors by name, without gradients. Replace them by ``set_tables``.
    """

    epochs: int
    batch_size: int
    learning_rate: float
    tables: dict[str, Any]

    def __post_init__(self) -> None:
        at_least(1, self, "model", "epochs", "batch_size")
        positive(self, "model", "learning_rate")

    @abstractmethod
    def initial_tables(self) -> "dict[str, Tensor]":
        """Return fresh tables, drawn by ``seed``."""

    @abstractmethod
    def losses(self, tables: "Mapping[str, Tensor]", cells: NDArray[np.int64], seed: int = 0) -> "Tensor":
        """Return (n,) losses of the (n, 2) ``cells`` (user, item), differentiable in ``tables`` (twice).

        Their sum over all cells is, up to a factor, the objective of a fit. Their random parts (negatives, noise)
        depend only on ``seed`` and the cells, so that they are a fixed function of the tables.
        """

    @abstractmethod
    def batch_losses(self, tables: "Mapping[str, Tensor]", seed: int, progress: float) -> "Iterator[Tensor]":
        """Yield the mean loss of every batch of an epoch, each of the tables as they are when it is asked for.

        Args:
            tables: the parameters to train.
            seed: of the epoch: order, negatives, noise.
            progress: share of the training that is done, [0, 1).
        """

    def prepare(self) -> None:
        """Derive from ``seen`` what losses and scores need besides the tables."""

    def set_tables(self, tables: "Mapping[str, Tensor]") -> None:
        """Take copies of ``tables`` as the model's own."""
        self.tables = {name: table.detach().clone() for name, table in tables.items()}

    def _fit(self) -> None:
        self.prepare()
        self.tables = self.initial_tables()
        self.train(self.epochs)

    def train(self, epochs: int, stage: str = "fit") -> list[float]:
        """Train the tables further on ``seen``; Adam starts afresh.

        Args:
            epochs: how many.
            stage: names the stream of random numbers; another stage sees another order, other negatives, other noise.

        Returns:
            the mean loss of every epoch's batches, each taken before its step.

        Raises:
            RunError: a loss is not finite; the tables are then as before.
        """
        import torch

        self.prepare()
        tables = {name: table.clone().requires_grad_() for name, table in self.tables.items()}
        optimiser = torch.optim.Adam(tables.values(), lr=self.learning_rate, fused=True)
        means: list[float] = []
        for epoch in range(epochs):
            seed = derive_seed(self.seed, self.name, stage, epoch)
            taken = []
            for loss in self.batch_losses(tables, seed, epoch / epochs):
                optimiser.zero_grad()
                loss.backward()
                optimiser.step()
                taken.append(loss.detach())
            means.append(float(torch.stack(taken).mean()))
            if not np.isfinite(means[-1]):
                raise RunError(f"{self.name}: the loss of epoch {epoch} is {means[-1]}; try a smaller learning_rate.")
        self.set_tables(tables)
        return means

    def _forget(self, deletion: Deletion) -> tuple[int, str, dict[str, Any]]:
        answer = self.refit(deletion)
        return answer.touched, answer.exactness, answer.facts

    def arrays(self) -> dict[str, NDArray[Any]]:
        return {PREFIX + name: table.numpy() for name, table in self.tables.items()}

    def restore(self, arrays: Mapping[str, NDArray[Any]]) -> None:
        import torch

        self.tables = {
            name.removeprefix(PREFIX): torch.from_numpy(np.array(values))
            for name, values in arrays.items()
            if name.startswith(PREFIX)
        }
        self.prepare()


def cells_of(matrix: csr_array) -> NDArray[np.int64]:
    """Return the (n, 2) cells of ``matrix``, each as user and item, in the order of ``matrix.data``."""
    return np.stack([rows_of(matrix), matrix.indices.astype(np.int64)], axis=1)
