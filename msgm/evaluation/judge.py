"""The judge: a classifier, or a rule, that assigns samples to classes, with its own measured accuracy.

A judge is closed-set: it assigns one of its classes to any input, noise included. ``reality`` detects samples that show
none of the classes. Its accuracy on held-out items stands beside every number it produces. The kinds of judges
(``evaluation.judge.kind``) are in ``judges``: one trained on the run's own data, any classifier of torchvision, CLIP
asked by prompts, near-copies of single items, the formula of a measured attribute, and one that reads place by place.
"""

from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, ClassVar, TypedDict

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from msgm.config import JudgeSettings
from msgm.data import Dataset
from msgm.digests import short_digest
from msgm.errors import UserError, nearest
from msgm.evaluation.rates import Share, rate, total
from msgm.folders import write_json
from msgm.reading import read_json
from msgm.registry import Registry
from msgm.requests import ForgetRequest
from msgm.splits import Part, Split

BATCH = 1000
SECTION = "evaluation.judge"


@dataclass
class Judge(ABC):
    """A classifier with its own measured accuracy.

    Example:
        >>> judge = subject.bench.judge
        >>> judge.votes(subject.items).shape
        torch.Size([20, 10])

    Attributes:
        classes: class names.
        forgotten: the class numbers that count as forgotten content.
        levels: grey levels of images; None for vectors.
        accuracy: share of held-out test items judged rightly, as ``rates.rate`` gives it.
        recall: share of held-out forget items judged forgotten; None when the request names no held-out item.
    """

    classes: list[str]
    forgotten: list[int]
    levels: int | None
    accuracy: Share = field(init=False)
    recall: Share | None = field(default=None, init=False)

    @property
    @abstractmethod
    def kind(self) -> str:
        """Description of the judge, with the checksum of weights that were not trained here."""

    @property
    def rule(self) -> str | None:
        """The rule that decides whether a sample shows forgotten content; None where the classes decide."""
        return None

    @property
    @abstractmethod
    def digest(self) -> str:
        """A hash of everything its answers depend on."""

    @abstractmethod
    def outputs(self, items: Tensor) -> tuple[Tensor, Tensor]:
        """Return (B, F) features and (B, classes) log-probabilities up to a constant, of a batch of raw items."""

    def votes(self, items: Tensor) -> Tensor:
        """Return (B, classes) on the CPU: 1 for the class that raw items are judged to be; tied classes share it."""
        return torch.cat([class_votes(self.outputs(part)[1]).cpu() for part in items.split(BATCH)])

    def forgotten_share(self, votes: Tensor) -> Tensor:
        """Return (B,) whether the votes name forgotten content: 1 or 0, a share where classes are tied."""
        return forgotten_share(votes, self.forgotten)

    def junk(self, items: Tensor) -> Tensor:
        """Return (B,) which raw items the judge itself takes for junk, on the CPU; most judges take none for it."""
        return torch.zeros(len(items), dtype=torch.bool)

    def summary(self) -> dict[str, Any]:
        """Return the facts on the judge for reports."""
        return {
            "kind": self.kind,
            "classes": self.classes,
            "forgotten": [self.classes[k] for k in self.forgotten],
            "heldout_accuracy": self.accuracy["value"],
            "heldout": self.accuracy,
            "forget_recall": self.recall,
            **({"rule": self.rule} if self.rule else {}),
        }


def forgotten_share(votes: Tensor, forgotten: Sequence[int]) -> Tensor:
    """Return (B,) the share of each item's (B, classes) votes that name one of the ``forgotten`` classes."""
    return votes[:, list(forgotten)].sum(1)


def class_votes(outputs: Tensor) -> Tensor:
    """Return (B, classes) 1 for the class of the largest output; tied classes share it, and NaN is the smallest."""
    outputs = outputs.where(~outputs.isnan(), -torch.inf)
    largest = outputs == outputs.amax(1, keepdim=True)
    return largest / largest.sum(1, keepdim=True)


@dataclass(frozen=True)
class Task:
    """The classification task of a judge.

    For a request by labels the classes are the data set's; for any other request they are retain and forget. A request
    for single items, and one for a measured attribute, is judged by a rule unless another kind of judge is asked for;
    pictures of prompts that name classes are judged place by place.

    Attributes:
        dataset: the data.
        split: its parts.
        targets: (N,) class number of every item.
        classes: class names.
        forgotten: the class numbers that count as forgotten content.
        own: the kind of judge that ``own`` stands for in this task.
        attribute: the attribute that the request names, if it names one.
    """

    dataset: Dataset
    split: Split
    targets: NDArray[np.int64]
    classes: list[str]
    forgotten: list[int]
    own: str = "own"
    attribute: str | None = None

    def items(self, part: str) -> NDArray[np.int64]:
        """Return the retain and forget items of a part; items of earlier requests have no class in this task."""
        found: Part = getattr(self.split, part)
        return found.whole if self.by_classes else found.all

    @property
    def by_classes(self) -> bool:
        """Whether the classes are the data set's own."""
        return self.targets is self.dataset.labels

    @classmethod
    def of(cls, dataset: Dataset, split: Split, request: ForgetRequest) -> "Task":
        """Return the task that ``request`` sets on ``dataset``."""
        mask = np.zeros(len(dataset), dtype=bool)
        mask[np.concatenate([part.forget for part in (split.train, split.validation, split.test)])] = True
        if request.by_class and dataset.labels is not None:
            forgotten = sorted({int(k) for k in dataset.labels[mask]})
            names = dataset.classes or [str(k) for k in range(int(dataset.labels.max()) + 1)]
            return cls(dataset, split, dataset.labels, names, forgotten, own_of(dataset, split))
        own = "measured" if request.attribute in dataset.measured else own_of(dataset, split, request.by_item)
        return cls(dataset, split, mask.astype(np.int64), ["retain", "forget"], [1], own, request.attribute)

    def key(self) -> dict[str, str]:
        """Return hashes of the data and of the task."""
        left_out = b"" if self.by_classes else np.concatenate([p.gone for p in vars(self.split).values()]).tobytes()
        asked = short_digest([self.targets.tobytes(), bytes(self.forgotten), left_out])
        return {"data": self.dataset.digest(), "forgotten": asked}


def own_of(dataset: Dataset, split: Split, by_item: bool = False) -> str:
    """Return the kind that ``own`` stands for: ``copies`` where a request lists items and none of them is held out."""
    if by_item and not len(split.validation.forget) + len(split.test.forget):
        return "copies"
    return "cells" if any(dataset.named) else "own"


class JudgeKind(ABC):
    """A kind of judge. Subclasses are dataclasses whose fields are its options (``evaluation.judge.options``)."""

    name: ClassVar[str]

    @abstractmethod
    def make(
        self, task: Task, settings: JudgeSettings, seed: int, folder: Path | None, device: torch.device | str
    ) -> Judge:
        """Return the judge with its measurements: trained, or read from ``folder`` if it was made for the same task."""

    def check(self, task: Task) -> None:  # noqa: B027 - a judge that is trained here needs nothing
        """Raise a UserError if the judge is not available or cannot judge this data; before anything is written."""


JUDGES: Registry[JudgeKind] = Registry(f"{SECTION}.options")


def train_judge(
    dataset: Dataset,
    split: Split,
    request: ForgetRequest,
    settings: JudgeSettings,
    seed: int,
    folder: Path | None = None,
    device: torch.device | str = "cpu",
) -> Judge:
    """Return the judge that ``settings`` ask for: trained on the training part, read from ``folder``, made elsewhere.

    Example:
        >>> bench, settings = subject.bench, JudgeSettings(epochs=1, width=8)
        >>> judge = train_judge(bench.dataset, bench.split, msgm.ForgetRequest(labels=[3, 7]), settings, seed=0)
        judge: training...
        >>> judge.forgotten
        [3, 7]

    Its accuracy, and its recall of the forget items, are measured on the test part.

    Args:
        dataset: the data.
        split: its parts.
        request: what to forget; by labels it gives a judge of the data set's classes, else one of retain and forget.
        settings: its kind, and how to train one.
        seed: of its training.
        folder: where it is kept; None keeps none.
        device: where it runs.

    Raises:
        UserError: an unknown kind or option, or weights that are missing or do not fit.
    """
    return judge_of_task(Task.of(dataset, split, request), settings, seed, folder, device)


def judge_of_task(
    task: Task, settings: JudgeSettings, seed: int, folder: Path | None, device: torch.device | str
) -> Judge:
    """Return the judge that ``settings`` ask for, of a task; arguments and errors as in ``train_judge``."""
    return _kind(settings, task).make(task, settings, seed, folder, device)


def kind_of(settings: JudgeSettings, task: Task) -> str:
    """Return the name of the kind of judge that ``settings`` ask for, of a task."""
    return task.own if settings.kind == "own" else settings.kind


def check_judge(dataset: Dataset, split: Split, request: ForgetRequest, settings: JudgeSettings) -> None:
    """Raise what ``train_judge`` would raise for its settings or missing weights, before anything is written."""
    task = Task.of(dataset, split, request)
    _kind(settings, task).check(task)


def _kind(settings: JudgeSettings, task: Task) -> JudgeKind:
    from msgm.evaluation import judges  # noqa: F401 - they register themselves

    known = sorted(JUDGES.entries)
    if settings.kind not in known:
        hint = nearest(settings.kind, known)
        raise UserError(f"{SECTION}.kind: unknown judge {settings.kind!r}; known: {', '.join(known)}.{hint}")
    return JUDGES.make(kind_of(settings, task), settings.options, JUDGES.section)


def assess(judge: Judge, task: Task) -> None:
    """Measure the judge on the test part."""
    test = task.split.test
    known = task.items("test")
    right = sum(total(votes.gather(1, true[:, None])) for votes, true in _judged(judge, task, known))
    judge.accuracy = rate(right, len(known))
    if len(test.forget):
        judge.recall = forgotten_rate(judge, task, test.forget)


def forgotten_rate(judge: Judge, task: Task, indices: NDArray[np.int64]) -> Share:
    """Return the share of real items that are judged to show forgotten content."""
    return rate(sum(total(judge.forgotten_share(votes)) for votes, _ in _judged(judge, task, indices)), len(indices))


def assess_once(judge: Judge, task: Task, folder: Path | None) -> None:
    """Measure a judge made elsewhere, or read the measurements of the same judge on the same data from ``folder``."""
    key = task.key() | {"judge": judge.digest}
    if not recall_assessment(judge, folder, key):
        print("judge: measuring", flush=True)
        assess(judge, task)
        write_assessment(judge, folder, key)


def recall_assessment(judge: Judge, folder: Path | None, key: dict[str, Any]) -> bool:
    """Load the measurements of the judge with ``key`` from ``folder``; return whether there were any."""
    if folder is None or not (folder / "judge.json").is_file():
        return False
    known = read_json(folder / "judge.json", Assessment)
    if known["key"] != key:
        return False
    judge.accuracy, judge.recall = known["heldout"], known["forget_recall"]
    return True


def write_assessment(judge: Judge, folder: Path | None, key: dict[str, Any]) -> None:
    """Write ``judge.json``; its ``key`` identifies the data and the task of the judge."""
    if folder is not None:
        write_json(folder / "judge.json", judge.summary() | {"key": key})


class Assessment(TypedDict):
    """Contents of ``judge.json``, beside the judge's summary."""

    key: dict[str, Any]
    heldout: Share
    forget_recall: Share | None


def _judged(judge: Judge, task: Task, indices: NDArray[np.int64]) -> list[tuple[Tensor, Tensor]]:
    chunks = np.array_split(indices, max(1, -(-len(indices) // BATCH)))
    return [(judge.votes(task.dataset.take(c)), torch.from_numpy(task.targets[c])) for c in chunks]
