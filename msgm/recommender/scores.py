"""Scores of different models and users on one scale."""

from typing import Any

import numpy as np
from numpy.typing import NDArray


def standardised(scores: NDArray[np.floating[Any]]) -> NDArray[np.float64]:
    """Return (n, I) scores less their row's mean, in its standard deviations; zeros where these are zero."""
    centred = np.asarray(scores, dtype=np.float64)
    centred = centred - centred.mean(axis=1, keepdims=True)
    spread = centred.std(axis=1, keepdims=True)
    return np.divide(centred, spread, out=np.zeros_like(centred), where=spread > 0)
