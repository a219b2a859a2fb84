"""The trainer, averaged weights and checkpoints; uses objectives, evaluates nothing."""

from msgm.training.ema import EMA
from msgm.training.run import fit, train, unlearn
from msgm.training.trainer import Trainer

__all__ = ["EMA", "Trainer", "fit", "train", "unlearn"]
