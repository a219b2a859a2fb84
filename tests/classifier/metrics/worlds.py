"""Small worlds with known answers: made-up posteriors, and models that over-fit noise."""

from dataclasses import dataclass

import numpy as np
import torch

from msgm.classifier.data import Shares, held_out, split_by
from msgm.classifier.measuring import outputs_of
from msgm.classifier.methods.base import Settings
from msgm.classifier.metrics import Case
from msgm.classifier.metrics.base import Live
from msgm.classifier.networks import MLP, build
from msgm.classifier.outputs import Outputs
from msgm.classifier.training import TrainingSettings, fit
from msgm.data import load_dataset
from msgm.data.base import Dataset

SIZES = {"retain": 60, "forget": 20, "tuning": 10, "nonmembers": 40, "test": 50}


def posteriors(seed=0, classes=5, sizes=SIZES, concentration=0.5):
    """Outputs whose softmax is Dirichlet, with labels of their own distribution."""
    rng = np.random.default_rng(seed)
    labels = np.random.default_rng(99)
    logits = {k: np.log(rng.dirichlet(np.full(classes, concentration), n) + 1e-12) for k, n in sizes.items()}
    return Outputs(logits, {k: labels.integers(0, classes, n) for k, n in sizes.items()})


def certain(scale, classes=4, sizes=SIZES, wrong=()):
    """Outputs that give the true class a logit of ``scale``, and the next class' in the parts ``wrong``."""
    labels = {k: np.arange(n) % classes for k, n in sizes.items()}
    shown = {k: (y + (k in wrong)) % classes for k, y in labels.items()}
    return Outputs({k: scale * np.eye(classes)[y] for k, y in shown.items()}, labels)


@dataclass
class World:
    """Models on one split: the original, retrained ones, and an untrained one."""

    split: object
    settings: Settings
    original: torch.nn.Module
    retrains: list
    untrained: torch.nn.Module

    def outputs(self, model):
        return outputs_of(model, self.split)

    def case(self, model, retrains, method=None):
        live = Live(model, self.original, self.split, self.settings, method)
        original = self.outputs(self.original)
        return Case(self.outputs(model), original, retrains, self.split.scope, live)


def make_world(dataset, forget, training, retrains, hidden=64, seed=0):
    parts = held_out(dataset, Shares(), seed)
    split = split_by(dataset, parts, forget(parts["train"]))
    device = torch.device("cpu")

    def network(number):
        return build(MLP([hidden]), dataset.shape, len(dataset.classes), number)

    settings = Settings(training, seed, device, network, seed)
    original = fit(network(seed), split.train, training, seed)
    others = [fit(network(100 + k), split.retain, training, 100 + k) for k in range(retrains)]
    return World(split, settings, original, others, network(55))


def digits_world(retrains, label=None):
    dataset = load_dataset("digits")
    training = TrainingSettings(lr=0.1, epochs=20, batch_size=64, weight_decay=0)

    def forget(train):
        if label is not None:
            return dataset.labels == label
        return np.isin(np.arange(len(dataset)), np.random.default_rng(1).choice(train, 100, replace=False))

    return make_world(dataset, forget, training, retrains)


def noise_world(retrains, size=300, seed=0):
    """Labels drawn by lot: whatever a model knows of an item, it has memorised."""
    rng = np.random.default_rng(seed)
    items = torch.from_numpy(rng.normal(size=(size, 20))).float()
    dataset = Dataset("noise", items, (20,), None, rng.integers(0, 3, size), ["a", "b", "c"])
    training = TrainingSettings(lr=0.1, epochs=15, batch_size=32, weight_decay=0)

    def forget(train):
        return np.isin(np.arange(size), np.random.default_rng(1).choice(train, 40, replace=False))

    return make_world(dataset, forget, training, retrains, hidden=64, seed=seed)
