r"""Interactions made here: power laws, clusters of taste, and attributes of users that go with taste.

A user u has an activity n_u from a Pareto II law, a taste theta_u over the C clusters and a moment of arrival; an item
i has a popularity p_i = rank^-popularity and a cluster c_i. The weight of a pair is

    w_ui = p_i (theta_u[c_i] + 1 / (20 C)),

and u's n_u items are drawn without replacement by these weights: the n_u least of E_ui / w_ui, E_ui standard
exponential, are such a draw (Efraimidis and Spirakis 2006). Tastes are theta_u ~ Dirichlet(m_u / 2), where m_u has
mean 1 over the clusters and is in proportion to 1 + r on the half of them that u's gender leans to, 1 - r on the other
half, times 1 + r on the third that u's age group leans to and 1 - r / 2 elsewhere; r is the ``correlation``.
"""

from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray
from scipy.sparse import csr_array

from msgm.checks import at_least, below_one, positive
from msgm.errors import UserError
from msgm.recommender.data.base import SOURCES, IdMap, Interactions, Source
from msgm.seeding import derive_seed

GENDERS = np.array(["F", "M"])
AGES = np.array(["young", "middle", "old"])
BLOCK = 1024
"""Users drawn at once: bounds the memory, and is part of the stream of random numbers."""


@SOURCES.register("synthetic")
@dataclass
class Synthetic(Source):
    """The embedded default: needs no file. ``users: 6040, items: 3706, interactions: 1000209`` has the size of ml-1m.

    Attributes ``gender`` (two values) and ``age`` (three) are known of every user; the cluster of an item is its tag.

    Example:
        >>> data = Synthetic(users=50, items=40, interactions=800).load()
        >>> data.shape, sorted(data.attributes)
        ((50, 40), ['age', 'gender'])

    Attributes:
        users: number of users.
        items: number of items.
        interactions: aimed at; every user has at least ``least``, and at most half of the items.
        least: interactions of a user, at least.
        clusters: of items, and of tastes; at least 6, one for every gender and age.
        activity: shape of the Pareto II law of activity, above 1; smaller is more unequal.
        popularity: exponent of the popularity of items by rank.
        correlation: of attributes with taste, [0, 1); 0 is none.
        feedback: ``implicit``, or ``explicit`` ratings 1 to 5, higher where a taste fits and for better items.
        seed: of the data; apart from the run's seed, so that runs of several seeds share their data.
    """

    users: int = 1000
    items: int = 600
    interactions: int = 40_000
    least: int = 10
    clusters: int = 12
    activity: float = 2.0
    popularity: float = 0.7
    correlation: float = 0.4
    feedback: Literal["implicit", "explicit"] = "implicit"
    seed: int = 0

    def __post_init__(self) -> None:
        at_least(2, self, "data", "users", "items")
        at_least(1, self, "data", "least")
        at_least(6, self, "data", "clusters")
        at_least(0, self, "data", "seed")
        positive(self, "data", "popularity")
        below_one(self, "data", "correlation")
        if not self.activity > 1:
            raise UserError(f"data.activity must be above 1, got {self.activity}.")
        if not self.least * self.users <= self.interactions <= self.items // 2 * self.users:
            raise UserError(
                f"data.interactions must lie between least x users = {self.least * self.users} and "
                f"items / 2 x users = {self.items // 2 * self.users}, got {self.interactions}."
            )

    def load(self) -> Interactions:
        """Make the interactions, by ``seed`` alone."""
        cluster = self._draws("clusters").integers(self.clusters, size=self.items)
        gender = self._draws("gender").integers(2, size=self.users)
        age = self._draws("age").integers(3, size=self.users)
        taste = self._tastes(gender, age)
        weight = self._draws("popularity").permutation(np.arange(1, self.items + 1) ** -self.popularity)
        chosen = self._choose(taste, cluster, weight)
        sizes = np.array([len(row) for row in chosen])
        columns = np.concatenate(chosen).astype(np.int32)
        rows = np.repeat(np.arange(self.users), sizes)
        values = self._values(taste[rows, cluster[columns]], columns)
        cells = (values, columns, np.concatenate([[0], np.cumsum(sizes)]))
        return Interactions(
            csr_array(cells, (self.users, self.items)),
            IdMap((f"user{k}" for k in range(1, self.users + 1)), "user"),
            IdMap((f"item{k}" for k in range(1, self.items + 1)), "item"),
            self._times(rows),
            {"gender": GENDERS[gender], "age": AGES[age]},
            {f"cluster{k + 1}": cluster == k for k in range(self.clusters)},
            self.feedback == "explicit",
        )

    def _draws(self, stream: str) -> np.random.Generator:
        return np.random.default_rng(derive_seed(self.seed, "synthetic", stream))

    def _tastes(self, gender: NDArray[np.int64], age: NDArray[np.int64]) -> NDArray[np.float64]:
        """Return (U, C) shares of the clusters in the users' tastes."""
        number = np.arange(self.clusters)
        leans = np.where(number % 2 == gender[:, None], 1 + self.correlation, 1 - self.correlation)
        leans *= np.where(number // 2 % 3 == age[:, None], 1 + self.correlation, 1 - self.correlation / 2)
        mass = self._draws("tastes").standard_gamma(leans / leans.mean(1, keepdims=True) / 2)
        return mass / mass.sum(1, keepdims=True)

    def _activity(self) -> NDArray[np.int64]:
        """Return (U,) numbers of items: ``least`` and a scaled Lomax (Pareto II) law, at most half of the items."""
        law = self._draws("activity").pareto(self.activity, self.users)
        low, high = 0.0, float(self.interactions)
        for _ in range(60):  # bisection for the scale: the sum grows with it
            scale = (low + high) / 2
            sizes = np.minimum(self.least + np.round(scale * law), self.items // 2)
            low, high = (scale, high) if sizes.sum() < self.interactions else (low, scale)
        return sizes.astype(np.int64)

    def _choose(
        self, taste: NDArray[np.float64], cluster: NDArray[np.int64], weight: NDArray[np.float64]
    ) -> list[NDArray[np.int64]]:
        """Return the items of every user, in the order of their numbers."""
        sizes, draws, chosen = self._activity(), self._draws("choices"), []
        fit = (taste + 0.05 / self.clusters).astype(np.float32)
        slowness = (1 / weight).astype(np.float32)
        for start in range(0, self.users, BLOCK):
            block = fit[start : start + BLOCK]
            waits = draws.standard_exponential((len(block), self.items), dtype=np.float32)
            waits *= slowness / block[:, cluster]
            for row, size in zip(waits, sizes[start : start + BLOCK], strict=True):
                chosen.append(np.sort(np.argpartition(row, size)[:size]))
        return chosen

    def _values(self, fit: NDArray[np.float64], columns: NDArray[np.int32]) -> NDArray[np.float32]:
        """Return ones, or ratings: 3 + 2 min(C fit / 3, 1) / 2 + the item's quality + noise, rounded, 1 to 5."""
        if self.feedback == "implicit":
            return np.ones(len(columns), dtype=np.float32)
        draws = self._draws("ratings")
        quality, noise = draws.normal(0, 0.5, self.items), draws.normal(0, 0.7, len(columns))
        liking = np.minimum(self.clusters * fit / 3, 1)
        return np.clip(np.round(3 + liking + quality[columns] + noise), 1, 5).astype(np.float32)

    def _times(self, rows: NDArray[np.int64]) -> NDArray[np.int64]:
        """Return seconds: users arrive within a year; minutes lie between a session's items, days between sessions."""
        draws = self._draws("times")
        pause = np.where(draws.random(len(rows)) < 0.15, 3 * 86_400, 120)
        passed = np.cumsum(pause * draws.standard_exponential(len(rows)))
        first = np.flatnonzero(np.diff(rows, prepend=-1))
        arrival = 1_600_000_000 + draws.integers(365 * 86_400, size=self.users)
        moments = (arrival[rows] + passed - passed[first][rows]).astype(np.int64)
        # Within a user the moments go to his items in random order.
        order = np.lexsort((draws.random(len(rows)), rows))
        times = np.empty(len(rows), dtype=np.int64)
        times[order] = moments
        return times
