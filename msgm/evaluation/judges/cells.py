"""A judge of pictures made of places: a classifier reads every place by itself, and blank is one of its answers."""

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn.functional import one_hot

from msgm.config import JudgeSettings
from msgm.data import Dataset
from msgm.digests import short_digest
from msgm.errors import UserError
from msgm.evaluation.judge import JUDGES, SECTION, Judge, JudgeKind, Task, recall_assessment, write_assessment
from msgm.evaluation.judges.own import Own
from msgm.evaluation.rates import rate
from msgm.evaluation.reality import Reality
from msgm.splits import Part, Split

BLANK = "blank"
"""The class of a place that shows nothing, the last one."""


@dataclass
class CellsJudge(Judge):
    """The judge of pictures made of places.

    A picture shows forgotten content where any of its places does. Its votes are shared by the forgotten classes that
    its places show; by the other classes, where there is none of those; it is blank where all of its places are.

    Attributes:
        network: the classifier of one place.
        place: height and width of a place, in pixels.
        reality: distances of places to those of the training items.
    """

    network: Judge
    place: tuple[int, int]
    reality: Reality

    @property
    def kind(self) -> str:
        return f"{self.network.kind}, which reads each place of {self.place[0]}x{self.place[1]} pixels"

    @property
    def rule(self) -> str:
        return "any of its places shows a forgotten class"

    @property
    def digest(self) -> str:
        return short_digest([self.network.digest.encode(), repr(self.place).encode()])

    def outputs(self, items: Tensor) -> tuple[Tensor, Tensor]:
        """Return (B, places x F) features and (B, classes) logarithms of the mean probabilities of the places."""
        places = cut(items, self.place)
        features, logits = self.network.outputs(places.flatten(0, 1))
        shares = logits.log_softmax(1).view(*places.shape[:2], -1)
        return features.reshape(len(items), -1), shares.logsumexp(1)

    def seen(self, items: Tensor) -> Tensor:
        """Return (B, places) the class number of each place of raw items, from left to right, on the CPU."""
        places = cut(items, self.place)
        return self.network.votes(places.flatten(0, 1)).argmax(1).view(places.shape[:2])

    def read(self, items: Tensor) -> list[tuple[int, ...]]:
        """Return the class numbers that each raw item shows, from left to right; blank places say nothing."""
        blank = len(self.classes) - 1
        return [tuple(k for k in row if k != blank) for row in self.seen(items).tolist()]

    def votes(self, items: Tensor) -> Tensor:
        counts = one_hot(self.seen(items), len(self.classes)).sum(1).float()
        numbers = torch.arange(len(self.classes))
        blank = numbers == len(self.classes) - 1
        forgotten = torch.isin(numbers, torch.tensor(self.forgotten, dtype=torch.long))
        for weaker, stronger in ((blank, ~blank), (~forgotten, forgotten)):
            counts[(counts[:, stronger].sum(1) > 0)[:, None] & weaker] = 0
        return counts / counts.sum(1, keepdim=True)

    def junk(self, items: Tensor) -> Tensor:
        """Return (B,) whether raw items have no place that shows a class: each is blank, or unlike training items.

        A place is unlike them where it lies farther from all of theirs than 99% of held-out ones that are not blank.
        """
        places = cut(items, self.place)
        far = self.reality.junk(self.reality.distances(places.flatten(0, 1))).view(places.shape[:2])
        return (far | (self.seen(items) == len(self.classes) - 1)).all(1)


@JUDGES.register("cells")
@dataclass(frozen=True)
class Cells(JudgeKind):
    """A picture is cut into places; a small classifier of one place says for each what it shows, or that it is blank.

    What ``own`` stands for where the data's prompts name classes. The classifier is trained as ``own`` is, on the
    places of training items with one class: a place of such an item is of that class, or blank where every pixel is of
    level 0. An item's classes are those that its first caption names. A class is forgotten where items that show it
    alone are to be forgotten and none is to be retained. Its accuracy is the share of held-out items, those of several
    classes among them, whose classes are all read rightly, from left to right.

    Example:
        >>> canvases = torch.arange(2 * 8 * 16).view(2, 1, 8, 16)
        >>> cut(canvases, (8, 8)).shape
        torch.Size([2, 2, 1, 8, 8])
        >>> Cells(place=[8, 0])
        Traceback (most recent call last):
        msgm.errors.UserError: evaluation.judge.options.place: expected a height and a width from 1 up, got [8, 0].

    Attributes:
        place: height and width of a place, in pixels.
    """

    place: list[int] = field(default_factory=lambda: [8, 8])

    def __post_init__(self) -> None:
        if len(self.place) != 2 or min(self.place) < 1:
            raise UserError(f"{SECTION}.options.place: expected a height and a width from 1 up, got {self.place}.")

    def check(self, task: Task) -> None:
        data, (height, width) = task.dataset, self.place
        if not any(data.named):
            raise UserError(f"{SECTION}.kind: cells needs data whose prompts name classes, and {data.name} has none.")
        if not data.is_image or data.shape[1] % height or data.shape[2] % width:
            raise UserError(
                f"{SECTION}.options.place: items of shape {data.shape} cannot be cut into places of {height}x{width}."
            )
        if not forgotten_classes(task):
            raise UserError(
                f"{SECTION}.kind: cells needs a request for whole classes, and some items of each that show it alone "
                "are to be retained; take another kind."
            )

    def make(
        self, task: Task, settings: JudgeSettings, seed: int, folder: Path | None, device: torch.device | str
    ) -> CellsJudge:
        self.check(task)
        place = (self.place[0], self.place[1])
        cells = cells_of(task, place)
        train, held_out = cells.split.train.retain, cells.split.validation.retain
        held_out = held_out[cells.targets[held_out] < len(cells.classes) - 1]
        take, levels = cells.dataset.take, task.dataset.levels
        reality = Reality.calibrated(take(train).to(device), take(held_out), levels)
        network = Own().make(cells, settings, seed, None if folder is None else folder / "cells", device)
        judge = CellsJudge(cells.classes, forgotten_classes(task), levels, network, place, reality)
        key = task.key() | {"judge": judge.digest}
        if not recall_assessment(judge, folder, key):
            _assess(judge, task)
            write_assessment(judge, folder, key)
        return judge


def cut(items: Tensor, place: tuple[int, int]) -> Tensor:
    """Return the (B, places, C, h, w) places of items (B, C, H, W), row by row from left to right."""
    height, width = place
    found = items.unfold(2, height, height).unfold(3, width, width)
    return found.permute(0, 2, 3, 1, 4, 5).flatten(1, 2).contiguous()


def item_classes(dataset: Dataset, indices: NDArray[np.int64]) -> list[tuple[int, ...]]:
    """Return the classes of the items at ``indices``, from left to right: those that their first captions name."""
    first = dataset.captions[indices, 0].tolist()
    return [dataset.named[prompt] if prompt >= 0 else () for prompt in first]


def alone(dataset: Dataset, indices: NDArray[np.int64]) -> NDArray[np.int64]:
    """Return those of ``indices`` whose items show one class."""
    return indices[[len(classes) == 1 for classes in item_classes(dataset, indices)]]


def forgotten_classes(task: Task) -> list[int]:
    """Return the classes whose items that show them alone are to be forgotten, none being to be retained; in order."""

    def shown(indices: Sequence[NDArray[np.int64]]) -> set[int]:
        classes = (item_classes(task.dataset, alone(task.dataset, each)) for each in indices)
        return {found[0] for each in classes for found in each}

    split = task.split
    asked = shown([part.forget for part in (split.train, split.validation, split.test)])
    return sorted(asked - shown([split.train.retain]))


def cells_of(task: Task, place: tuple[int, int]) -> Task:
    """Return the task of telling apart the places of items with one class, among them those of earlier requests."""
    names = _names(task.dataset)
    parts, cells, targets, start = {}, [], [], 0
    for name, part in vars(task.split).items():
        chosen = alone(task.dataset, part.whole)
        places = cut(task.dataset.take(chosen), place)
        blank = (places == 0).flatten(2).all(2)
        own = torch.tensor([k for (k,) in item_classes(task.dataset, chosen)], dtype=torch.long)[:, None]
        targets.append(torch.where(blank, len(names), own).flatten())
        cells.append(places.flatten(0, 1))
        parts[name] = _part(start, start + len(targets[-1]))
        start += len(targets[-1])
    items, labels = torch.cat(cells), torch.cat(targets).numpy()
    classes = [*names, BLANK]
    shape = tuple(items.shape[1:])
    dataset = Dataset("cells", items, shape, task.dataset.levels, labels, classes)
    return replace(task, dataset=dataset, split=Split(**parts), targets=labels, classes=classes, forgotten=[])


def _names(dataset: Dataset) -> list[str]:
    return list(dataset.classes) or [str(k) for k in range(1 + max(k for named in dataset.named for k in named))]


def _part(start: int, stop: int) -> Part:
    return Part(np.arange(start, stop), np.empty(0, dtype=np.int64))


def _assess(judge: CellsJudge, task: Task) -> None:
    """Measure the judge on the test part's items."""
    test, data = task.split.test, task.dataset
    chosen = test.all[[bool(classes) for classes in item_classes(data, test.all)]]
    right = sum(a == b for a, b in zip(judge.read(data.take(chosen)), item_classes(data, chosen), strict=True))
    judge.accuracy = rate(right, len(chosen))
    if len(test.forget):
        shown = judge.forgotten_share(judge.votes(data.take(test.forget)))
        judge.recall = rate(int(shown.sum()), len(test.forget))
