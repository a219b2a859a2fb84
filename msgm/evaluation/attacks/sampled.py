"""Features of the samples of two models, as many of either, for comparisons of what models generate."""

from torch import Tensor

from msgm.data import Dataset
from msgm.errors import UserError
from msgm.evaluation.bench import Subject
from msgm.evaluation.extractors import EXTRACTORS, Features
from msgm.evaluation.metrics.quality import seen_samples
from msgm.fields import Settings


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


def check_extractor(metric: str, extractor: Settings, dataset: Dataset) -> None:
    """Raise a UserError when an extractor is unknown, not available, or cannot read this data."""
    try:
        EXTRACTORS.build(extractor).check(dataset)
    except UserError as error:
        raise UserError(f"evaluation.options.{metric}.{error}") from error
