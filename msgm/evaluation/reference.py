"""Features of real items to retain, the reference for generated items.

Results are cached in memory and, in ``Bench.folder``, on disk, keyed by digests of the data, the chosen items and the
extractor. Moments are accumulated in float64 while the data streams (Chan, Golub and LeVeque, "Updating formulae and a
pairwise algorithm for computing sample variances", 1979), so that a set need not fit into memory. With n = n_1 + n_2
and d = mean_2 - mean_1,

    mean = mean_1 + d n_2 / n,  scatter = scatter_1 + scatter_2 + d d^T n_1 n_2 / n
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from msgm.devices import precise
from msgm.digests import short_digest
from msgm.evaluation.arrays import read_arrays, write_arrays
from msgm.evaluation.bench import Bench
from msgm.evaluation.extractors import Extracted, Features, device_of
from msgm.reading import Arrays
from msgm.splits import Split

Part = Literal["train", "validation", "test"]


@dataclass
class Moments:
    """Mean and scatter of features, accumulated in float64.

    Attributes:
        n: items seen.
        mean: (F,).
        scatter: (F, F) sum of outer products of deviations from the mean.
    """

    n: int
    mean: Tensor
    scatter: Tensor

    @classmethod
    def of(cls, features: Tensor) -> "Moments":
        """Return the moments of (N, F) features, N >= 1."""
        x = precise(features)
        mean = x.mean(0)
        return cls(len(x), mean, (x - mean).T @ (x - mean))

    def merged(self, other: "Moments") -> "Moments":
        """Return the moments of both sets together."""
        n, apart = self.n + other.n, other.mean - self.mean
        between = torch.outer(apart, apart) * (self.n * other.n / n)
        return Moments(n, self.mean + apart * (other.n / n), self.scatter + other.scatter + between)

    @property
    def covariance(self) -> Tensor:
        """Unbiased, (F, F); needs n >= 2."""
        return self.scatter / (self.n - 1)


@dataclass(frozen=True)
class Reference:
    """Real items to retain.

    Attributes:
        part: of the split.
        indices: their numbers in the data set.
    """

    part: Part
    indices: NDArray[np.int64]

    @classmethod
    def of(cls, split: Split, part: Part, n: int | None = None) -> "Reference":
        """Return the items to retain of ``part``; ``n`` of them, drawn once and for all, when ``n`` is given."""
        indices: NDArray[np.int64] = getattr(split, part).retain
        if n is not None and n < len(indices):
            indices = np.sort(np.random.default_rng(0).permutation(indices)[:n])
        return cls(part, indices)

    def __len__(self) -> int:
        return len(self.indices)

    def digest(self, bench: Bench) -> str:
        """Return a short hash of the items' contents."""
        return short_digest([_data_digest(bench).encode(), self.indices.tobytes()])

    def extracted(self, bench: Bench, features: Features) -> Extracted:
        """Return the extracted features of the items, all in memory."""
        found = kept_arrays(bench, self._name("features", bench, features), lambda: self._extract(bench, features))
        probabilities = torch.from_numpy(found["probabilities"]) if "probabilities" in found else None
        return Extracted(torch.from_numpy(found["features"]), probabilities)

    def moments(self, bench: Bench, features: Features) -> Moments:
        """Return the moments of the items' features, which are not held in memory, on the CPU."""
        found = kept_arrays(bench, self._name("moments", bench, features), lambda: self._accumulate(bench, features))
        return Moments(int(found["n"]), torch.from_numpy(found["mean"]), torch.from_numpy(found["scatter"]))

    def _name(self, what: str, bench: Bench, features: Features) -> str:
        seen = short_digest([features.digest.encode()])
        return f"{what}-{self.part}-{self.digest(bench)}-{features.name}-{seen}"

    def _extract(self, bench: Bench, features: Features) -> Arrays:
        parts = list(features.stream(bench.dataset, self.indices))
        found = {"features": torch.cat([part.features for part in parts]).numpy()}
        probabilities = [part.probabilities for part in parts if part.probabilities is not None]
        return found | ({"probabilities": torch.cat(probabilities).numpy()} if probabilities else {})

    def _accumulate(self, bench: Bench, features: Features) -> Arrays:
        total: Moments | None = None
        for part in features.stream(bench.dataset, self.indices):
            found = Moments.of(part.features.to(device_of(bench)))
            total = found if total is None else total.merged(found)
        assert total is not None, "every part has an item to retain"
        return {
            "n": np.array(total.n),
            "mean": total.mean.cpu().numpy(),
            "scatter": total.scatter.cpu().numpy(),
        }


def _data_digest(bench: Bench) -> str:
    if "data digest" not in bench.memory:
        bench.memory["data digest"] = bench.dataset.digest()
    digest: str = bench.memory["data digest"]
    return digest


def kept_arrays(bench: Bench, name: str, make: Callable[[], Arrays]) -> Arrays:
    """Return the arrays of ``name`` from memory or disk, or make and keep them."""
    if name not in bench.memory:
        path = bench.folder / f"{name}.npz" if bench.folder is not None else None
        found = read_arrays(path) if path is not None else None
        if found is None:
            found = make()
            if path is not None:
                write_arrays(path, found)
        bench.memory[name] = found
    arrays: Arrays = bench.memory[name]
    return arrays
