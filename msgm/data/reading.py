"""Reading the items of a lazy set, in this process or through others."""

from collections.abc import Iterable, Iterator
from typing import Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.utils.data import DataLoader
from torch.utils.data import Dataset as TorchDataset

from msgm.errors import UserError

CHUNK = 64
MANY = 512
"""Items from which on starting processes pays."""


class Lazy(Protocol):
    """A set too large for memory: item ``i`` is read when asked for, as a uint8 tensor."""

    def __len__(self) -> int: ...

    def __getitem__(self, index: int) -> Tensor: ...


class Taken:
    """The items of a lazy set at ``places``, in that order."""

    def __init__(self, items: Lazy, places: NDArray[np.int64]) -> None:
        self.items, self.places = items, places

    def __len__(self) -> int:
        return len(self.places)

    def __getitem__(self, index: int) -> Tensor:
        return self.items[int(self.places[index])]


def read(items: Lazy, indices: NDArray[np.int64], shape: tuple[int, ...], workers: int) -> Tensor:
    """Return the items at ``indices``, in that order, as a (len(indices), *shape) tensor.

    Raises:
        UserError: an item cannot be read.
    """
    # Filled part by part: what workers send lies in shared memory, of which there is little, until it is let go.
    found = torch.empty((len(indices), *shape), dtype=torch.uint8)
    chunks = [indices[start : start + CHUNK].tolist() for start in range(0, len(indices), CHUNK)]
    parts = stream(items, chunks, workers if len(indices) >= MANY else 0)
    for place, part in zip(found.split(CHUNK), parts, strict=False):
        place.copy_(part)
    return found


def stream(items: Lazy, batches: Iterable[list[int]], workers: int, pin_memory: bool = False) -> Iterator[Tensor]:
    """Yield the items of each batch of indices, read ahead by ``workers`` processes.

    Raises:
        UserError: an item cannot be read.
    """
    loader: DataLoader[Tensor | UserError] = DataLoader(
        _Rows(items),
        batch_sampler=batches,
        num_workers=workers,
        collate_fn=_join,
        pin_memory=pin_memory,
        generator=torch.Generator(),  # else a draw from the global one seeds the workers
    )
    for batch in loader:
        if isinstance(batch, UserError):
            raise batch
        yield batch


def complaints(items: Lazy, workers: int) -> dict[int, str]:
    """Read every item by ``workers`` processes; return the positions of those that cannot be read, and why."""
    loader: DataLoader[str] = DataLoader(
        _Complaints(items),
        batch_size=CHUNK,
        num_workers=workers if len(items) >= MANY else 0,
        collate_fn=list,
        generator=torch.Generator(),
    )
    texts = [text for part in loader for text in part]
    return {i: text for i, text in enumerate(texts) if text}


class _Rows(TorchDataset["Tensor | UserError"]):
    """Items, or errors returned as values, because a worker's exception would arrive wrapped in its traceback."""

    def __init__(self, items: Lazy) -> None:
        self.items = items

    def __getitem__(self, index: int) -> Tensor | UserError:
        try:
            return self.items[index]
        except UserError as error:
            return error

    def __len__(self) -> int:
        return len(self.items)


class _Complaints(TorchDataset[str]):
    """Error message of each item; empty for items without error."""

    def __init__(self, items: Lazy) -> None:
        self.rows = _Rows(items)

    def __getitem__(self, index: int) -> str:
        item = self.rows[index]
        return str(item) if isinstance(item, UserError) else ""

    def __len__(self) -> int:
        return len(self.rows)


def _join(rows: list[Tensor | UserError]) -> Tensor | UserError:
    errors = [row for row in rows if isinstance(row, UserError)]
    return errors[0] if errors else torch.stack([row for row in rows if isinstance(row, Tensor)])
