"""CLIP embedding distance: of pairs, as the paper uses it on restored images, and of sets.

With u(x) the embedding of image x, scaled to length 1:

- a pair (restored, original): 1 - u(x) . u(y), ``pair_distances``
- sets (samples, real items):  1 - cos(mean u(x), mean u(y)), ``set_distance``

Both lie in 0 .. 2, 0 being best; rounding is not let below 0. The distance of sets sees the mean alone, neither spread
nor missing classes: read it beside FID. The MSGM paper (arXiv 2412.07229) does not print its formula; the cosine is
what CLIP was trained by.
"""

from dataclasses import dataclass, field
from typing import Any

import torch.nn.functional as F
from torch import Tensor

from msgm.config import Config
from msgm.data import Dataset
from msgm.errors import UserError
from msgm.evaluation.bench import Bench
from msgm.evaluation.extractors import Extracted, Features
from msgm.evaluation.metrics.base import METRICS, Column
from msgm.evaluation.metrics.quality import ComparedMetric, cell
from msgm.fields import Settings
from msgm.splits import Split


def pair_distances(x: Tensor, y: Tensor) -> Tensor:
    """Return 1 - cosine of (B, F) embeddings with their partners, (B,)."""
    return (1 - F.cosine_similarity(x, y, dim=1)).clamp_min(0)


def set_distance(x: Tensor, y: Tensor) -> float:
    """Return 1 - cosine between the mean normalised embeddings of (N, F) and (M, F)."""
    one, other = (F.normalize(z, dim=1).mean(0) for z in (x, y))
    return float((1 - F.cosine_similarity(one, other, dim=0)).clamp_min(0))


def _shown(found: dict[str, Any]) -> str:
    return f"{found['value']:.4f}"


@METRICS.register("clip-distance")
@dataclass(frozen=True)
class ClipDistance(ComparedMetric):
    """Distance between the mean CLIP embeddings of samples and of real items.

    Example:
        >>> ClipDistance(extractor={"name": "clip", "weights": "ViT-B-32.pt"}).settings()["extractor"]["weights"]
        'ViT-B-32.pt'
        >>> embeddings = torch.tensor([[2.0, 0.0], [4.0, 0.0]])
        >>> set_distance(embeddings, 3 * embeddings), set_distance(embeddings, -embeddings)
        (0.0, 2.0)
    """

    key = "clip_distance"
    heading = "CLIP distance"
    definition = "1 - cosine between the mean normalised CLIP embeddings"
    columns = [Column("CLIP distance", "lower", cell("clip_distance", _shown))]  # noqa: RUF012
    least = 1

    extractor: Settings = field(default_factory=lambda: {"name": "clip"})

    def check(self, config: Config, dataset: Dataset, split: Split) -> None:
        if self.extractor.get("name") != "clip":
            raise UserError(
                f"evaluation.options.clip-distance.extractor.name must be clip, got {self.extractor.get('name')}."
            )
        super().check(config, dataset, split)

    def scores(self, seen: Extracted, bench: Bench, features: Features) -> dict[str, Any]:
        return {"value": set_distance(*self.placed(seen, bench, features))}

    def shown(self, scores: dict[str, Any]) -> str:
        return _shown(scores)
