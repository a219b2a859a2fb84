"""Any classifier of torchvision as the judge.

Its classes are mapped to the data's. With C(k) the classifier's classes that stand for the data's class k, the judge's
probability of k is the classifier's probability of C(k), renormalised over those that stand for any.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

import torch
from torch import Tensor

from msgm.config import JudgeSettings
from msgm.errors import UserError, nearest
from msgm.evaluation.judge import JUDGES, SECTION, Judge, JudgeKind, Task, assess_once
from msgm.evaluation.vision.classifiers import Classifier, ClassifierSettings, load_classifier
from msgm.evaluation.vision.images import check_images, to_rgb

OPTIONS = f"{SECTION}.options"


@dataclass
class TorchvisionJudge(Judge):
    """A classifier with its classes mapped.

    Attributes:
        classifier: the classifier.
        groups: for each class of the judge, the classifier's class numbers that stand for it.
    """

    classifier: Classifier
    groups: list[list[int]]

    @property
    def kind(self) -> str:
        return self.classifier.text

    @property
    def digest(self) -> str:
        return f"{self.classifier.digest}-{self.groups}"

    def outputs(self, items: Tensor) -> tuple[Tensor, Tensor]:
        assert self.levels is not None
        device = next(self.classifier.network.parameters()).device
        features, logits = self.classifier.outputs(to_rgb(items.to(device), self.levels))
        return features, torch.stack([logits[:, group].logsumexp(1) for group in self.groups], dim=1)


@JUDGES.register("torchvision")
@dataclass
class Torchvision(ClassifierSettings, JudgeKind):
    """A classifier of torchvision.

    Example:
        >>> names = ["tabby", "tiger cat", "beagle"]
        >>> judge = Torchvision(weights="pets.pt", classes=names, mapping={"cat": ["tabby", "tiger cat"]})
        >>> groups_of(["cat", "beagle"], judge.classes, judge.mapping)
        [[0, 1], [2]]

    Attributes:
        mapping: for each class of the data, the names of the classifier's classes that stand for it; a class that is
            not named here is that of its own name.
    """

    mapping: dict[str, list[str]] = field(default_factory=dict)

    def check(self, task: Task) -> None:
        check_images(task.dataset, f"{SECTION}.kind", "torchvision")
        self.check_weights(OPTIONS)
        if self.classes:
            groups_of(task.classes, self.classes, self.mapping)

    def make(
        self, task: Task, settings: JudgeSettings, seed: int, folder: Path | None, device: torch.device | str
    ) -> TorchvisionJudge:
        self.check(task)
        classifier = load_classifier(self, OPTIONS, device)
        groups = groups_of(task.classes, classifier.classes, self.mapping)
        judge = TorchvisionJudge(task.classes, task.forgotten, task.dataset.levels, classifier, groups)
        assess_once(judge, task, folder)
        return judge


def groups_of(wanted: list[str], known: list[str], mapping: Mapping[str, list[str]]) -> list[list[int]]:
    """Return, for each class of ``wanted``, the numbers of the classes of ``known`` that stand for it.

    Raises:
        UserError: the mapping names an unknown class on either side, one of ``known`` for two, or leaves one of
            ``wanted`` without any.
    """
    key = f"{OPTIONS}.mapping"
    for name in mapping:
        if name not in wanted:
            raise UserError(f"{key}: the data has no class {name!r}.{nearest(name, wanted)}")
    names = [mapping.get(name, [name]) for name in wanted]
    flat = [name for group in names for name in group]
    for name in flat:
        if name not in known:
            raise UserError(
                f"{key}: the classifier has no class {name!r}; say which of its classes stand for each of the data's."
                f"{nearest(name, known)}"
            )
        if flat.count(name) > 1:
            raise UserError(f"{key}: the classifier's class {name!r} stands for two of the data's classes.")
    for name, group in zip(wanted, names, strict=True):
        if not group:
            raise UserError(f"{key}: no class of the classifier stands for {name!r}.")
    return [[known.index(name) for name in group] for group in names]
