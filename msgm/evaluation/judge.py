"""The judge: a small classifier, trained on the run's own data, that says what a sample shows.

The classifier is closed-set: it names one of its classes whatever it sees, noise included. That a sample shows none of
them is told by ``reality``. Its accuracy on held-out items stands beside every number it produces.
"""

import hashlib
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor, nn

from msgm.config import JudgeSettings
from msgm.data import Dataset, Feed, dequantise
from msgm.evaluation.rates import rate
from msgm.requests import ForgetRequest, Split
from msgm.runs import read_json, write_bytes, write_json
from msgm.seeding import derive_seed, generator

BATCH = 1000


@dataclass
class Judge:
    """A classifier with its own measured accuracy.

    Attributes:
        network: maps (B, *shape) items in [-1, 1] to (B, classes) logits.
        classes: class names.
        forgotten: the class numbers that count as forgotten content.
        levels: grey levels of images; None for vectors.
        accuracy: share of held-out test items judged rightly, as ``rates.rate`` gives it.
        recall: share of held-out forget items judged forgotten; None when the request names no held-out item.
    """

    network: nn.Module
    classes: list[str]
    forgotten: list[int]
    levels: int | None
    accuracy: dict[str, Any]
    recall: dict[str, Any] | None

    @torch.no_grad()
    def predict(self, items: Tensor) -> Tensor:
        """Return the class numbers of raw items, (B,) on the CPU."""
        device = next(self.network.parameters()).device
        self.network.eval()
        return torch.cat(
            [self.network(_visible(p.to(device), self.levels)).argmax(1).cpu() for p in items.split(BATCH)]
        )

    def is_forgotten(self, predicted: Tensor) -> Tensor:
        """Return a mask of the predictions that name forgotten content."""
        return torch.isin(predicted, torch.tensor(self.forgotten))

    def summary(self) -> dict[str, Any]:
        """Return what a report says about the judge."""
        return {
            "kind": "small classifier trained on this data",
            "classes": self.classes,
            "forgotten": [self.classes[k] for k in self.forgotten],
            "heldout_accuracy": self.accuracy["value"],
            "heldout": self.accuracy,
            "forget_recall": self.recall,
        }

    def save(self, folder: Path, key: dict[str, Any]) -> None:
        """Write ``judge.safetensors`` and then ``judge.json``, whose ``key`` says what the judge was trained for."""
        from safetensors.torch import save

        write_bytes(folder / "judge.safetensors", save(self.network.state_dict()))
        write_json(folder / "judge.json", self.summary() | {"key": key})


def train_judge(
    dataset: Dataset,
    split: Split,
    request: ForgetRequest,
    settings: JudgeSettings,
    seed: int,
    folder: Path | None = None,
    device: torch.device | str = "cpu",
) -> Judge:
    """Train a judge on the training part, or load the one in ``folder`` if it was trained for the same.

    Its accuracy, and its recall of the forget items, are measured on the test part.

    A request by labels gives a judge of the data set's classes, any other one a judge of two classes, retain and
    forget.
    """
    targets, classes, forgotten = _task(dataset, split, request)
    key = {"data": dataset.digest(), "forgotten": _digest(targets, forgotten), "seed": seed, **asdict(settings)}
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(derive_seed(seed, "judge"))
        network = _network(dataset.shape, len(classes), settings.width).to(device)
    judge = Judge(network, classes, forgotten, dataset.levels, {}, None)
    if folder is not None and (folder / "judge.json").is_file() and read_json(folder / "judge.json")["key"] == key:
        print("judge: already trained", flush=True)
        return _load(judge, folder)
    print("judge: training", flush=True)
    _fit(network, dataset, split, targets, settings, seed, device)
    right = sum(int((p == t).sum()) for p, t in _judged(judge, dataset, split.test.all, targets))
    judge.accuracy = rate(right, len(split.test.all))
    if len(split.test.forget):
        found = sum(int(judge.is_forgotten(p).sum()) for p, _ in _judged(judge, dataset, split.test.forget, targets))
        judge.recall = rate(found, len(split.test.forget))
    if folder is not None:
        judge.save(folder, key)
    return judge


def _task(dataset: Dataset, split: Split, request: ForgetRequest) -> tuple[NDArray[np.int64], list[str], list[int]]:
    """Return the target of every item, the class names and the forgotten classes."""
    mask = np.zeros(len(dataset), dtype=bool)
    mask[np.concatenate([part.forget for part in (split.train, split.validation, split.test)])] = True
    if request.labels and dataset.labels is not None:
        return dataset.labels, dataset.classes, sorted({int(k) for k in dataset.labels[mask]})
    return mask.astype(np.int64), ["retain", "forget"], [1]


def _digest(targets: NDArray[np.int64], forgotten: list[int]) -> str:
    return hashlib.sha256(targets.tobytes() + bytes(forgotten)).hexdigest()[:16]


def _fit(
    network: nn.Module,
    dataset: Dataset,
    split: Split,
    targets: NDArray[np.int64],
    settings: JudgeSettings,
    seed: int,
    device: torch.device | str,
) -> None:
    feed = Feed(dataset, split.train.all, settings.batch_size, seed, "judge", device=device)
    steps = max(1, settings.epochs * len(split.train.all) // settings.batch_size)
    optimiser = torch.optim.Adam(network.parameters(), lr=settings.lr)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimiser, settings.lr, total_steps=steps)
    draws = generator(seed, "judge-noise", device=device)
    answers = torch.from_numpy(targets)
    network.train()
    for step, raw in zip(range(steps), feed.batches(0), strict=False):
        u = torch.rand(raw.shape, generator=draws, device=raw.device)
        loss = F.cross_entropy(network(_visible(raw, dataset.levels, u)), answers[feed.indices(step)].to(device))
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
        schedule.step()
    network.eval()


def _judged(
    judge: Judge, dataset: Dataset, indices: NDArray[np.int64], targets: NDArray[np.int64]
) -> "list[tuple[Tensor, Tensor]]":
    chunks = np.array_split(indices, max(1, -(-len(indices) // BATCH)))
    return [(judge.predict(dataset.take(c)), torch.from_numpy(targets[c])) for c in chunks]


def _load(judge: Judge, folder: Path) -> Judge:
    from safetensors.torch import load_file

    judge.network.load_state_dict(load_file(folder / "judge.safetensors"))
    judge.network.eval()
    summary = read_json(folder / "judge.json")
    judge.accuracy, judge.recall = summary["heldout"], summary["forget_recall"]
    return judge


def _visible(raw: Tensor, levels: int | None, u: Tensor | float = 0.5) -> Tensor:
    return raw.float() if levels is None else dequantise(raw, levels, u)


def _network(shape: tuple[int, ...], classes: int, width: int) -> nn.Module:
    """Return a three-layer convolutional network for images, an MLP for vectors."""
    if len(shape) == 1:
        return nn.Sequential(
            nn.Linear(shape[0], width), nn.ReLU(), nn.Linear(width, width), nn.ReLU(), nn.Linear(width, classes)
        )
    return nn.Sequential(
        *_block(shape[0], width),
        *_block(width, 2 * width),
        nn.MaxPool2d(2),
        *_block(2 * width, 4 * width),
        nn.MaxPool2d(2),
        nn.AdaptiveAvgPool2d(2),
        nn.Flatten(),
        nn.Linear(16 * width, classes),
    )


def _block(channels: int, width: int) -> list[nn.Module]:
    return [nn.Conv2d(channels, width, 3, padding=1, bias=False), nn.BatchNorm2d(width), nn.ReLU()]
