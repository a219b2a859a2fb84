r"""Probe cells of membership metrics: forgotten cells and comparable held-out cells that no model was trained on.

Test cells are a random part of a user's cells, as forgotten cells are. A model that never saw either cannot tell them
apart, whatever it is: in a comparison within strata of such cells it is right half of the time. Strata are

- for single cells, their user: his forgotten cells against his test cells;
- for the cells of a forgotten item, the item: its forgotten cells against its test cells, of other users;
- for a forgotten user, who is gone from the model, one of two halves of his training cells, drawn at random: the model
  is given the other half as the profile of a new user and asked for this half and for his test cells.

Held-out cells weigh as ``msgm.strata`` says; strata without forgotten or without held-out cells are left out. For
items the likeness is near, not exact: a user with few cells has none in the test part.

How a new user is asked: by the score path of models that score from profiles (EASE, item and session neighbours,
autoencoders), with his row appended to the rows that they know; else by ``score_rows``, folded in. A model that can do
neither, such as matrix factorisation of ratings, cannot be asked.

Three readings are taken of a cell: z, the score in standard deviations from the mean of the user's scores of all items
(for models of ratings: minus the absolute error); the share of all items that score lower; and z less the mean of the
item's z over retained users.
"""

import copy
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.sparse import csr_array, vstack

from msgm.recommender.metrics.base import Case
from msgm.recommender.metrics.ranking import blocks
from msgm.recommender.models.base import Recommender, folds_in
from msgm.recommender.requests import Deletion
from msgm.recommender.scores import standardised
from msgm.recommender.sparse import kept, rows_of
from msgm.seeding import derive_seed
from msgm.strata import auc, balanced

REFERENCE_USERS = 500
"""Retained users, drawn at random, over whom an item's mean z is taken."""
Scorer = Callable[[NDArray[np.int64]], NDArray[np.floating[Any]]]


@dataclass(frozen=True, eq=False)
class UserItemPairs:
    """(n,) cells of users and items, with their values; users from U on are new ones."""

    users: NDArray[np.int64]
    items: NDArray[np.int64]
    values: NDArray[np.float32]

    @classmethod
    def of(cls, matrix: csr_array) -> "UserItemPairs":
        """Return the stored cells of a (U, I) matrix."""
        rows = rows_of(matrix)
        return cls(rows, matrix.indices.astype(np.int64), matrix.data)

    def at(self, chosen: NDArray[Any]) -> "UserItemPairs":
        """Return the cells that an index or a mask chooses."""
        return UserItemPairs(self.users[chosen], self.items[chosen], self.values[chosen])

    def asked_as(self, users: NDArray[np.int64]) -> "UserItemPairs":
        """Return the same items for other users."""
        return UserItemPairs(users, self.items, self.values)


def joined(parts: list[UserItemPairs]) -> UserItemPairs:
    """Return the cells of all parts."""
    return UserItemPairs(*(np.concatenate([getattr(p, name) for p in parts]) for name in ("users", "items", "values")))


@dataclass(frozen=True, eq=False)
class Probe:
    """The cells to score, and the profiles of new users.

    Attributes:
        cells: forgotten and held-out ones.
        forgotten: (n,) which are which.
        weights: (n,) of the cells.
        profiles: (m, I) of the new users U, U + 1, ...
        times: of the profiles' cells; None without.
    """

    cells: UserItemPairs
    forgotten: NDArray[np.bool_]
    weights: NDArray[np.float64]
    profiles: csr_array
    times: NDArray[np.int64] | None

    def at(self, chosen: NDArray[np.bool_]) -> "Probe":
        """Return the probe of some cells."""
        return Probe(self.cells.at(chosen), self.forgotten[chosen], self.weights[chosen], self.profiles, self.times)

    def auc(self, values: NDArray[np.float64]) -> float | None:
        """Return the AUC of the forgotten cells' (n,) values against the held-out cells'; None without either."""
        return auc(values[self.forgotten], values[~self.forgotten], self.weights[~self.forgotten])


def probe_of(case: Case, seed: int) -> Probe:
    """Return the ``Probe`` of a request; ``seed`` draws the halves of forgotten users' profiles."""
    train, deletion = case.split.train, case.deletion
    users, items = train.shape
    number = np.full(users, -1)
    number[deletion.users] = np.arange(len(deletion.users))
    half = np.random.default_rng(derive_seed(seed, "probe", "halves")).integers(2, size=train.nnz)
    every, test = UserItemPairs.of(train), UserItemPairs.of(case.split.test)
    asked = deletion.mask(train)
    whole = number[every.users] >= 0
    staying = number[test.users] < 0

    of_item = np.isin(every.items, deletion.items)
    strata = [np.where(of_item, users + every.items, every.users)[asked & ~whole]]
    parts = [every.at(asked & ~whole)]
    held_of_item = np.isin(test.items, deletion.items)
    held_strata = [np.where(held_of_item, users + test.items, test.users)[staying]]
    held = [test.at(staying)]
    for side in (0, 1):
        mine, theirs = every.at(whole & (half == side)), test.at(~staying)
        for cells, found, codes in ((mine, parts, strata), (theirs, held, held_strata)):
            guests = users + 2 * number[cells.users] + side
            found.append(cells.asked_as(guests))
            codes.append(items + guests)
    profiles, times = _profiles(case, half)
    code = np.concatenate([*strata, *held_strata])
    forgotten = np.arange(len(code)) < sum(map(len, strata))
    keep, weights = balanced(code, forgotten)
    return Probe(joined([*parts, *held]), forgotten, weights, profiles, times).at(keep)


def _profiles(case: Case, half: NDArray[np.int64]) -> tuple[csr_array, NDArray[np.int64] | None]:
    """Return two rows a forgotten user, row s without his cells of half s, and their times."""
    train, times = case.split.train, case.split.train_times
    rows, moments = [csr_array((0, train.shape[1]), dtype=train.dtype)], []
    gone = case.deletion.users
    sides = [kept(train, half != side) for side in (0, 1)]
    for user in gone:
        rows += [side[[user]] for side in sides]
        if times is not None:
            cells = slice(train.indptr[user], train.indptr[user + 1])
            moments += [times[cells][half[cells] != side] for side in (0, 1)]
    stacked = csr_array(vstack(rows, format="csr"))
    return stacked, None if times is None else np.concatenate([np.empty(0, dtype=np.int64), *moments])


def guest_scorer(model: Recommender, probe: Probe) -> Scorer | None:
    """Return a function that gives (n, I) scores of the probe's new users; None where the model cannot score them."""
    if not probe.profiles.shape[0]:
        return None
    users = model.seen.shape[0]
    host = copy.copy(model)
    host.seen = csr_array(vstack([model.seen, probe.profiles], format="csr"))
    host.gone_users = np.append(model.gone_users, np.zeros(probe.profiles.shape[0], dtype=bool))
    if model.times is not None and probe.times is not None:
        host.times = np.concatenate([model.times, probe.times])
    try:
        host.score(np.array([users]))
    except IndexError:
        return _folded(model, probe)
    return host.score


def _folded(model: Recommender, probe: Probe) -> Scorer | None:
    if not folds_in(type(model)):
        return None
    scores, users = model.score_rows(probe.profiles), model.seen.shape[0]
    return lambda asked: scores[asked - users]


def guest_factors(model: Recommender, probe: Probe) -> NDArray[np.floating[Any]] | None:
    """Return (m, d) factors of the probe's new users; None where the model has no ``fold_in`` or no item factors."""
    fold_in = getattr(model, "fold_in", None)
    if fold_in is None or not hasattr(model, "item_factors"):
        return None
    return np.asarray(fold_in(probe.profiles))


def item_means(case: Case, seed: int) -> NDArray[np.float64]:
    """Return (I,) means of the items' z over ``REFERENCE_USERS`` retained users."""
    retained = retained_users(case.deletion, case.split.train)
    draws = np.random.default_rng(derive_seed(seed, "probe", "reference"))
    chosen = draws.choice(retained, min(REFERENCE_USERS, len(retained)), replace=False)
    return np.concatenate([standardised(case.target.score(block)) for block in blocks(chosen)]).mean(axis=0)


def retained_users(deletion: Deletion, train: csr_array) -> NDArray[np.int64]:
    """Return the users who have training cells after the request."""
    return np.flatnonzero(np.diff(deletion.without(train).indptr))


def readings(
    model: Recommender, cells: UserItemPairs, means: NDArray[np.float64], guests: Scorer | None
) -> NDArray[np.float64]:
    """Return the (n, 3) readings of every cell: z, share of items below, z less the item's mean.

    Rows of cells of new users are NaN where ``guests`` is None.
    """
    found = np.full((len(cells.users), 3), np.nan)
    users = model.seen.shape[0]
    for known, score in ((cells.users < users, model.score), (cells.users >= users, guests)):
        if score is None:
            continue
        where = np.flatnonzero(known)
        for block in blocks(np.unique(cells.users[where])):
            mine = where[np.isin(cells.users[where], block)]
            scores = np.asarray(score(block), dtype=np.float64)
            rows = np.searchsorted(block, cells.users[mine])
            found[mine] = _read(scores, rows, cells.at(mine), means, model.explicit)
    return found


def _read(
    scores: NDArray[np.float64],
    rows: NDArray[np.int64],
    cells: UserItemPairs,
    means: NDArray[np.float64],
    explicit: bool,
) -> NDArray[np.float64]:
    standard = standardised(scores)
    z = standard[rows, cells.items]
    order = np.sort(scores, axis=1)
    below = np.array(
        [np.searchsorted(order[row], scores[row, item]) for row, item in zip(rows, cells.items, strict=True)]
    )
    value = -np.abs(scores[rows, cells.items] - cells.values) if explicit else z
    return np.stack([value, below / scores.shape[1], z - means[cells.items]], axis=1)
