"""Features of samples of two models, as many of either, and the base of metrics that compare what models generate."""

from dataclasses import dataclass, field

from torch import Tensor

from msgm.config import Config
from msgm.data import Dataset
from msgm.evaluation.attacks.retrained import BesideRetrained
from msgm.evaluation.bench import Subject
from msgm.evaluation.extractors import Features, check_extractor
from msgm.evaluation.metrics.quality import seen_samples
from msgm.fields import Settings
from msgm.splits import Split


@dataclass(frozen=True)
class SamplesBesideRetrained(BesideRetrained):
    """Compares features of a model's samples with those of each retrained model's.

    Attributes:
        extractor: of the features, its name and its own settings (``msgm.evaluation.extractors``).
    """

    extractor: Settings = field(default_factory=lambda: {"name": "judge"})

    def check(self, config: Config, dataset: Dataset, split: Split) -> None:
        super().check(config, dataset, split)
        check_extractor(self.extractor, f"evaluation.options.{self.name}.extractor", dataset)


def paired(subject: Subject, other: Subject, features: Features) -> tuple[Tensor, Tensor]:
    """Return features of both models' samples, (m, F) of either on the CPU, m as many as both have finite ones of."""
    x, y = (seen_samples(model, features, filtered=False)[0].features for model in (subject, other))
    m = min(len(x), len(y))
    return x[:m], y[:m]


def halves(subject: Subject, features: Features) -> tuple[Tensor, Tensor]:
    """Return features of the first half of a model's finite samples and of the second, (m, F) each: what n shows."""
    x = seen_samples(subject, features, filtered=False)[0].features
    m = len(x) // 2
    return x[:m], x[m : 2 * m]
