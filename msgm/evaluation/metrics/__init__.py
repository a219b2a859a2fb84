"""Metrics, one idea a file; each registers itself."""

from msgm.evaluation.metrics import (  # noqa: F401 - they register themselves
    clip_distance,
    frechet,
    inception_score,
    kernel,
    likelihood,
    prdc,
    prompts,
    restoration,
    unlearning_ratio,
    variational,
)
from msgm.evaluation.metrics.base import METRICS, Column, Metric, build_metrics

__all__ = ["METRICS", "Column", "Metric", "build_metrics"]
