"""Training, validation and test cells: a split depends on the data, its settings and its seed, never on a request.

Every way leaves every user at least one training cell, so a user with a single cell has neither validation nor test.
Settings are chosen on validation cells; test cells are for the reported numbers alone.
"""

from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray
from scipy.sparse import csr_array

from msgm.checks import at_least, below_one
from msgm.errors import UserError
from msgm.recommender.data.base import Interactions, Split
from msgm.recommender.sparse import kept, rows_of
from msgm.registry import Registry
from msgm.seeding import derive_seed

TRAIN, VALIDATION, TEST = 0, 1, 2


class Splitter(ABC):
    """A way to split; subclasses are dataclasses whose fields are their settings."""

    name: ClassVar[str]

    def split(self, data: Interactions) -> Split:
        """Return the parts: disjoint, and together all cells of ``data``.

        Raises:
            UserError: the data lack what the way needs, or no test cell is left.
        """
        part = self.parts(data)
        if not (part == TEST).any():
            raise UserError(f"split {self.name}: no test cell; the data are too small for its settings.")
        train, validation, test = (kept(data.matrix, part == k) for k in (TRAIN, VALIDATION, TEST))
        return Split(train, validation, test, None if data.times is None else data.times[part == TRAIN])

    @abstractmethod
    def parts(self, data: Interactions) -> NDArray[np.int64]:
        """Return TRAIN, VALIDATION or TEST for every stored cell, in the order of ``data.matrix.data``."""


SPLITS: Registry[Splitter] = Registry("split")


@SPLITS.register("per-user")
@dataclass
class PerUser(Splitter):
    """A random share of every user's cells.

    Example:
        >>> users, items = ["ann"] * 10 + ["bob"] * 10, [*range(10)] * 2
        >>> data = Interactions.of(users, items, np.ones(20))
        >>> split = PerUser(validation=0.1, test=0.2).split(data)
        >>> split.train.nnz, split.validation.nnz, split.test.nnz
        (14, 2, 4)

    Attributes:
        validation: share for tuning, [0, 1).
        test: share for the reported numbers, [0, 1).
        seed: of the draw; apart from the run's seed, so that runs of several seeds share their data.
    """

    validation: float = 0.1
    test: float = 0.2
    seed: int = 0

    def __post_init__(self) -> None:
        _check_shares(self, "validation", "test")
        at_least(0, self, "split", "seed")

    def parts(self, data: Interactions) -> NDArray[np.int64]:
        keys = np.random.default_rng(derive_seed(self.seed, "split")).random(data.matrix.nnz)
        sizes = np.diff(data.matrix.indptr)
        test = np.minimum(_rounded(self.test * sizes), sizes - 1)
        validation = np.minimum(_rounded(self.validation * sizes), sizes - 1 - test)
        return _by_rank(data.matrix, keys, test, validation)


@SPLITS.register("leave-last")
@dataclass
class LeaveLast(Splitter):
    """The last cell of every user is for testing, the one before for validation.

    A user of two cells has no validation cell; of cells of the same second, the one of the higher item is the later.

    Example:
        >>> users, items = ["ann"] * 10 + ["bob"] * 10, [*range(10)] * 2
        >>> data = Interactions.of(users, items, np.ones(20), times=np.arange(20))
        >>> split = LeaveLast().split(data)
        >>> split.train.nnz, split.validation.nnz, split.test.nnz
        (16, 2, 2)
    """

    def parts(self, data: Interactions) -> NDArray[np.int64]:
        times = _times(data, self.name)
        sizes = np.diff(data.matrix.indptr)
        last_first = np.empty(len(times), dtype=np.int64)
        last_first[np.lexsort((np.arange(len(times)), times))[::-1]] = np.arange(len(times))
        return _by_rank(data.matrix, last_first, (sizes > 1).astype(int), (sizes > 2).astype(int))


@SPLITS.register("global-time")
@dataclass
class GlobalTime(Splitter):
    """Two moments part training from validation and validation from test; cells of one second stay together.

    The first cell of a user who appears later is still a training cell, as nothing could be recommended to him
    otherwise.

    Example:
        >>> users, items = ["ann"] * 10 + ["bob"] * 10, [*range(10)] * 2
        >>> data = Interactions.of(users, items, np.ones(20), times=np.arange(20))
        >>> split = GlobalTime(validation=0.1, test=0.2).split(data)
        >>> split.train.nnz, split.validation.nnz, split.test.nnz
        (14, 2, 4)

    Attributes:
        validation: share for tuning, [0, 1); met up to the users who come late and cells of the same second.
        test: share for the reported numbers, [0, 1).
    """

    validation: float = 0.1
    test: float = 0.2

    def __post_init__(self) -> None:
        _check_shares(self, "validation", "test")

    def parts(self, data: Interactions) -> NDArray[np.int64]:
        times = _times(data, self.name)
        last = len(times) - 1
        moments = np.sort(times)[[int(last * (1 - self.validation - self.test)), int(last * (1 - self.test))]]
        part = np.searchsorted(moments, times, side="left")
        order = np.lexsort((times, rows_of(data.matrix)))
        part[order[data.matrix.indptr[:-1][np.diff(data.matrix.indptr) > 0]]] = TRAIN
        return part


@SPLITS.register("published")
@dataclass
class Published(Splitter):
    """The test part that the data set's authors published; validation cells are drawn from the rest, per user.

    Example:
        >>> users, items = ["ann"] * 10 + ["bob"] * 10, [*range(10)] * 2
        >>> data = Interactions.of(users, items, np.ones(20), test=np.arange(20) % 5 == 0)
        >>> split = Published(validation=0.1).split(data)
        >>> split.train.nnz, split.validation.nnz, split.test.nnz
        (14, 2, 4)

    Attributes:
        validation: share of a user's other cells, [0, 1).
        seed: of the draw.
    """

    validation: float = 0.1
    seed: int = 0

    def __post_init__(self) -> None:
        _check_shares(self, "validation")
        at_least(0, self, "split", "seed")

    def parts(self, data: Interactions) -> NDArray[np.int64]:
        if data.test is None:
            raise UserError("split published: the data have no published test part; use per-user.")
        sizes = np.bincount(rows_of(data.matrix)[~data.test], minlength=data.shape[0])
        test = np.bincount(rows_of(data.matrix)[data.test], minlength=data.shape[0])
        untrained = np.flatnonzero((sizes == 0) & (test > 0))
        if len(untrained):
            raise UserError(f"split published: user {data.users.ids[int(untrained[0])]} is in the test part alone.")
        draws = np.random.default_rng(derive_seed(self.seed, "split")).random(data.matrix.nnz)
        validation = np.minimum(_rounded(self.validation * sizes), sizes - 1)
        return _by_rank(data.matrix, np.where(data.test, -1, draws), test, validation)


def load_split(settings: Mapping[str, Any] | str, data: Interactions) -> Split:
    """Split ``data`` by a way's name or by the ``split`` section of a configuration."""
    return SPLITS.build({"name": settings} if isinstance(settings, str) else settings).split(data)


def _check_shares(settings: Any, *keys: str) -> None:
    below_one(settings, "split", *keys)
    total = sum(getattr(settings, key) for key in keys)
    if total >= 1:
        raise UserError(f"{' + '.join(f'split.{key}' for key in keys)} must be below 1, got {total:g}.")


def _times(data: Interactions, name: str) -> NDArray[np.int64]:
    if data.times is None:
        raise UserError(f"split {name} needs times, and the data have none; use per-user.")
    return data.times


def _rounded(counts: NDArray[np.floating[Any]]) -> NDArray[np.int64]:
    return np.floor(counts + 0.5).astype(np.int64)


def _by_rank(
    matrix: csr_array, keys: NDArray[Any], test: NDArray[np.int64], validation: NDArray[np.int64]
) -> NDArray[np.int64]:
    """Return the parts: each row's cells with the smallest keys are test, the next validation, the rest training."""
    rows = rows_of(matrix)
    order = np.lexsort((keys, rows))
    rank = np.empty(matrix.nnz, dtype=np.int64)
    rank[order] = np.arange(matrix.nnz) - matrix.indptr[:-1][rows]
    return np.select([rank < test[rows], rank < (test + validation)[rows]], [TEST, VALIDATION], TRAIN)
