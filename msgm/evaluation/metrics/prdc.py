"""Improved precision and recall (Kynkäänniemi et al., arXiv 1904.06991).

A set's manifold is the union of balls around its features, each reaching to its k-th nearest neighbour within the set.
Precision is the share of generated features within the manifold of the real ones, recall the share of real features
within the manifold of the generated ones (section 2). As in the paper both sets have the same size: the larger one is
cut, since a denser set has smaller balls. The interval is Wilson's, for given manifolds.
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
from msgm.evaluation.metrics.quality import ComparedMetric, cell
from msgm.evaluation.metrics.unlearning_ratio import percent
from msgm.evaluation.rates import rate
from msgm.evaluation.reference import Reference
from msgm.seeding import generator
from msgm.splits import Split

CHUNK = 1024


def radii(points: Tensor, k: int) -> Tensor:
    """Return each point's distance to its k-th nearest other point: (N, F) to (N,), k < N."""
    return torch.cat([torch.cdist(part, points).kthvalue(k + 1, dim=1).values for part in points.split(CHUNK)])


def within(points: Tensor, centres: Tensor, reach: Tensor) -> Tensor:
    """Return a mask of the (N, F) points that lie in a ball around one of the (M, F) centres with radii (M,)."""
    return torch.cat([(torch.cdist(part, centres) <= reach).any(1) for part in points.split(CHUNK)])


def precision_and_recall(generated: Tensor, real: Tensor, k: int) -> tuple[int, int]:
    """Return how many generated points lie in the real manifold, and how many real ones in the generated manifold.

    Args:
        generated: (N, F) float64.
        real: (N, F) float64.
        k: neighbours, below N.
    """
    precise = within(generated, real, radii(real, k)).sum()
    recalled = within(real, generated, radii(generated, k)).sum()
    return int(precise), int(recalled)


def _shown(found: dict[str, Any]) -> str:
    return f"{percent(found['precision']['value'])} / {percent(found['recall']['value'])}"


@METRICS.register("precision-recall")
@dataclass(frozen=True)
class PrecisionRecall(ComparedMetric):
    """Precision (are samples realistic?) and recall (is what is real still made?).

    Example:
        >>> found = PrecisionRecall(neighbours=3).measure(subject)["precision_recall"]
        >>> 0 <= found["recall"]["low"] <= found["recall"]["value"] <= found["recall"]["high"] <= 1
        True
        >>> precision_and_recall(torch.eye(4) + 9, torch.eye(4), k=1)
        (0, 0)

    Attributes:
        neighbours: k.
    """

    key = "precision_recall"
    heading = "precision / recall %"
    definition = "improved precision and recall by k-th nearest neighbours, of as many samples as real items"
    columns = [Column("precision / recall %", "higher", cell("precision_recall", _shown))]  # noqa: RUF012

    neighbours: int = 3

    def check(self, config: Config, dataset: Dataset, split: Split) -> None:
        super().check(config, dataset, split)
        real = len(Reference.of(split, self.reference, self.reference_n))
        fewest = min(real, config.evaluation.samples)
        if not 1 <= self.neighbours < fewest:
            raise UserError(
                f"evaluation.options.precision-recall.neighbours is {self.neighbours}, but the smaller set has "
                f"{fewest} items; it must lie in 1 .. {fewest - 1}."
            )

    def scores(self, seen: Extracted, bench: Bench, features: Features) -> dict[str, Any]:
        x, y = self.placed(seen, bench, features)
        size = min(len(x), len(y))
        if size <= self.neighbours:
            return {"value": None}
        order = torch.randperm(len(y), generator=generator(bench.config.seed, "precision-recall")).to(y.device)
        precise, recalled = precision_and_recall(x[:size], y[order[:size]], self.neighbours)
        return {
            "precision": rate(precise, size),
            "recall": rate(recalled, size),
            "neighbours": self.neighbours,
            "compared": size,
        }

    def shown(self, scores: dict[str, Any]) -> str:
        return _shown(scores)
