"""Measuring what a model forgot: judges, metrics, the report. Only copies of the given models are ever trained."""

from msgm.evaluation import attacks  # noqa: F401 - they register themselves
from msgm.evaluation.bench import Bench, Subject
from msgm.evaluation.judge import Judge, train_judge
from msgm.evaluation.measuring import measure
from msgm.evaluation.metrics import METRICS, Metric
from msgm.evaluation.rates import wilson
from msgm.evaluation.reality import Reality

__all__ = ["METRICS", "Bench", "Judge", "Metric", "Reality", "Subject", "measure", "train_judge", "wilson"]
