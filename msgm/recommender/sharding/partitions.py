"""Which shard every cell belongs to.

``random`` draws a shard for every user, ``random-interactions`` one for every cell. Both depend on the matrix's shape,
the number of shards and the seed alone, so that a cell's shard is the same whatever is forgotten: only then does
retraining a shard give the same system as never having seen the data.

``ubp``, ``ibp``, ``inbp`` (see ``balanced``) and ``ot`` (see ``transport``) cluster vectors that a model learnt from
all cells, as their papers do; so does balance by interactions read the cells. Such a partition remembers what is
forgotten, and a system on it is only approximately one that never saw it, unless it is partitioned anew.
"""

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Literal

import numpy as np
from numpy.typing import NDArray
from scipy.sparse import csr_array

from msgm.errors import UserError, nearest
from msgm.recommender.models.base import MODELS
from msgm.recommender.sharding.balanced import Space, assign_ascending, balanced_clusters, capacity_of
from msgm.recommender.sharding.transport import transport_clusters
from msgm.recommender.sparse import rows_of
from msgm.seeding import derive_seed
from msgm.solves import Solve

Balance = Literal["users", "interactions"]
PRETRAINING = {"name": "als", "factors": 32, "sweeps": 3}
"""The model whose vectors are clustered; RecEraser's is also a weighted matrix factorisation, of 64 factors."""


OF_USERS = ("random", "ubp", "ot")
"""Partitions that put all cells of a user into one shard."""


@dataclass(frozen=True, eq=False)
class Partition:
    """A shard for every cell.

    Attributes:
        cells: (nnz,) shard of every stored cell, in the order of ``matrix.data``.
        owners: (U,) the one shard of every user; None where a user's cells lie in several.
        learnt: whether it was made from the cells, those to be forgotten later included.
        solve: how well the solver behind it converged; None without one.
    """

    cells: NDArray[np.int64]
    owners: NDArray[np.int64] | None
    learnt: bool
    solve: Solve | None = None


def make_partition(name: str, matrix: csr_array, shards: int, balance: Balance, seed: int) -> Partition:
    """Return the partition of the (U, I) ``matrix``, by its seed.

    Args:
        name: of PARTITIONS.
        matrix: training cells; values do not count.
        shards: K, at least 1.
        balance: what shards have the same amount of: ``users`` (for ``ibp`` items), or ``interactions``. Partitions
            of single cells, ``inbp`` and ``random-interactions``, balance these alone.
        seed: of every draw.

    Raises:
        UserError: unknown name, or more shards than there is to divide.
    """
    check_partition(name)
    if not 1 <= shards <= min(matrix.shape):
        raise UserError(f"shards must lie between 1 and {min(matrix.shape)} here, got {shards}.")
    return PARTITIONS[name](csr_array(matrix), shards, balance, seed)


def check_partition(name: str) -> None:
    """Refuse a name that is none of PARTITIONS."""
    if name not in PARTITIONS:
        known = sorted(PARTITIONS)
        raise UserError(
            f"model.partition: unknown partition {name!r}; known: {', '.join(known)}.{nearest(name, known)}"
        )


def _by_user(matrix: csr_array, owners: NDArray[np.int64], learnt: bool) -> Partition:
    return Partition(np.repeat(owners, np.diff(matrix.indptr)), owners, learnt)


def _weights(matrix: csr_array, balance: Balance) -> NDArray[np.float64]:
    """Return (rows,) what a row takes of a shard's capacity."""
    lengths = np.diff(matrix.indptr).astype(np.float64)
    return lengths if balance == "interactions" else np.ones_like(lengths)


def _random(matrix: csr_array, shards: int, balance: Balance, seed: int) -> Partition:
    """Assign users in random order to the shards in turn; by interactions: greedy assignment with random distances."""
    rng, users = np.random.default_rng(derive_seed(seed, "partition", "random")), matrix.shape[0]
    if balance == "users":
        return _by_user(matrix, rng.permutation(users) % shards, learnt=False)
    weights = _weights(matrix, balance)
    owners = assign_ascending(rng.random((users, shards)), weights, capacity_of(weights, shards))
    return _by_user(matrix, owners, learnt=True)


def _random_interactions(matrix: csr_array, shards: int, balance: Balance, seed: int) -> Partition:
    draws = cell_draws(matrix, seed, "partition", "random-interactions")
    return Partition((draws * shards).astype(np.int64), None, learnt=False)


def _ubp(matrix: csr_array, shards: int, balance: Balance, seed: int) -> Partition:
    users = Space(pretrained(matrix, seed)[0], np.arange(matrix.shape[0]))
    return _by_user(matrix, balanced_clusters([users], _weights(matrix, balance), shards, _rng(seed)), learnt=True)


def _ibp(matrix: csr_array, shards: int, balance: Balance, seed: int) -> Partition:
    items = Space(pretrained(matrix, seed)[1], np.arange(matrix.shape[1]))
    weights = _weights(matrix.T.tocsr(), balance)
    return Partition(balanced_clusters([items], weights, shards, _rng(seed))[matrix.indices], None, learnt=True)


def _inbp(matrix: csr_array, shards: int, balance: Balance, seed: int) -> Partition:
    of_users, of_items = pretrained(matrix, seed)
    rows = rows_of(matrix)
    spaces = [Space(of_users, rows), Space(of_items, matrix.indices)]
    return Partition(balanced_clusters(spaces, np.ones(matrix.nnz), shards, _rng(seed)), None, learnt=True)


def _ot(matrix: csr_array, shards: int, balance: Balance, seed: int) -> Partition:
    users, _ = pretrained(matrix, seed)
    owners, solve = transport_clusters(users, _weights(matrix, balance), shards, _rng(seed))
    return replace(_by_user(matrix, owners, learnt=True), solve=solve)


def draw_slices(made: Partition, matrix: csr_array, slices: int, seed: int) -> NDArray[np.int64]:
    """Return (nnz,) the slice of every cell within its shard, from 0, drawn without a look at the cells.

    Users are drawn where a shard has all cells of each of its users, so that their numbers in a shard's slices differ
    by one at most; cells, each with equal chances, where it has not.
    """
    if made.owners is None:
        return (cell_draws(matrix, seed, "partition", "slices") * slices).astype(np.int64)
    order = np.random.default_rng(derive_seed(seed, "partition", "slices")).permutation(len(made.owners))
    by_shard = order[np.argsort(made.owners[order], kind="stable")]
    sizes = np.bincount(made.owners)
    places = np.empty(len(order), dtype=np.int64)
    places[by_shard] = (np.arange(len(order)) - np.repeat(np.cumsum(sizes) - sizes, sizes)) % slices
    return np.repeat(places, np.diff(matrix.indptr))


PARTITIONS: dict[str, Callable[[csr_array, int, Balance, int], Partition]] = {
    "random": _random,
    "random-interactions": _random_interactions,
    "ubp": _ubp,
    "ibp": _ibp,
    "inbp": _inbp,
    "ot": _ot,
}


def _rng(seed: int) -> np.random.Generator:
    return np.random.default_rng(derive_seed(seed, "partition", "centroids"))


def pretrained(matrix: csr_array, seed: int) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Return (U, d) vectors of users and (I, d) of items, learnt from all cells."""
    model = MODELS.build(PRETRAINING).fit(matrix, derive_seed(seed, "partition", "vectors"))
    arrays = model.arrays()
    return arrays["user_factors"].astype(np.float64), arrays["item_factors"].astype(np.float64)


def cell_draws(matrix: csr_array, *stream: int | str) -> NDArray[np.float32]:
    """Return (nnz,) uniform draws in [0, 1), each of its cell alone, whatever other cells are there; O(U I) time."""
    rng = np.random.default_rng(derive_seed(*stream))
    found = np.empty(matrix.nnz, dtype=np.float32)
    for start, stop in zip(matrix.indptr[:-1], matrix.indptr[1:], strict=True):
        found[start:stop] = rng.random(matrix.shape[1], dtype=np.float32)[matrix.indices[start:stop]]
    return found
