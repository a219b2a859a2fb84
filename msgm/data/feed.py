"""Training batches as a pure function of (seed, batch number), on the device or through a DataLoader.

The order of an epoch is a permutation seeded by (seed, epoch), and batch k is positions k*B .. (k+1)*B of the endless
concatenation of epochs. Nothing else is remembered, so a run resumes at any batch, and each process takes its slice of
the global batch: the training data do not depend on the number of processes.
"""

import itertools
from collections.abc import Iterator
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from msgm.data.base import Dataset
from msgm.data.reading import stream
from msgm.seeding import generator


class Batch(NamedTuple):
    """One process's share of a global batch.

    Example:
        >>> Batch(torch.zeros(4, 1, 8, 8), labels=None).items.shape
        torch.Size([4, 1, 8, 8])

    Attributes:
        items: (B, *shape) raw items.
        labels: (B,) the class or the prompt that each item is trained under, -1 for none; None where no labels are
            asked for.
    """

    items: Tensor
    labels: Tensor | None


class EpochOrder:
    """Endless shuffled passes over ``indices``."""

    def __init__(self, indices: NDArray[np.int64], seed: int, stream: str) -> None:
        self.indices, self.seed, self.stream = indices, seed, stream
        self._cached: tuple[int, NDArray[np.int64]] = (-1, indices)

    def batch(self, number: int, size: int) -> NDArray[np.int64]:
        """Return batch ``number`` of ``size`` items; it may span epochs, and repeats none within one."""
        position, end, parts = number * size, (number + 1) * size, []
        while position < end:
            epoch, offset = divmod(position, len(self.indices))
            taken = min(end - position, len(self.indices) - offset)
            parts.append(self._epoch(epoch)[offset : offset + taken])
            position += taken
        return np.concatenate(parts)

    def _epoch(self, epoch: int) -> NDArray[np.int64]:
        if self._cached[0] != epoch:
            shuffled = torch.randperm(len(self.indices), generator=generator(self.seed, "order", self.stream, epoch))
            self._cached = (epoch, self.indices[shuffled.numpy()])
        return self._cached[1]


class Feed:
    """This process's share of every global batch of the items at ``indices``.

    Example:
        >>> points = Dataset("points", torch.arange(10.0)[:, None], (1,), levels=None)
        >>> feed = Feed(points, np.arange(10), batch_size=5, seed=0, stream="retain")
        >>> batches = feed.batches(0)
        >>> sorted([*next(batches).items.flatten().tolist(), *next(batches).items.flatten().tolist()])
        [0.0, 1.0, 2.0, 3.0, 4.0, 5.0, 6.0, 7.0, 8.0, 9.0]

    Args:
        dataset: where the items come from.
        indices: the items to draw from.
        batch_size: items a global batch, divisible by ``world``.
        seed: the run's seed.
        stream: name of the stream ("retain", "forget"); streams are shuffled apart.
        rank: this process.
        world: number of processes.
        device: where the batches are wanted.
        drop: probability with which an item's label is left out, drawn for the global batch; None leaves out all of
            them, as an unconditional model wants it. The data set needs labels or captions where it is given; of
            several captions one is drawn at every visit, likewise.

    Attributes:
        begun: batches yielded so far, in this run and in those that it resumes.
    """

    def __init__(
        self,
        dataset: Dataset,
        indices: NDArray[np.int64],
        batch_size: int,
        seed: int,
        stream: str,
        rank: int = 0,
        world: int = 1,
        device: torch.device | str = "cpu",
        drop: float | None = None,
    ) -> None:
        self.dataset, self.device, self.stream = dataset, torch.device(device), stream
        self.global_size, self.rank, self.world = batch_size, rank, world
        self.local_size = batch_size // world
        self.order, self.seed, self.drop = EpochOrder(indices, seed, stream), seed, drop
        self._resident = dataset.resident(self.device)
        self.begun = 0

    def indices(self, number: int) -> NDArray[np.int64]:
        """Return the items of this process's share of batch ``number``."""
        return self.order.batch(number, self.global_size)[self.rank * self.local_size :][: self.local_size]

    def batches(self, start: int) -> Iterator[Batch]:
        """Yield this process's share of batch ``start``, ``start`` + 1, ... without end, on the device."""
        if self._resident is not None:
            for number in itertools.count(start):
                chosen = self.indices(number)
                where = torch.from_numpy(chosen).to(self.device, non_blocking=True)
                self.begun = number + 1
                yield Batch(self._resident[where], self._labels(number, chosen))
        asked, read = itertools.tee((number, self.indices(number)) for number in itertools.count(start))
        numbers = (chosen.tolist() for _, chosen in asked)
        batches = stream(self.dataset.items, numbers, self.dataset.workers, pin_memory=self.device.type == "cuda")
        for batch, (number, chosen) in zip(batches, read, strict=False):
            self.begun = number + 1
            yield Batch(batch.to(self.device, non_blocking=True), self._labels(number, chosen))

    def _labels(self, number: int, chosen: NDArray[np.int64]) -> Tensor | None:
        if self.drop is None:
            return None
        asked = self.dataset.asked(chosen, self._draws("caption", number).numpy())
        assert asked is not None
        dropped = self._draws("drop", number) < self.drop
        return torch.from_numpy(asked).masked_fill(dropped, -1).to(self.device, non_blocking=True)

    def _draws(self, what: str, number: int) -> Tensor:
        """Return (B,) numbers in [0, 1) for this process's share of batch ``number``."""
        draws = torch.rand(self.global_size, generator=generator(self.seed, what, self.stream, number))
        return draws[self.rank * self.local_size :][: self.local_size]
