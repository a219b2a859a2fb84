"""Logits of a model on every part of a split, computed on a copy so that the model is unchanged."""

import copy

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from msgm.classifier.data import Examples, Split
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
    parts = split.parts()
    labels = {name: part.labels.numpy() for name, part in parts.items()}
    return Outputs(found, labels, strata={name: part.strata for name, part in parts.items()})
