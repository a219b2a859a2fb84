"""From models to numbers: logits on every part, taken of a copy, so that the model stays as it is, and the metrics."""

import copy
import math
from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from msgm.classifier.data import Examples, Split
from msgm.classifier.metrics.base import Case, Metric
from msgm.classifier.outputs import Outputs
from msgm.classifier.training import logits
from msgm.errors import RunError


def logits_of(model: nn.Module, examples: Examples, device: torch.device | str = "cpu") -> NDArray[np.float64]:
    """Return (n, C) logits in eval mode; the model's bytes, modes and device stay as they were."""
    return logits(copy.deepcopy(model), examples, device).double().numpy()


def outputs_of(model: nn.Module, split: Split, device: torch.device | str = "cpu") -> Outputs:
    """Return the model's logits on all parts of the split with their true classes.

    Raises:
        RunError: a logit is not finite.
    """
    copied = copy.deepcopy(model)
    found = {name: logits(copied, part, device).double().numpy() for name, part in split.parts().items()}
    for name, values in found.items():
        if not np.isfinite(values).all():
            raise RunError(f"the model's logits on {name} items are not all finite; it cannot be measured.")
    return Outputs(found, {name: part.labels.numpy() for name, part in split.parts().items()})


def measure(case: Case, metrics: Sequence[Metric]) -> dict[str, float | None]:
    """Return all numbers of one model; metrics that need the models are left out where only logits are at hand.

    A value that is not finite, as a metric of the user's may give, becomes None: it is no number to compare.
    """
    usable = [metric for metric in metrics if case.live is not None or not metric.live]
    found = {name: value for metric in usable for name, value in metric.measure(case).items()}
    return {name: value if value is not None and math.isfinite(value) else None for name, value in found.items()}


def measure_retrains(cases: Sequence[Case], metrics: Sequence[Metric]) -> list[dict[str, float | None]]:
    """Return the numbers of every retrained model, each with itself left out of its references.

    Args:
        cases: one case a retrained model; its ``retrains`` are all of them, and its ``target`` is one of these.
        metrics: what to measure.
    """
    return [
        measure(replace(case, retrains=[other for other in case.retrains if other is not case.target]), metrics)
        for case in cases
    ]
