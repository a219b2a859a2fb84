"""Accuracies: on retain, forget and test items, and on the test items of each class.

Without augmentation, by the largest logit. The aim for forget accuracy is not a low value but the retrained models'
value.

Utility on items like the forgotten ones is measured on test items of the forget items' classes and sources: weighted to
the forget items' shares (``msgm.strata``), or, where whole classes are forgotten, on these classes alone.
"""

from dataclasses import dataclass

import numpy as np

from msgm.classifier.metrics.base import METRICS, UNIT, Case, Metric, Number
from msgm.classifier.metrics.scores import controls, forgotten_classes, share
from msgm.classifier.outputs import Outputs


@METRICS.register("accuracy")
@dataclass(frozen=True)
class Accuracy(Metric):
    """Shares of items whose largest logit is the true class'.

    Example:
        >>> found = Accuracy().measure(case)
        >>> found["retain_accuracy"], found["forget_accuracy"]
        (0.9..., 0.7...)
        >>> found["test_accuracy_forgotten"] is None  # the request is of instances, not of a class
        True
    """

    numbers = {  # noqa: RUF012
        "retain_accuracy": Number("accuracy on retain items, 0 to 1", "utility", bounds=UNIT),
        "forget_accuracy": Number("accuracy on forget items, 0 to 1", "forgetting", bounds=UNIT),
        "test_accuracy": Number("accuracy on test items of all classes, 0 to 1", "utility", bounds=UNIT),
        "worst_class_accuracy": Number(
            "test accuracy of the worst class of those that the retain set has, 0 to 1",
            "utility",
            "higher",
            bounds=UNIT,
        ),
        "test_accuracy_retained": Number(
            "test accuracy on the classes that the retain set has, 0 to 1; class requests alone",
            "utility",
            "higher",
            bounds=UNIT,
        ),
        "test_accuracy_of_kind": Number(
            "accuracy on test items of the forget items' classes and sources, in their shares, 0 to 1; requests of "
            "instances alone",
            "utility",
            bounds=UNIT,
        ),
        "test_accuracy_forgotten": Number(
            "test accuracy on the forgotten classes, 0 to 1; class requests alone", "forgetting", bounds=UNIT
        ),
    }

    def measure(self, case: Case) -> dict[str, float | None]:
        right, labels = case.target.right("test"), case.target.labels["test"]
        gone = forgotten_classes(case.target)
        of_gone = np.isin(labels, gone)
        known = [v for k, v in enumerate(per_class(case.target)) if v is not None and k not in gone]
        by_class = case.scope == "class"
        return {
            "retain_accuracy": share(case.target.right("retain")),
            "forget_accuracy": share(case.target.right("forget")),
            "test_accuracy": share(right),
            "worst_class_accuracy": min(known, default=None),
            "test_accuracy_retained": share(right[~of_gone]) if by_class else None,
            "test_accuracy_of_kind": None if by_class else controls(case.target, held_out="test").mean(right),
            "test_accuracy_forgotten": share(right[of_gone]) if by_class else None,
        }


def per_class(outputs: Outputs, part: str = "test") -> list[float | None]:
    """Return the accuracy on each class' items, one entry a class; None for a class without items."""
    right, labels = outputs.right(part), outputs.labels[part]
    return [share(right[labels == k]) for k in range(outputs.classes)]
