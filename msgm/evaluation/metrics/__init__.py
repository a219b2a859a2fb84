"""Metrics, one idea a file; each registers itself."""

from msgm.evaluation.metrics import likelihood, unlearning_ratio  # noqa: F401 - they register themselves
from msgm.evaluation.metrics.base import METRICS, Column, Metric, build_metrics

__all__ = ["METRICS", "Column", "Metric", "build_metrics"]
