"""Trained models on 8x8 digits and the requests to forget a class of them or random items, each made once."""

from functools import cache

import numpy as np
import torch
from torch import nn

from msgm.classifier import networks
from msgm.classifier.data import Shares, Split, held_out, split_by
from msgm.classifier.methods import Settings
from msgm.classifier.networks import MLP, NetworkSettings
from msgm.classifier.training import TrainingSettings, fit
from msgm.data import load_dataset

TRAINING = TrainingSettings(lr=0.1, epochs=20, batch_size=64, weight_decay=0)


@cache
def parts() -> tuple:
    dataset = load_dataset("digits")
    return dataset, held_out(dataset, Shares(), 0)


def request(forget: str | int) -> Split:
    """Return the split that forgets class 3 (``class``) or so many random training items."""
    dataset, held = parts()
    mask = dataset.labels == 3
    if forget != "class":
        mask = np.zeros(len(dataset), dtype=bool)
        mask[np.random.default_rng(1).choice(held["train"], int(forget), replace=False)] = True
    return split_by(dataset, held, mask)


def settings_for(network: NetworkSettings, training: TrainingSettings = TRAINING, seed: int = 0) -> Settings:
    dataset = parts()[0]
    return Settings(
        training,
        seed,
        torch.device("cpu"),
        lambda weights: networks.build(network, dataset.shape, len(dataset.classes), weights),
        original_seed=0,
    )


def digits(
    forget: str | int, network: NetworkSettings | None = None, training: TrainingSettings = TRAINING
) -> tuple[nn.Module, Split, Settings]:
    """Return a model trained on all training items, the split, and the settings; MLP [64] unless told."""
    split, settings = request(forget), settings_for(network or MLP([64]), training)
    return fit(settings.build(0), split.train, training, 0), split, settings
