"""How far samples lie from real items: too far is junk, too near is a copy.

The measure is the Euclidean distance, over levels scaled to [-1, 1] (or the plain vectors), to the nearest training
item. Held-out real items of the validation part calibrate both thresholds: junk lies farther than 99% of them, a copy
nearer than 99% of them, so that real items themselves score about 1% on either.
"""

from dataclasses import dataclass

import torch
from torch import Tensor

from msgm.data import Dataset, dequantise, quantise
from msgm.requests import Split

ACCEPTED = 0.99


@dataclass(frozen=True)
class Reality:
    """The training items and the two thresholds.

    Attributes:
        bank: (N, D) training items.
        levels: grey levels of images; None for vectors.
        junk_above: distance above which a sample is junk.
        copy_below: distance below which a sample is a copy.
    """

    bank: Tensor
    levels: int | None
    junk_above: float
    copy_below: float

    @classmethod
    def of(cls, dataset: Dataset, split: Split, device: torch.device | str = "cpu") -> "Reality":
        """Calibrate on the validation part of ``split``."""
        bank = _flat(dataset.take(split.train.all), dataset.levels).to(device)
        held = _flat(dataset.take(split.validation.all), dataset.levels).to(device)
        distances = nearest_distance(held, bank)
        high, low = (torch.quantile(distances, q).item() for q in (ACCEPTED, 1 - ACCEPTED))
        return cls(bank, dataset.levels, high, low)

    def distances(self, items: Tensor) -> Tensor:
        """Return each raw item's distance to the nearest training item, (B,)."""
        return nearest_distance(_flat(items, self.levels).to(self.bank.device), self.bank).cpu()

    def junk(self, distances: Tensor) -> Tensor:
        """Return a (B,) mask of junk."""
        return distances > self.junk_above

    def copies(self, distances: Tensor) -> Tensor:
        """Return a (B,) mask of copies."""
        return distances < self.copy_below


def to_items(samples: Tensor, levels: int | None) -> Tensor:
    """Turn samples into raw items as a data set holds them: levels for images, vectors as they are."""
    return samples if levels is None else quantise(samples, levels)


def nearest_distance(points: Tensor, bank: Tensor, chunk: int = 1024) -> Tensor:
    """Return the Euclidean distance of each row of ``points`` to the nearest row of ``bank``."""
    return torch.cat([torch.cdist(part, bank).min(1).values for part in points.split(chunk)])


def _flat(items: Tensor, levels: int | None) -> Tensor:
    return (items.float() if levels is None else dequantise(items, levels)).flatten(1)
