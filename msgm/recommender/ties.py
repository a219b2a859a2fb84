r"""Lists of the k best items where scores are tied: chances and means over all orders of the tied items.

Items of equal scores have no order of their own. Ranking them by item number would reward a model for the order of the
items in the log; so every number here is its mean over all orders, which is its mean over all numberings of the items.
A group of n tied items behind a others stands on the places a + 1, ..., a + n in any order, and m = min(n, k - a) of
them, none if that is negative, are on the list:

    P(an item of it is on the list)      = m / n
    P(none of p certain items of it is)  = C(n - p, m) / C(n, m)

Two models that are compared rank by one and the same order, so that equal scores give equal lists. Where the end of
both lists lies within a group, let C items be in both groups, X in the first alone and Y in the second alone, and m and
m' places be left for the groups. Of the items in order, the first list is full first, with c of the items in both and
b of Y drawn by then, with the chance

    C(X, m - c) C(Y, b) C(C, c) / C(X + Y + C, m + b) * m / (m + b)                                   (c + b < m')

and the second then takes the rest of its places from Y and C at random; both are full at once, with c in both, with

    C(X, m - c) C(Y, m' - c) C(C, c) / C(X + Y + C, m + m' - c) * c / (m + m' - c).

The items that both lists took from both groups are those that the list that was full first took.
"""

from dataclasses import dataclass
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray
from scipy.special import gammaln

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]


@dataclass(frozen=True, eq=False)
class Places:
    """Positions of (c,) cells in the top-k lists of their rows.

    Attributes:
        rows: (c,) numbers of the rows, of ``count`` in all.
        ahead: (c,) items with a larger score; the length k of the list or more for an item that is not on it.
        tied: (c,) items with the same score, itself among them.
        listed: (c,) how many of these are on the list, 0 to ``tied``.
        count: number of rows.
    """

    rows: Ints
    ahead: Ints
    tied: Ints
    listed: Ints
    count: int

    def chances(self) -> Floats:
        """Return (c,) the chances of the cells to be on the lists."""
        return np.asarray(self.listed / self.tied)

    def gains(self, discounts: Floats) -> Floats:
        """Return (c,) the means of the cells' discounts; ``discounts`` are those of the places 1 to k."""
        total = np.concatenate([[0.0], np.cumsum(discounts)])
        first = np.minimum(self.ahead, len(discounts))
        return np.asarray((total[first + self.listed] - total[first]) / self.tied)

    def sums(self, values: Floats) -> Floats:
        """Return (count,) the sums of the cells' values in every row."""
        return np.asarray(np.bincount(self.rows, values, minlength=self.count), dtype=np.float64)

    def any_listed(self) -> Floats:
        """Return (count,) the chance that at least one of a row's cells is on its list."""
        sure = self.listed == self.tied
        part = (self.listed > 0) & ~sure  # In a row only the group in which the list ends can be there in part.
        of_part = self.rows[part]
        wanted = np.bincount(of_part, minlength=self.count)
        size, places = np.zeros((2, self.count), dtype=np.int64)
        size[of_part], places[of_part] = self.tied[part], self.listed[part]
        none = np.ones(self.count)
        for drawn in range(places.max(initial=0)):
            left = np.maximum(size - drawn, 1)
            none *= np.where(drawn < places, np.maximum(left - wanted, 0) / left, 1.0)
        none[self.rows[sure & (self.listed > 0)]] = 0.0
        return 1 - none


def places(scores: Floats, rows: Ints, columns: Ints, k: int) -> Places:
    """Return the positions of cells in the top-k lists of (n, I) scores; -inf is on no list."""
    width = min(k, scores.shape[1])
    best = np.partition(scores, -width, axis=1)[:, -width:]
    last = best.min(axis=1)
    own = scores[rows, columns]
    ahead = (best[rows] > own[:, None]).sum(axis=1)
    tied = (best[rows] == own[:, None]).sum(axis=1)
    at_the_end = own == last[rows]
    if at_the_end.any():
        tied[at_the_end] = (scores == last[:, None]).sum(axis=1)[rows[at_the_end]]
    off = (own < last[rows]) | ~(own > -np.inf)
    ahead[off], tied[off] = k, 1
    return Places(rows, ahead, tied, np.clip(k - ahead, 0, tied), len(scores))


def any_of(scores: Floats, items: Ints, k: int) -> Floats:
    """Return (n,) the chance that the k best of (n, I) scores hold at least one of the items."""
    rows = np.repeat(np.arange(len(scores)), len(items))
    return places(scores, rows, np.tile(items, len(scores)), k).any_listed()


def tied_rows(scores: Floats, k: int) -> NDArray[np.bool_]:
    """Return (n,) whether the members or the order of the top-k lists of (n, I) scores depend on ties."""
    width = min(k + 1, scores.shape[1])
    best = np.sort(np.partition(scores, -width, axis=1)[:, -width:], axis=1)
    return np.asarray(((best[:, 1:] == best[:, :-1]) & (best[:, 1:] > -np.inf)).any(axis=1))


def overlaps(one: Floats, other: Floats, k: int) -> tuple[Floats, Floats]:
    """Compare the lists of the k best of two (n, I) scores.

    Returns:
        (n,) means of the Jaccard index of the lists, and (n, k) means of the shares of items that the lists cut at
        depth 1 to k have in common; of lists that are shorter than the depth, of the longer one.
    """
    jaccard, agreement = np.empty(len(one)), np.empty((len(one), k))
    for row, pair in enumerate(zip(one, other, strict=True)):
        ranks = _ranks(pair, k)
        cuts = [[_Cut.of(part, depth) for part in ranks] for depth in range(1, k + 1)]
        agreement[row] = [_Pair.of(*cut).mean() / max(cut[0].size, cut[1].size, 1) for cut in cuts]
        jaccard[row] = _jaccard(_Pair.of(*cuts[-1]), cuts[-1][0].size + cuts[-1][1].size)
    return jaccard, agreement


def _ranks(pair: tuple[Floats, Floats], k: int) -> list[Ints]:
    """Return of two (I,) scores the (2, c) numbers of items ahead, and with the tied ones, for items on either list."""
    width = min(k, len(pair[0]))
    listed = [(each >= np.partition(each, -width)[-width]) & (each > -np.inf) for each in pair]
    either = listed[0] | listed[1]
    found = []
    for scores, on in zip(pair, listed, strict=True):
        order, own = np.sort(-scores[on]), -scores[either]
        ranks = np.stack([np.searchsorted(order, own, side) for side in ("left", "right")])
        found.append(np.where(on[either], ranks, len(scores) + k))
    return found


@dataclass(frozen=True, eq=False)
class _Cut:
    """A list cut at a depth: the items on it in any order, the group in which it ends, and that group's places."""

    sure: NDArray[np.bool_]
    group: NDArray[np.bool_]
    places: int
    size: int

    @classmethod
    def of(cls, ranks: Ints, depth: int) -> "_Cut":
        """Cut a list at a depth, by one of ``_ranks``."""
        ahead, upto = ranks
        sure, group = upto <= depth, (ahead < depth) & (upto > depth)
        places = depth - int(sure.sum()) if group.any() else 0
        return cls(sure, group, places, int(sure.sum()) + places)


@dataclass(frozen=True)
class _Pair:
    """Two lists by numbers of items.

    Attributes:
        sure: on both in any order.
        met: in a group of one that the other has in any order, for each.
        alone: in a group of one and in no group of the other, ``met`` among them, for each.
        common: in both groups.
        places: of the groups on the lists.
    """

    sure: int
    met: tuple[int, int]
    alone: tuple[int, int]
    common: int
    places: tuple[int, int]

    @classmethod
    def of(cls, one: _Cut, other: _Cut) -> "_Pair":
        common = int((one.group & other.group).sum())
        return cls(
            int((one.sure & other.sure).sum()),
            (int((one.group & other.sure).sum()), int((other.group & one.sure).sum())),
            (int(one.group.sum()) - common, int(other.group.sum()) - common),
            common,
            (one.places, other.places),
        )

    def mean(self) -> float:
        """Return the mean number of items on both lists."""
        found = float(self.sure)
        for met, alone, places in zip(self.met, self.alone, self.places, strict=True):
            found += met * places / max(alone + self.common, 1)
        return found + _mean_common(*self.alone, self.common, *self.places)


def _log_choose(n: Ints | int, k: Ints | int) -> Floats:
    """Return ln C(n, k); -inf where there is no way."""
    n, k = np.asarray(n), np.asarray(k)
    possible = (k >= 0) & (k <= n)
    n, k = np.where(possible, n, 0), np.where(possible, k, 0)
    return np.where(possible, gammaln(n + 1) - gammaln(k + 1) - gammaln(n - k + 1), -np.inf)


def _share(ways: Floats, of: Floats) -> Floats:
    """Return the share of some ways among all, by logarithms; 0 where there is none."""
    return np.exp(ways - np.maximum(of, 0.0))


def _drawn(x: int, y: int, common: int, a: Ints, b: Ints, c: Ints) -> Floats:
    """Return the chance that the first a + b + c items of all are a of X, b of Y and c of both."""
    ways = _log_choose(x, a) + _log_choose(y, b) + _log_choose(common, c)
    return _share(ways, _log_choose(x + y + common, a + b + c))


def _first_full(x: int, y: int, common: int, m: int, n: int) -> Floats:
    """Return (m + 1, n) the chances that the list of m places is full first, with c in both and b of Y by then."""
    c, b = np.arange(m + 1)[:, None], np.arange(n)[None, :]
    chance = _drawn(x, y, common, m - c, b, c) * m / (m + b)
    return np.where(c + b < n, chance, 0.0)


def _at_once(x: int, y: int, common: int, m: int, n: int) -> Floats:
    """Return (min(m, n) + 1,) the chances that both lists are full at once, with c in both."""
    c = np.arange(min(m, n) + 1)
    return np.asarray(_drawn(x, y, common, m - c, n - c, c) * c / (m + n - c))


@lru_cache(2**14)
def _mean_common(x: int, y: int, common: int, m: int, n: int) -> float:
    """Return the mean number of items of both groups that are on both lists."""
    if not common:
        return 0.0
    sums = (
        _first_full(x, y, common, m, n).sum(1),
        _first_full(y, x, common, n, m).sum(1),
        _at_once(x, y, common, m, n),
    )
    return float(sum(each @ np.arange(len(each)) for each in sums))


@lru_cache(2**12)
def _common(x: int, y: int, common: int, m: int, n: int) -> Floats:
    """Return (m + 1, n + 1) the chances that the lists hold so many items of both groups."""
    found = np.zeros((m + 1, n + 1))
    if not common:
        found[0, 0] = 1.0
        return found
    for table, first, ways in ((found, _first_full(x, y, common, m, n), (y, m, n)),
                               (found.T, _first_full(y, x, common, n, m), (x, n, m))):  # fmt: skip
        _then(table, first, common, *ways)
    both = _at_once(x, y, common, m, n)
    found[np.arange(len(both)), np.arange(len(both))] += both
    return found


def _then(table: Floats, first: Floats, common: int, alone: int, m: int, n: int) -> None:
    """Add to a table the chances of what the other list takes, once the first is full: the rest of its n places."""
    b = np.arange(n)[:, None]
    for c in range(min(m, n - 1) + 1):
        more = np.arange(n - c + 1)[None, :]
        left = n - b - c
        ways = _log_choose(common - c, more) + _log_choose(alone - b, left - more)
        table[c, c:] += first[c] @ _share(ways, _log_choose(common - c + alone - b, left))


def _jaccard(pair: _Pair, sizes: int) -> float:
    """Return the mean Jaccard index of two lists of so many items in sum; 1 of two empty ones."""
    if not sizes:
        return 1.0
    met = [_met(alone, met, places) for alone, met, places in zip(pair.alone, pair.met, pair.places, strict=True)]
    chances = _common(*pair.alone, pair.common, *pair.places)
    mean = 0.0
    for own, theirs in zip(*np.nonzero(chances), strict=True):
        spread = np.convolve(met[0][own], met[1][theirs])
        shared = pair.sure + min(own, theirs) + np.arange(len(spread))
        mean += chances[own, theirs] * float(spread @ (shared / (sizes - shared)))
    return mean


@lru_cache(2**12)
def _met(alone: int, met: int, places: int) -> Floats:
    """Return (places + 1, met + 1): with so many places taken by items of both groups, the chances of how many of the
    group's items that the other list has in any order are on the list.
    """
    drawn, found = places - np.arange(places + 1)[:, None], np.arange(met + 1)[None, :]
    ways = _log_choose(met, found) + _log_choose(alone - met, drawn - found)
    return _share(ways, _log_choose(alone, drawn))
