r"""Near-duplicates of the items to forget: a model that still knows a copy has not forgotten the item.

Distances are Euclidean, |a - b|^2 = |a|^2 - 2 a.b + |b|^2, between images as a network sees them and between vectors
whose columns are standardised by the training items, so that no column's unit decides. What counts as near is taken
from the data: for each held-out item the distance to its nearest training item is found, and the threshold is the 1%
quantile of those that are not zero. So about 1% of fresh items have such a neighbour by chance, and exact copies always
count.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from msgm.classifier.data import Examples, Split

QUANTILE = 0.01
CHUNK = 512
MOST_HELD_OUT = 2000
EXACT = 1e-4
"""Relative rounding below which the expanded square tells nothing; such pairs are compared number by number."""
Reader = Callable[[Examples], Iterator[Tensor]]
"""Yields (at most ``CHUNK``, D) rows of examples in their order."""


@dataclass(frozen=True)
class Pair:
    """Two items that are nearly the same, by their positions in the data set; distance 0 is an exact copy."""

    forget: int
    other: int
    part: str
    distance: float


@dataclass(frozen=True)
class Duplicates:
    """What was found.

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


def near_duplicates(split: Split, device: torch.device | str = "cpu") -> Duplicates:
    """Search retain and held-out items for near-duplicates of the items to forget.

    Args:
        split: the request's split; its training items may be many, distances are taken chunk by chunk.
        device: where to compute.
    """
    # Spread over all of them: data sets may lie in the order of their classes.
    count = len(split.nonmembers)
    fresh = split.nonmembers.subset(np.linspace(0, count - 1, min(count, MOST_HELD_OUT)).round().astype(np.int64))
    seen = _reader(split.train, device)
    own = _nearest(fresh, split.train, seen)
    apart = own[own > 0]
    threshold = float(apart.quantile(QUANTILE)) if len(apart) else 0.0
    others = {name: part for name, part in split.parts().items() if name != "forget"}
    pairs = [pair for name, part in others.items() for pair in _pairs(split.forget, part, name, threshold, seen)]
    inputs = "inputs, columns standardised," if _vectors(split.train) else "inputs"
    method = (
        f"Euclidean distance of {inputs} below {threshold:.4g}, the {QUANTILE:.0%} quantile of the non-zero distances "
        f"from {len(fresh)} held-out items to their nearest training item, or an exact copy"
    )
    return Duplicates(method, threshold, sorted(pairs, key=lambda pair: pair.distance))


def _vectors(examples: Examples) -> bool:
    return examples.dataset.levels is None


def _reader(train: Examples, device: torch.device | str) -> Reader:
    """Return what yields the rows to compare: images as a network sees them, vectors by columns standardised."""
    centre, spread = torch.zeros(1, device=device), torch.ones(1, device=device)
    if _vectors(train):
        x = train.inputs(np.arange(len(train)), device).flatten(1)
        centre, spread = x.mean(0), x.std(0, correction=0)
        spread = torch.where(spread > 0, spread, 1.0)
    return lambda examples: ((x.flatten(1) - centre) / spread for x, _ in examples.batches(CHUNK, device=device))


def _nearest(queries: Examples, bank: Examples, seen: Reader) -> Tensor:
    """Return (len(queries),) distances to the nearest item of ``bank``."""
    found = []
    for x in seen(queries):
        found.append(torch.stack([squares(x, y).amin(1) for y in seen(bank)]).amin(0).sqrt().cpu())
    return torch.cat(found)


def _pairs(forget: Examples, others: Examples, part: str, threshold: float, seen: Reader) -> list[Pair]:
    found = []
    for a, x in enumerate(seen(forget)):
        for b, y in enumerate(seen(others)):
            near = squares(x, y).sqrt()
            rows, columns = ((near < threshold) | (near == 0)).nonzero(as_tuple=True)
            for row, column in zip(rows.tolist(), columns.tolist(), strict=True):
                indices = int(forget.indices[a * CHUNK + row]), int(others.indices[b * CHUNK + column])
                found.append(Pair(*indices, part, float(near[row, column])))
    return found


def squares(x: Tensor, y: Tensor) -> Tensor:
    """Return (len(x), len(y)) squared distances; where rounding decides, they are taken number by number."""
    left, right = x.square().sum(1), y.square().sum(1)
    found = (left[:, None] + right - 2 * x @ y.T).clamp_min(0)
    rows, columns = (found <= EXACT * (left[:, None] + right)).nonzero(as_tuple=True)
    for r, c in zip(rows.split(CHUNK), columns.split(CHUNK), strict=True):
        found[r, c] = (x[r] - y[c]).square().sum(1)
    return found
