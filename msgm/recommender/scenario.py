"""A comparison's request as row and column numbers: data, split, and deletions, at once or as a stream.

Requests are drawn from the training cells alone; a split knows no request. False profiles of ``spam`` are further users
at the end of the data, with training cells and no others: each has the promoted item, drawn from the less popular half,
and as many others as the median user has, half of them from the tenth of the items that is most popular and the rest
from all (a bandwagon attack: Mobasher et al., "Toward trustworthy recommender systems", ACM TOIT 2007). The promoted
item carries the tag ``promoted``.
"""

from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray
from scipy.sparse import csr_array, vstack

from msgm.errors import UserError, nearest
from msgm.recommender.config import BY_IDS, RequestSettings
from msgm.recommender.data.base import IdMap, Interactions, Split
from msgm.recommender.requests import Deletion, RecommenderRequest
from msgm.recommender.sparse import rows_of
from msgm.seeding import derive_seed

PROMOTED = "promoted"


@dataclass(frozen=True, eq=False)
class Scenario:
    """Data, split and deletions of a request, as row and column numbers.

    Attributes:
        data: ids, attributes and tags.
        split: the cells before the request.
        stream: the requests, one after the other; a single one in most cases.
        planted: whether ``data`` and ``split`` have planted profiles.
    """

    data: Interactions
    split: Split
    stream: list[Deletion]
    planted: bool = False

    @property
    def together(self) -> Deletion:
        """All requests of the stream as one."""
        parts = (np.concatenate([getattr(one, key) for one in self.stream]) for key in ("users", "items", "cells"))
        return Deletion(*parts)


FIRST_VERSION = {
    "random": "random_users",
    "interactions": "random_interactions",
    "stream": "stream",
    "spam": "spam",
}
"""A name of each kind that draws as in the first version, where all requests of a kind drew alike."""


def make_scenario(
    request: RequestSettings, data: Interactions, split: Split, seed: int, name: str | None = None
) -> Scenario:
    """Return the ``Scenario`` of a request; random draws are seeded by ``seed`` and the request's name.

    Raises:
        UserError: unknown ids or an unknown tag, more users than there are, or nothing would be left.
    """
    way = request.way()
    stream = (way,) if name is None or FIRST_VERSION.get(name) == way else (way, name)
    draws = np.random.default_rng(derive_seed(seed, "request", *stream))
    if way == "spam":
        return _planted(request.spam or 0, data, split, draws)
    if way in BY_IDS:
        plain = RecommenderRequest(**{way: getattr(request, way)})
        made = [plain.deletion(data, split.train)]
    elif way == "tag":
        made = [Deletion(items=_tagged(str(request.tag), data))]
    elif way == "random_interactions":
        made = [Deletion(cells=_some_cells(request.random_interactions or 0.0, split.train, draws))]
    else:
        users = _some_users(way, getattr(request, way), split.train, draws)
        made = [Deletion(users=part) for part in (users[:, None] if way == "stream" else [np.sort(users)])]
    scenario = Scenario(data, split, made)
    scenario.together.check(split.train)
    return scenario


def _tagged(tag: str, data: Interactions) -> NDArray[np.int64]:
    if tag not in data.tags:
        names = sorted(data.tags)
        raise UserError(f"request.tag: unknown tag {tag!r}; known: {', '.join(names) or 'none'}.{nearest(tag, names)}")
    items = np.flatnonzero(data.tags[tag])
    if not len(items):
        raise UserError(f"request.tag: no item is tagged {tag}.")
    return items


def _some_users(way: str, count: int, train: csr_array, draws: np.random.Generator) -> NDArray[np.int64]:
    sizes = np.diff(train.indptr)
    users = np.flatnonzero(sizes)
    if count >= len(users):
        raise UserError(f"request.{way}: {count} of {len(users)} users leave none to recommend from.")
    if way in ("random_users", "stream"):
        return np.asarray(draws.choice(users, count, replace=False))
    activity = sizes[users] if way == "least_active" else -sizes[users]
    return np.asarray(users[np.lexsort((draws.random(len(users)), activity))[:count]])  # Of equally active ones, any.


def _some_cells(share: float, train: csr_array, draws: np.random.Generator) -> NDArray[np.int64]:
    """Return (n, 2) cells, one at least."""
    chosen = np.sort(draws.choice(train.nnz, max(round(share * train.nnz), 1), replace=False))
    rows = rows_of(train)
    return np.stack([rows[chosen], train.indices[chosen].astype(np.int64)], axis=1)


def _planted(count: int, data: Interactions, split: Split, draws: np.random.Generator) -> Scenario:
    profiles, promoted = _profiles(count, split.train, draws)
    profiles.data[:] = split.train.data.max()
    empty = csr_array(profiles.shape, dtype=split.train.dtype)
    times = None if data.times is None else np.full(profiles.nnz, data.times.max())
    grown = replace(
        data,
        matrix=_below(data.matrix, profiles),
        users=IdMap([*data.users.ids, *(f"planted profile {k + 1}" for k in range(count))], "user"),
        times=None if times is None or data.times is None else np.concatenate([data.times, times]),
        attributes={name: np.concatenate([column, np.full(count, "")]) for name, column in data.attributes.items()},
        tags={**data.tags, PROMOTED: np.arange(data.shape[1]) == promoted},
        test=None if data.test is None else np.concatenate([data.test, np.zeros(profiles.nnz, dtype=bool)]),
    )
    parts = Split(
        _below(split.train, profiles),
        _below(split.validation, empty),
        _below(split.test, empty),
        None if times is None or split.train_times is None else np.concatenate([split.train_times, times]),
    )
    users = np.arange(data.shape[0], data.shape[0] + count)
    return Scenario(grown, parts, [Deletion(users=users)], planted=True)


def _profiles(count: int, train: csr_array, draws: np.random.Generator) -> tuple[csr_array, int]:
    """Return the (count, I) cells of false profiles, and the item that all of them have."""
    popularity = np.bincount(train.indices, minlength=train.shape[1])
    order = np.argsort(-popularity, kind="stable")
    half, tenth = len(order) // 2, max(len(order) // 10, 1)
    promoted = int(draws.choice(order[half:]))
    size = max(int(np.median(np.diff(train.indptr))), 1)
    rows = []
    for _ in range(count):
        popular = draws.choice(order[:tenth], min(size // 2, tenth), replace=False)
        others = draws.choice(len(order), min(size - size // 2, len(order)), replace=False)
        rows.append(np.unique(np.concatenate([[promoted], popular, others])))
    columns = np.concatenate(rows).astype(train.indices.dtype)
    starts = np.concatenate([[0], np.cumsum([len(row) for row in rows])]).astype(train.indptr.dtype)
    return csr_array((np.ones(len(columns), dtype=train.dtype), columns, starts), (count, train.shape[1])), promoted


def _below(upper: csr_array, lower: csr_array) -> csr_array:
    return csr_array(vstack([upper, lower], format="csr"))
