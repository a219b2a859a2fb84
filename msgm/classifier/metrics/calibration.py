"""Expected calibration error on test items (Guo et al., ICML 2017): whether confidence is as high as accuracy."""

from dataclasses import dataclass

import numpy as np

from msgm.checks import at_least
from msgm.classifier.metrics.base import METRICS, UNIT, Case, Metric, Number
from msgm.classifier.metrics.scores import Floats


@METRICS.register("calibration")
@dataclass(frozen=True)
class Calibration(Metric):
    """Expected calibration error.

    Example:
        >>> Calibration(bins=10).measure(case)
        {'ece_test': 0.1...}
        >>> calibration_error(confidence=np.array([0.75, 0.75]), right=np.array([1.0, 0.0]), bins=10)
        0.25

    Attributes:
        bins: of equal width in confidence.
    """

    numbers = {  # noqa: RUF012
        "ece_test": Number("expected calibration error on test items, 0 to 1", "utility", "lower", bounds=UNIT),
    }

    bins: int = 15

    def __post_init__(self) -> None:
        at_least(1, self, "options.calibration", "bins")

    def measure(self, case: Case) -> dict[str, float | None]:
        confidence = np.exp(case.target.log_probabilities("test").max(1))
        return {"ece_test": calibration_error(confidence, case.target.right("test"), self.bins)}


def calibration_error(confidence: Floats, right: Floats, bins: int) -> float | None:
    """Return sum over bins of (items in it / n) |accuracy - mean confidence|; None of no items."""
    if not len(confidence):
        return None
    which = np.minimum((confidence * bins).astype(np.int64), bins - 1)
    excess = np.bincount(which, weights=confidence - right, minlength=bins)
    return float(np.abs(excess).sum() / len(confidence))
