"""Helpers of linear erasures: the covariance of embeddings and attributes, and an orthonormal basis of a span."""

from typing import Any

import numpy as np
from numpy.typing import NDArray

from msgm.recommender.attributes.labels import Labels

RELATIVE = 1e-9
"""Directions weaker than this, next to the strongest, count as rounding."""


def labelled(labels: list[Labels]) -> NDArray[np.bool_]:
    """Return the (U,) users with a known value of at least one attribute."""
    return np.any([each.known for each in labels], axis=0)


def concept_covariance(embeddings: NDArray[Any], labels: list[Labels]) -> NDArray[np.float64]:
    """Return (d, C_1 + C_2 + ...) covariances of embeddings and class indicators, each over its users with a value."""
    return np.hstack([_covariance(embeddings[each.known].astype(np.float64), each) for each in labels])


def _covariance(rows: NDArray[np.float64], labels: Labels) -> NDArray[np.float64]:
    indicators = labels.one_hot()[labels.known]
    covariance: NDArray[np.float64] = (rows - rows.mean(0)).T @ (indicators - indicators.mean(0)) / len(rows)
    return covariance


def span(columns: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return (d, r) an orthonormal basis of the span of the (d, m) columns."""
    left, strength, _ = np.linalg.svd(columns, full_matrices=False)
    return left[:, strength > RELATIVE * max(float(strength[0]), np.finfo(float).tiny)]
