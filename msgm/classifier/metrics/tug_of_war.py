"""Tug-of-war, ToW (Zhao et al., NeurIPS 2024, arXiv 2406.01257): closeness to retraining in three accuracies at once.

ToW = (1 - |dFA|) (1 - |dRA|) (1 - |dTA|), d the difference from the retrained models' mean on forget, retain and test
items. One is best and what a retrained model has against itself.
"""

from dataclasses import dataclass

from msgm.classifier.metrics.base import METRICS, UNIT, Case, Metric, Number
from msgm.classifier.metrics.scores import gap, mean_of, share


@METRICS.register("tug-of-war")
@dataclass(frozen=True)
class TugOfWar(Metric):
    """Product of one minus each accuracy's distance from the retrained models' mean.

    Example:
        >>> TugOfWar().measure(case)
        {'tow': 0.4...}
        >>> TugOfWar().measure(Case(case.target, case.original, retrains=[case.target]))
        {'tow': 1.0}
    """

    numbers = {  # noqa: RUF012
        "tow": Number(
            "(1 - |dFA|)(1 - |dRA|)(1 - |dTA|) against the retrained models' mean, 0 to 1",
            "forgetting",
            "higher",
            bounds=UNIT,
        ),
    }

    def measure(self, case: Case) -> dict[str, float | None]:
        product = 1.0
        for part in ("forget", "retain", "test"):
            mean = mean_of([share(outputs.right(part)) for outputs in case.retrains])
            difference = gap(share(case.target.right(part)), mean)
            if difference is None:
                return {"tow": None}
            product *= 1 - difference
        return {"tow": product}
