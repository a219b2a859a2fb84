r"""Combining the scores of K shards' models: s_u = sum over shards k of w_k z_k(u).

z_k(u) are the scores of user u by model k, less their mean over all items and in their standard deviation, so that no
shard is heard more because its scores are larger.

- ``own``: the model of the user's own shard alone.
- ``mean``: every model's own scores of the user, averaged. Models that never saw him add little, so it suits partitions
  that spread a user's cells over the shards.
- ``fold-in``: every model is given all that the user has seen, whatever shard it came from, and answers in its own
  space: latent factors are solved anew against the shard's items, so no two shards' spaces are mixed. Averaged.
- ``logistic``: w by a logistic regression of "seen" on the K scores (UltraRE: Li et al., NeurIPS 2023). It is fitted on
  cells held back from all shards and as many unobserved cells; test cells are never used.
- ``attention``: see ``attention``.

A combiner that learns is refitted after a request, without the forgotten cells.
"""

from abc import ABC, abstractmethod
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray
from scipy.sparse import csr_array

from msgm.errors import UserError
from msgm.recommender.models.base import MODELS, Recommender, folds_in
from msgm.recommender.models.negatives import Negatives
from msgm.recommender.scores import standardised
from msgm.recommender.sharding.partitions import OF_USERS
from msgm.recommender.sparse import rows_of
from msgm.seeding import derive_seed
from msgm.solves import ITERATIONS, fitted

Scores = NDArray[np.floating[Any]]


@dataclass(frozen=True, eq=False)
class Shards:
    """Inputs of a combiner.

    Attributes:
        models: of every shard; None for one without a cell.
        rows: (U, I) all cells that are in shards.
        held: (U, I) cells held back for the combiner.
        owners: (U,) shard of every user; None where users are in several.
    """

    models: Sequence[Recommender | None]
    rows: csr_array
    held: csr_array
    owners: NDArray[np.int64] | None

    @property
    def live(self) -> list[Recommender]:
        """The models of the shards that have cells."""
        return [model for model in self.models if model is not None]


class Combiner(ABC):
    """Base of combiners."""

    name: ClassVar[str]
    held: ClassVar[float] = 0.0
    """Share of the cells that it needs held back from the shards."""
    averages: ClassVar[bool] = True
    """Whether it averages over shards, and with it the noise of shards that are regularised less."""

    def check(self, base: str, partition: str) -> None:  # noqa: B027 - most fit everything
        """Refuse a base model or a partition that it cannot combine."""

    def fit(self, shards: Shards, seed: int) -> None:  # noqa: B027 - most learn nothing
        """Learn from cells; depends on ``shards`` and ``seed`` alone."""

    @abstractmethod
    def score(self, shards: Shards, users: NDArray[np.int64], seen: csr_array) -> Scores:
        """Return (n, I) scores of the n ``users``, whose rows of cells are ``seen``, (n, I)."""

    def arrays(self) -> dict[str, NDArray[Any]]:
        """Return the learnt arrays by name."""
        return {}

    def restore(self, arrays: Mapping[str, NDArray[Any]]) -> None:  # noqa: B027 - most learn nothing
        """Restore the learnt state from ``arrays``."""


class Own(Combiner):
    """The user's own shard."""

    name = "own"
    averages = False

    def check(self, base: str, partition: str) -> None:
        if partition not in OF_USERS:
            raise UserError(f"combiner own needs a partition of users, {', '.join(OF_USERS)}; got {partition}.")

    def score(self, shards: Shards, users: NDArray[np.int64], seen: csr_array) -> Scores:
        assert shards.owners is not None
        scores, owners = np.zeros(seen.shape), shards.owners[users]
        for shard, model in enumerate(shards.models):
            members = np.flatnonzero(owners == shard)
            if model is not None and len(members):
                scores[members] = model.score(users[members])
        return scores


class Mean(Combiner):
    """Mean of every model's own scores."""

    name = "mean"

    def score(self, shards: Shards, users: NDArray[np.int64], seen: csr_array) -> Scores:
        return _mean(model.score(users) for model in shards.live)


class FoldIn(Combiner):
    """Mean of every model's scores of the user's whole row, by fold-in."""

    name = "fold-in"

    def check(self, base: str, partition: str) -> None:
        if not folds_in(MODELS.entries[base]):
            raise UserError(f"combiner fold-in: {base} cannot take users that it was not fitted to; use own or mean.")

    def score(self, shards: Shards, users: NDArray[np.int64], seen: csr_array) -> Scores:
        return _mean(model.score_rows(seen) for model in shards.live)


class Logistic(Combiner):
    """A logistic regression on the shards' scores, by fold-in where the model can.

    Deviation: the weights are learnt from cells that are held back, as those that shards were fitted to would favour
    each one's own users.
    """

    name = "logistic"
    held = 0.05

    def fit(self, shards: Shards, seed: int) -> None:
        from sklearn.linear_model import LogisticRegression

        users = np.flatnonzero(np.diff(shards.held.indptr))
        known = Negatives(abs(shards.rows) + abs(shards.held))
        users = users[~known.full[users]]
        if not len(users):
            raise UserError("combiner logistic has no cell to learn from: too few interactions are held back.")
        held = shards.held[users]
        rows = rows_of(held)
        drawn = known.draw(users[rows], np.random.default_rng(derive_seed(seed, "combiner", "negatives")))
        places = np.concatenate([rows, rows]), np.concatenate([held.indices, drawn])
        features = np.stack([s[places] for s in self._scores(shards, users, shards.rows[users])], axis=1)
        labels = np.repeat([1, 0], len(rows))
        regression = LogisticRegression(max_iter=ITERATIONS)
        self.weights = fitted(lambda: regression.fit(features, labels), "combiner logistic").coef_[0]

    def score(self, shards: Shards, users: NDArray[np.int64], seen: csr_array) -> Scores:
        found = np.zeros(seen.shape)
        for weight, scores in zip(self.weights, self._scores(shards, users, seen), strict=True):
            found += weight * scores
        return found

    def _scores(self, shards: Shards, users: NDArray[np.int64], seen: csr_array) -> list[Scores]:
        found = (m.score_rows(seen) if folds_in(type(m)) else m.score(users) for m in shards.live)
        return [standardised(scores) for scores in found]

    def arrays(self) -> dict[str, NDArray[Any]]:
        return {"weights": self.weights}

    def restore(self, arrays: Mapping[str, NDArray[Any]]) -> None:
        self.weights = np.array(arrays["weights"])


def _mean(scores: Iterable[Scores]) -> Scores:
    """Return the mean of the shards' scores, standardised."""
    return np.asarray(np.mean([standardised(values) for values in scores], axis=0))
