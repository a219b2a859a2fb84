"""Distance of samples to real items: those too far are junk, those too near are copies.

The measure is the Euclidean distance, over levels scaled to [-1, 1] (or the plain vectors), to the nearest training
item. Held-out real items of the validation part calibrate both thresholds: junk lies farther than 99% of them, a copy
nearer than 99% of them, so that real items themselves score about 1% on either. It is a coarse measure: a blurred
average of real images lies near many of them and does not count as junk.
"""

from dataclasses import dataclass, replace

import torch
from torch import Tensor

from msgm.data import Dataset, dequantise, quantise
from msgm.splits import Split

ACCEPTED = 0.99
CHUNK = 4096


@dataclass(frozen=True)
class Reality:
    """The training items and the two thresholds.

    Example:
        >>> reality = subject.bench.reality
        >>> reality.junk(reality.distances(subject.items)).shape
        torch.Size([20])

    Attributes:
        bank: (N, *shape) training items, raw.
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
        """Calibrate on the validation part of ``split``; samples of earlier requests' items are no junk either."""
        bank, held_out = (dataset.take(part.whole) for part in (split.train, split.validation))
        return cls.calibrated(bank.to(device), held_out, dataset.levels)

    @classmethod
    def calibrated(cls, bank: Tensor, held_out: Tensor, levels: int | None) -> "Reality":
        """Calibrate raw training items ``bank`` on raw items ``held_out`` that were not trained on."""
        reality = cls(bank, levels, 0.0, 0.0)
        distances = reality.distances(held_out)
        high, low = (torch.quantile(distances, q).item() for q in (ACCEPTED, 1 - ACCEPTED))
        return replace(reality, junk_above=high, copy_below=low)

    def distances(self, items: Tensor) -> Tensor:
        """Return each raw item's Euclidean distance to the nearest training item, (B,) on the CPU."""
        return self.nearest(items)[0]

    def nearest(self, items: Tensor) -> tuple[Tensor, Tensor]:
        """Return each raw item's distance to the nearest training item and that one's place in ``bank``, both (B,)."""
        distances, places = zip(*(self._nearest(part) for part in items.split(CHUNK)), strict=True)
        return torch.cat(distances).cpu(), torch.cat(places).cpu()

    def _nearest(self, items: Tensor) -> tuple[Tensor, Tensor]:
        points = self._flat(items.to(self.bank.device))
        found = [torch.cdist(points, self._flat(part)).min(1) for part in self.bank.split(CHUNK)]
        distances, part = torch.stack([f.values for f in found]).min(0)
        within = torch.stack([f.indices for f in found]).gather(0, part[None])[0]
        return distances, part * CHUNK + within

    def _flat(self, items: Tensor) -> Tensor:
        return (items.float() if self.levels is None else dequantise(items, self.levels)).flatten(1)

    def junk(self, distances: Tensor, finite: Tensor | None = None) -> Tensor:
        """Return a (B,) mask of junk; samples that are not ``finite`` are junk."""
        far = distances > self.junk_above
        return far if finite is None else far | ~finite

    def copies(self, distances: Tensor, finite: Tensor | None = None) -> Tensor:
        """Return a (B,) mask of copies; samples that are not ``finite`` are not copies."""
        near = distances < self.copy_below
        return near if finite is None else near & finite


def to_items(samples: Tensor, levels: int | None) -> Tensor:
    """Turn samples into raw items as a data set holds them: levels for images, vectors as they are."""
    return samples if levels is None else quantise(samples, levels)
