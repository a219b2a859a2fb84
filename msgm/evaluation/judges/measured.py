"""A judge of an attribute that is measured from a picture: the formula that chose the items to forget."""

from dataclasses import dataclass

import torch
from torch import Tensor

from msgm.data.measures import Rule, measured
from msgm.digests import short_digest
from msgm.errors import UserError
from msgm.evaluation.judge import JUDGES, SECTION, Judge, Task
from msgm.evaluation.judges.ruled import RuledJudge, RuledKind, names


@dataclass
class MeasuredJudge(RuledJudge):
    """The judge of a measured attribute.

    Attributes:
        by: the attribute's rule.
        close: share of held-out items within a tenth of a standard deviation of its threshold.
    """

    by: Rule
    close: float

    @property
    def rule(self) -> str:
        return (
            f"{self.by.text}; {self.close:.1%} of held-out items lie within a tenth of a standard deviation of that "
            "threshold, on either side"
        )

    @property
    def digest(self) -> str:
        return short_digest([self.network.digest.encode(), repr(self.by).encode()])

    def holds(self, items: Tensor) -> Tensor:
        assert self.levels is not None
        return torch.from_numpy(self.by.holds(measured(self.by.measure, items, self.levels)))


@JUDGES.register("measured")
@dataclass(frozen=True)
class Measured(RuledKind):
    """A sample shows an attribute where its number lies beyond the threshold that chose the items to forget.

    What ``own`` stands for where a request names an attribute of ``data.attributes``. It makes no mistake on real
    items, but the attribute has no gap: how many real items lie close to the threshold stands beside it.

    Example:
        >>> Measured().check(Task.of(subject.bench.dataset, subject.bench.split, subject.bench.config.request))
        Traceback (most recent call last):
        msgm.errors.UserError: evaluation.judge.kind: measured needs a request for an attribute of data.attributes.
    """

    def check(self, task: Task) -> None:
        if task.attribute not in task.dataset.measured:
            raise UserError(f"{SECTION}.kind: measured needs a request for an attribute of data.attributes.")

    def judge(self, task: Task, network: Judge, device: torch.device | str) -> MeasuredJudge:
        rule = task.dataset.measured[str(task.attribute)]
        classes, forgotten = names(task, str(task.attribute))
        return MeasuredJudge(classes, forgotten, task.dataset.levels, network, rule, _close(rule, task))


def _close(rule: Rule, task: Task) -> float:
    numbers = task.dataset.numbers(rule.measure, task.split.test.all)
    return float(rule.close(numbers).mean())
