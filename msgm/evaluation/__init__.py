"""Measuring what a model forgot: judges, rates, likelihoods and the report. Trains no model it was given."""

from msgm.evaluation.judge import Judge, train_judge
from msgm.evaluation.measure import Bench, measure
from msgm.evaluation.rates import wilson
from msgm.evaluation.reality import Reality

__all__ = ["Bench", "Judge", "Reality", "measure", "train_judge", "wilson"]
