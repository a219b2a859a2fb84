"""A judge of single items: a sample shows one of them where it is a near-copy."""

from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from msgm.digests import short_digest
from msgm.evaluation.judge import JUDGES, Judge, Task
from msgm.evaluation.judges.ruled import RuledJudge, RuledKind, names
from msgm.evaluation.reality import Reality

SHOWN = "copies of items to forget"


@dataclass
class CopiesJudge(RuledJudge):
    """The judge of near-copies.

    Attributes:
        reality: the distances to training items.
        forget: (N,) mask of those that are to be forgotten.
    """

    reality: Reality
    forget: NDArray[np.bool_]

    @property
    def rule(self) -> str:
        return (
            "its nearest training item is one to forget, at a distance below "
            f"{self.reality.copy_below:.4g}, which 99% of validation items keep to theirs"
        )

    @property
    def digest(self) -> str:
        return short_digest([self.network.digest.encode(), self.rule.encode(), self.forget.tobytes()])

    def holds(self, items: Tensor) -> Tensor:
        distances, places = self.reality.nearest(items)
        return self.reality.copies(distances) & torch.from_numpy(self.forget)[places]


@JUDGES.register("copies")
@dataclass(frozen=True)
class Copies(RuledKind):
    """A sample shows an item to forget where it is nearly the same picture (``msgm.evaluation.reality``).

    What ``own`` stands for where a request lists items one by one and none of them is held out: a classifier cannot be
    taught what a single item is, and the share of samples of its kind says nothing about it. The unlearning ratio is
    then the share of samples that copy items to forget.

    Example:
        >>> from msgm.config import JudgeSettings
        >>> bench = subject.bench
        >>> asked = Task.of(bench.dataset, bench.split, bench.config.request)
        >>> judge = Copies().make(asked, JudgeSettings(epochs=1, width=8), seed=0, folder=None, device="cpu")
        judge: training
        >>> judge.classes[-1], judge.holds(bench.dataset.take(bench.split.train.forget)).all()
        ('copies of items to forget', tensor(True))
    """

    def judge(self, task: Task, network: Judge, device: torch.device | str) -> CopiesJudge:
        train = task.split.train
        reality = Reality.of(task.dataset, task.split, device)
        classes, forgotten = names(task, SHOWN)
        forget = np.isin(train.whole, train.forget)
        return CopiesJudge(classes, forgotten, task.dataset.levels, network, reality, forget)
