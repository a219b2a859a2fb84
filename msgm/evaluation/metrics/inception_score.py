r"""Inception score (Salimans et al., arXiv 1606.03498), by whichever classifier the extractor has.

    IS = exp(E_x KL(p(y|x) || p(y))) = exp(H(E_x p(y|x)) - E_x H(p(y|x)))

mean and standard deviation over even splits of the samples, in their order. It lies in 1 .. number of classes: highest
for samples that the classifier is sure of, spread evenly over its classes. A model that forgot classes can not reach
what it reached before. Own code, not torchmetrics': that one keeps logits and shuffles by the global random stream.
"""

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from msgm.config import Config
from msgm.data import Dataset
from msgm.devices import precise
from msgm.errors import UserError
from msgm.evaluation.bench import Bench
from msgm.evaluation.extractors import EXTRACTORS, Extracted, Features
from msgm.evaluation.metrics.base import METRICS, Column
from msgm.evaluation.metrics.quality import SampleMetric, at_most, cell
from msgm.splits import Split


def inception_score(probabilities: Tensor, splits: int) -> tuple[float, float]:
    """Return mean and standard deviation (over n) of the score over splits.

    Args:
        probabilities: (N, classes), rows summing to 1.
        splits: 1 .. N.
    """
    parts = precise(probabilities).tensor_split(splits)
    entropy = torch.special.entr
    scores = torch.stack([(entropy(p.mean(0)).sum() - entropy(p).sum(1).mean()).exp() for p in parts])
    return scores.mean().item(), scores.std(correction=0).item()


def _shown(found: dict[str, Any]) -> str:
    return f"{found['value']:.2f} ± {found['std']:.2f}"


@METRICS.register("inception-score")
@dataclass(frozen=True)
class InceptionScore(SampleMetric):
    """Inception score.

    Example:
        >>> 1 <= InceptionScore(splits=2).measure(subject)["inception_score"]["value"] <= 10
        True
        >>> round(inception_score(torch.eye(10), splits=1)[0], 6)  # sure of each sample, and all ten classes alike
        10.0

    Attributes:
        splits: even parts of the samples.
    """

    key = "inception_score"
    heading = "IS"
    definition = "Inception score by the classifier's probabilities, mean ± standard deviation over splits"
    columns = [Column("IS", "higher", cell("inception_score", _shown))]  # noqa: RUF012
    least = 1

    splits: int = 10

    def check(self, config: Config, dataset: Dataset, split: Split) -> None:
        super().check(config, dataset, split)
        at_most(self, "splits", self.splits, config.evaluation.samples, "samples (evaluation.samples)")
        if not EXTRACTORS.entries[self.extractor["name"]].classifies:
            able = ", ".join(name for name, cls in EXTRACTORS.entries.items() if cls.classifies)
            raise UserError(
                f"evaluation.options.inception-score.extractor: {self.extractor['name']} has no class probabilities; "
                f"{able} have."
            )

    def scores(self, seen: Extracted, bench: Bench, features: Features) -> dict[str, Any]:
        assert seen.probabilities is not None, "check refuses extractors without classes"
        splits = min(self.splits, len(seen))
        mean, std = inception_score(seen.probabilities, splits)
        return {"value": mean, "std": std, "splits": splits}

    def shown(self, scores: dict[str, Any]) -> str:
        return _shown(scores)
