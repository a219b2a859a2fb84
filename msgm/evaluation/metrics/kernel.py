r"""Kernel inception distance (Binkowski et al., arXiv 1801.01401).

The unbiased squared maximum mean discrepancy between m features x and m features y of dimension F,

    MMD^2 = sum_{i != j} (k(x_i, x_j) + k(y_i, y_j)) / (m (m - 1)) - 2 sum_{i, j} k(x_i, y_j) / m^2
    k(a, b) = (a . b / F + 1)^3

averaged over random subsets of both sets, with the standard deviation over the subsets. They overlap: where a subset is
nearly the whole set, the deviation is a poor estimate of the error. Unlike FID it is unbiased at any n: of two sets
from one distribution it is as often below 0 as above, so that it keeps its sign where FID is cut at 0, which would bias
it. Own code, not torchmetrics': that one draws subsets from the global random stream.
"""

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from msgm.config import Config
from msgm.data import Dataset
from msgm.errors import UserError
from msgm.evaluation.bench import Bench
from msgm.evaluation.extractors import Extracted, Features
from msgm.evaluation.metrics.base import METRICS, Column
from msgm.evaluation.metrics.quality import ComparedMetric, at_most, cell
from msgm.evaluation.reference import Reference
from msgm.seeding import generator
from msgm.splits import Split

SUBSET = 1000
"""Items of a subset where there are as many."""


def squared_mmd(x: Tensor, y: Tensor) -> Tensor:
    """Return the unbiased MMD^2 of two (m, F) sets, m >= 2."""
    m = len(x)
    within = sum(_kernel(part, part).sum() - _kernel_diagonal(part).sum() for part in (x, y)) / (m * (m - 1))
    return within - 2 * _kernel(x, y).mean()


def _kernel(x: Tensor, y: Tensor) -> Tensor:
    return (x @ y.T / x.shape[1] + 1) ** 3


def _kernel_diagonal(x: Tensor) -> Tensor:
    return (x.square().sum(1) / x.shape[1] + 1) ** 3


def kernel_distance(x: Tensor, y: Tensor, subsets: int, size: int, draws: torch.Generator) -> tuple[float, float]:
    """Return mean and standard deviation (over n) of MMD^2 over random subsets.

    Args:
        x: (N, F) float64.
        y: (M, F) float64.
        subsets: how many.
        size: items of each set in a subset, 2 .. min(N, M).
        draws: on the CPU.
    """
    values = []
    for _ in range(subsets):
        chosen = [torch.randperm(len(z), generator=draws)[:size].to(z.device) for z in (x, y)]
        values.append(squared_mmd(x[chosen[0]], y[chosen[1]]))
    found = torch.stack(values)
    return found.mean().item(), found.std(correction=0).item()


def _shown(found: dict[str, Any]) -> str:
    return f"{found['value']:.4f} ± {found['std']:.4f}"


@METRICS.register("kid")
@dataclass(frozen=True)
class KernelDistance(ComparedMetric):
    """KID over subsets.

    Example:
        >>> found = KernelDistance(subsets=10, subset_size=20).measure(subject)["kid"]
        >>> found["value"] > found["control"]["value"]  # of held-out real items
        True

    Attributes:
        subsets: how many.
        subset_size: items of each set in a subset; None takes 1000, or as many as there are.
    """

    key = "kid"
    heading = "KID"
    definition = "squared MMD of features with kernel (a . b / F + 1)^3, mean ± standard deviation over random subsets"
    columns = [Column("KID", "lower", cell("kid", _shown))]  # noqa: RUF012

    subsets: int = 100
    subset_size: int | None = None

    def check(self, config: Config, dataset: Dataset, split: Split) -> None:
        super().check(config, dataset, split)
        if self.subsets < 1:
            raise UserError(f"evaluation.options.kid.subsets must be at least 1, got {self.subsets}.")
        if self.subset_size == 1:
            raise UserError("evaluation.options.kid.subset_size must be at least 2, got 1.")
        real = len(Reference.of(split, self.reference, self.reference_n))
        at_most(self, "subset_size", self.subset_size, real, "real items to compare with")
        at_most(self, "subset_size", self.subset_size, config.evaluation.samples, "samples (evaluation.samples)")

    def scores(self, seen: Extracted, bench: Bench, features: Features) -> dict[str, Any]:
        x, y = self.placed(seen, bench, features)
        size = min(self.subset_size or SUBSET, len(x), len(y))
        mean, std = kernel_distance(x, y, self.subsets, size, generator(bench.config.seed, "kid"))
        return {"value": mean, "std": std, "subsets": self.subsets, "subset_size": size}

    def shown(self, scores: dict[str, Any]) -> str:
        return _shown(scores)
