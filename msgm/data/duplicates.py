r"""Near-duplicates of the items to forget: a model that still knows a copy has not forgotten the item.

Distances are Euclidean, |a - b|^2 = |a|^2 - 2 a.b + |b|^2, between images as a network sees them and between vectors
whose columns are standardised by the training items, so that the columns' units do not matter. The threshold is derived
from the data: for each held-out item the distance to its nearest training item is found, and the threshold is the 1%
quantile of those that are not zero. So about 1% of fresh items have such a neighbour by chance, and exact copies always
count.
"""

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from msgm.data.base import Dataset
from msgm.data.pixels import dequantise

QUANTILE = 0.01
CHUNK = 512
BLOCK = 4096
"""Rows that the others are compared with at a time: the others are read once for each block."""
MOST_HELD_OUT = 2000
COMPARED = 1000
"""How many items to forget a generator's search compares."""
EXACT = 1e-4
"""Relative rounding below which the expanded square tells nothing; such pairs are compared number by number."""
Positions = NDArray[np.int64]
Reader = Callable[[Positions, int], Iterator[Tensor]]
"""Yields the rows at positions, in that order, at most so many at a time, (n, D)."""


@dataclass(frozen=True)
class Pair:
    """Two items that are nearly the same, by their positions in the data set; distance 0 is an exact copy."""

    forget: int
    other: int
    part: str
    distance: float


@dataclass(frozen=True)
class Duplicates:
    """Result of the search.

    Attributes:
        method: how it was searched, in a sentence.
        threshold: distance from which on items are no duplicates.
        pairs: the nearest first.
    """

    method: str
    threshold: float
    pairs: list[Pair]

    @property
    def found(self) -> int:
        """How many items other than the requested ones are near-duplicates of some of these."""
        return len({pair.other for pair in self.pairs})


def near_duplicates(
    dataset: Dataset,
    parts: Mapping[str, Positions],
    fresh: Positions,
    device: torch.device | str = "cpu",
    most: int | None = None,
) -> Duplicates:
    """Search the parts of a split for near-duplicates of the items to forget.

    Args:
        dataset: the data.
        parts: positions by the part's name; ``forget`` and ``retain`` are the training items.
        fresh: positions of held-out items, which set the threshold.
        device: where to compute.
        most: compare at most so many of the items to forget, spread evenly over them; all when None.
    """
    train = np.sort(np.concatenate([parts["retain"], parts["forget"]]))
    fresh, forget = spread(fresh, MOST_HELD_OUT), spread(parts["forget"], most)
    rows = _reader(dataset, train, device)
    own = _nearest(fresh, train, rows)
    apart = own[own > 0]
    threshold = float(apart.quantile(QUANTILE)) if len(apart) else 0.0
    others = {name: part for name, part in parts.items() if name != "forget"}
    pairs = [pair for name, part in others.items() for pair in _pairs(forget, part, name, threshold, rows)]
    inputs = "inputs, columns standardised," if dataset.levels is None else "inputs"
    method = (
        f"Euclidean distance of {inputs} below {threshold:.4g}, the {QUANTILE:.0%} quantile of the non-zero distances "
        f"from {len(fresh)} held-out items to their nearest training item, or an exact copy"
    )
    if len(forget) < len(parts["forget"]):
        method += f"; {len(forget)} of the {len(parts['forget'])} items to forget were compared"
    return Duplicates(method, threshold, sorted(pairs, key=lambda pair: pair.distance))


def spread(positions: Positions, most: int | None) -> Positions:
    """Return at most ``most`` of the positions, evenly spread: data sets may lie in the order of their classes."""
    count = len(positions)
    if most is None or count <= most:
        return positions
    return positions[np.linspace(0, count - 1, most).round().astype(np.int64)]


def _reader(dataset: Dataset, train: Positions, device: torch.device | str) -> Reader:
    """Return a function that reads rows to compare: images as a network sees them, vectors standardised by column."""

    def raw(positions: Positions, size: int) -> Iterator[Tensor]:
        for start in range(0, len(positions), size):
            items = dataset.take(positions[start : start + size]).to(device)
            yield (items.float() if dataset.levels is None else dequantise(items, dataset.levels)).flatten(1)

    if dataset.levels is not None:
        return raw
    x = torch.cat(list(raw(train, CHUNK)))
    centre, deviation = x.mean(0), x.std(0, correction=0)
    deviation = torch.where(deviation > 0, deviation, 1.0)
    return lambda positions, size: ((x - centre) / deviation for x in raw(positions, size))


def _nearest(queries: Positions, bank: Positions, rows: Reader) -> Tensor:
    """Return (len(queries),) distances to the nearest item of ``bank``."""
    found = []
    for x in rows(queries, BLOCK):
        nearest = torch.full((len(x),), torch.inf, device=x.device)
        for y in rows(bank, CHUNK):
            nearest = nearest.minimum(squares(x, y).amin(1))
        found.append(nearest.sqrt().cpu())
    return torch.cat(found)


def _pairs(forget: Positions, others: Positions, part: str, threshold: float, rows: Reader) -> list[Pair]:
    found = []
    for a, x in enumerate(rows(forget, BLOCK)):
        for b, y in enumerate(rows(others, CHUNK)):
            near = squares(x, y).sqrt()
            left, right = ((near < threshold) | (near == 0)).nonzero(as_tuple=True)
            for row, column in zip(left.tolist(), right.tolist(), strict=True):
                places = int(forget[a * BLOCK + row]), int(others[b * CHUNK + column])
                found.append(Pair(*places, part, float(near[row, column])))
    return found


def squares(x: Tensor, y: Tensor) -> Tensor:
    """Return (len(x), len(y)) squared distances; small ones, where rounding matters, are computed from differences."""
    left, right = x.square().sum(1), y.square().sum(1)
    found = (left[:, None] + right - 2 * x @ y.T).clamp_min(0)
    rows, columns = (found <= EXACT * (left[:, None] + right)).nonzero(as_tuple=True)
    for r, c in zip(rows.split(CHUNK), columns.split(CHUNK), strict=True):
        found[r, c] = (x[r] - y[c]).square().sum(1)
    return found
