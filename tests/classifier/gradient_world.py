"""Small worlds for the tests of gradient-based methods: blobs, and a network with normalisation and dropout."""

import numpy as np
import torch
from torch import nn

from msgm.classifier.data import Examples, Split, split_by
from msgm.classifier.methods import METHODS, Settings
from msgm.classifier.networks import Standardise
from msgm.classifier.training import TrainingSettings, fit, logits
from msgm.data import Dataset
from msgm.seeding import generator

NAMES = [
    "finetune",
    "neggrad",
    "neggrad-plus",
    "random-label",
    "salun",
    "l1-sparse",
    "boundary-shrink",
    "boundary-expand",
    "cf-k",
    "eu-k",
    "task-vector",
]
TRAINING = TrainingSettings(lr=0.05, epochs=4, batch_size=16)


def blobs(*sizes: int) -> Dataset:
    """Return one cloud of vectors in five dimensions a size, each a class."""
    labels = np.repeat(np.arange(len(sizes)), sizes)
    centres = 4 * torch.randn(len(sizes), 5, generator=generator("centres"))
    items = centres[torch.from_numpy(labels)] + torch.randn(len(labels), 5, generator=generator("items"))
    return Dataset("blobs", items, (5,), None, labels.astype(np.int64), [f"c{k}" for k in range(len(sizes))])


def split_of(dataset: Dataset, forget: np.ndarray) -> Split:
    """Return the split whose last third of every item is held out, evenly for the three parts."""
    position = np.arange(len(dataset))
    parts = {name: position[position % 9 == k] for k, name in enumerate(("tuning", "nonmembers", "test"))}
    return split_by(dataset, parts | {"train": position[position % 9 >= 3]}, forget)


def normed(seed: int, classes: int = 4) -> nn.Module:
    """Return an MLP with batch normalisation and dropout, by the seed."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return nn.Sequential(
            Standardise(5),
            nn.Linear(5, 12),
            nn.BatchNorm1d(12),
            nn.ReLU(),
            nn.Dropout(0.2),
            nn.Linear(12, 8),
            nn.BatchNorm1d(8),
            nn.ReLU(),
            nn.Linear(8, classes),
        )


def settings_of(training: TrainingSettings = TRAINING, seed: int = 7, build=normed) -> Settings:
    return Settings(training, seed, torch.device("cpu"), build, 0)


def trained(split: Split, build=normed) -> nn.Module:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        return fit(build(0), split.train, TRAINING, 0)


def world(*sizes: int) -> tuple[nn.Module, Split]:
    """Return a model trained on blobs of these sizes, and the request to forget the last class."""
    dataset = blobs(*(sizes or (40, 40, 40, 40)))
    split = split_of(dataset, dataset.labels == len(dataset.classes) - 1)
    return trained(split, lambda seed: normed(seed, len(dataset.classes))), split


def run(name: str, model: nn.Module, split: Split, settings: Settings | None = None, **values):
    """Return what the method gives."""
    return METHODS.build({"name": name, **values}).unlearn(model, split, settings or settings_of())


def state(model: nn.Module) -> dict[str, torch.Tensor]:
    return {name: value.clone() for name, value in model.state_dict().items()}


def same(one: dict[str, torch.Tensor], other: dict[str, torch.Tensor]) -> bool:
    return one.keys() == other.keys() and all(torch.equal(one[name], other[name]) for name in one)


def accuracy(model: nn.Module, examples: Examples) -> float:
    return float((logits(model, examples).argmax(1) == examples.labels).float().mean())
