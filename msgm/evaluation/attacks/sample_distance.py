"""Distance between a model's samples and those of retrained models: kernel inception distance (KID).

The unbiased squared maximum mean discrepancy of features with kernel (a . b / F + 1)^3, as of the metric ``kid``, which
compares with real items; here both sets are samples, and all of them are taken. It is 0 in expectation where the sets
are of one distribution, and as often below 0 as above.
"""

from dataclasses import dataclass
from typing import Any

from torch import Tensor

from msgm.devices import precise
from msgm.evaluation.attacks.retrained import Compared, beside, columns_of
from msgm.evaluation.attacks.sampled import SamplesBesideRetrained, halves, paired
from msgm.evaluation.bench import Bench, Subject
from msgm.evaluation.extractors import load_features
from msgm.evaluation.metrics.base import METRICS
from msgm.evaluation.metrics.kernel import squared_mmd

HEADING = "KID to retrained"
WITHIN = "KID within one retrained model"


@METRICS.register("sample-distance")
@dataclass(frozen=True)
class SampleDistance(SamplesBesideRetrained):
    """KID between the model's samples and each retrained model's.

    Example:
        >>> found = SampleDistance().measure(subject)["sample_distance"]["compared"]["KID to retrained"]
        >>> found["least"] <= found["value"] <= found["greatest"]
        True

    Attributes:
        extractor: of the features, its name and its own settings (``msgm.evaluation.extractors``).
    """

    key = "sample_distance"
    columns = columns_of(key, {HEADING: ".4f", WITHIN: ".4f"})

    def compared(self, subject: Subject, other: Subject) -> Compared:
        features = load_features(subject.bench, self.extractor)
        return {HEADING: _distance(*paired(subject, other, features)), WITHIN: _distance(*halves(other, features))}

    @classmethod
    def followed(cls, found: dict[str, Any]) -> dict[str, float | None]:
        return {HEADING: found["compared"][HEADING]["value"]}

    def protocol(self, bench: Bench) -> dict[str, str]:
        features = load_features(bench, self.extractor)
        return {
            "distance of samples": "KID, the unbiased squared MMD with kernel (a . b / F + 1)^3, between features of "
            f"the samples of two models, as many of either, of {features.text}; {beside(bench)}; "
            "'within one' compares one half of a retrained model's samples with the other"
        }


def _distance(x: Tensor, y: Tensor) -> dict[str, Any]:
    value = float(squared_mmd(precise(x), precise(y))) if len(x) > 1 else None
    return {"value": value, "n": len(x) + len(y)}
