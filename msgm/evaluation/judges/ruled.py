"""Judges that decide by a rule what no classifier can be taught: single items, and attributes measured from a picture.

The rule alone says whether a sample shows what is to be forgotten. Beside it stands a classifier, trained here on the
classes of the data, which names the class of the other samples and gives features; data without classes have one of
items to retain and to forget, for features alone.
"""

from abc import abstractmethod
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from msgm.config import JudgeSettings
from msgm.evaluation.judge import Judge, JudgeKind, Task, assess, forgotten_rate, recall_assessment, write_assessment
from msgm.evaluation.judges.own import Own

OTHER = "other"
"""The class of samples that the rule does not hold for, where the data have no classes."""


@dataclass
class RuledJudge(Judge):
    """A judge whose last class is that of the samples that its rule holds for.

    Attributes:
        network: the classifier of the other samples.
    """

    network: Judge

    @abstractmethod
    def holds(self, items: Tensor) -> Tensor:
        """Return (B,) whether the rule holds for raw items, on the CPU."""

    @property
    def kind(self) -> str:
        return f"{self.rule}; features, and the class of other samples, by a {self.network.kind}"

    def outputs(self, items: Tensor) -> tuple[Tensor, Tensor]:
        return self.network.outputs(items)

    def votes(self, items: Tensor) -> Tensor:
        held = self.holds(items)[:, None].float()
        others = self.network.votes(items) if len(self.classes) > 2 else torch.ones_like(held)
        return torch.cat([others * (1 - held), held], dim=1)


class RuledKind(JudgeKind):
    """A kind of judge with a rule."""

    @abstractmethod
    def judge(self, task: Task, network: Judge, device: torch.device | str) -> RuledJudge:
        """Return the judge of a task that ``ruled`` made, with ``network`` for the class of other samples."""

    def make(
        self, task: Task, settings: JudgeSettings, seed: int, folder: Path | None, device: torch.device | str
    ) -> Judge:
        self.check(task)
        where = None if folder is None else folder / "classes"
        network = Own().make(_without_rule(task), settings, seed, where, device)
        judge = self.judge(task, network, device)
        task = _ruled(task, judge)
        key = task.key() | {"judge": judge.digest}
        if not recall_assessment(judge, folder, key):
            assess(judge, task)
            if judge.recall is None:  # items that are named one by one: whether it knows themselves
                judge.recall = forgotten_rate(judge, task, task.dataset.distinct(task.split.train.forget))
            write_assessment(judge, folder, key)
        return judge


def _without_rule(task: Task) -> Task:
    """Return the task of telling the classes of the data apart; the same task where they have none."""
    dataset = task.dataset
    if dataset.labels is None:
        return task
    classes = dataset.classes or [str(k) for k in range(int(dataset.labels.max()) + 1)]
    return replace(task, targets=dataset.labels, classes=classes, forgotten=[])


def names(task: Task, rule: str) -> tuple[list[str], list[int]]:
    """Return the classes of a judge with a rule, the one that it holds for last, and that one's number."""
    classes = [OTHER] if task.dataset.labels is None else list(_without_rule(task).classes)
    return [*classes, rule], [len(classes)]


def _ruled(task: Task, judge: RuledJudge) -> Task:
    """Return the task with the judge's classes: the data's own, and one of the items to forget."""
    forget = np.zeros(len(task.dataset), dtype=bool)
    for part in (task.split.train, task.split.validation, task.split.test):
        forget[part.forget] = True
    others = 0 if task.dataset.labels is None else task.dataset.labels
    targets = np.where(forget, judge.forgotten[0], others).astype(np.int64)
    return replace(task, targets=targets, classes=judge.classes, forgotten=judge.forgotten)
