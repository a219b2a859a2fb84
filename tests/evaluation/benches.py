"""Benches on digits with a small judge, subjects whose samples are given, and weights of tiny networks."""

import functools

import torch

from msgm.config import JudgeSettings, load_config
from msgm.data import DATASETS
from msgm.evaluation import Bench, Reality, Subject, train_judge
from msgm.evaluation.vision.clip import import_clip
from msgm.requests import ForgetRequest
from msgm.training.run import new_model

REQUEST = ForgetRequest(labels=[3, 7])
OVERRIDES = ["request.labels=[3,7]", "network.channels=[8]", "sampling.steps=3", "evaluation.samples=60"]


@functools.cache
def digits():
    settings = DATASETS.build({"name": "digits"})
    dataset = settings.load()
    return dataset, settings.split(dataset, REQUEST)


@functools.cache
def small_judge():
    return train_judge(*digits(), REQUEST, JudgeSettings(epochs=3, width=8), seed=0)


@functools.cache
def small_reality():
    return Reality.of(*digits())


def digits_bench(*overrides, folder=None):
    return Bench(load_config(None, [*OVERRIDES, *overrides]), *digits(), small_judge(), small_reality(), folder)


def subject_of(bench, items, finite=None):
    """A model that made the raw ``items``."""
    subject = Subject("given", new_model(bench.config, bench.dataset), bench)
    subject.__dict__["items"] = items
    subject.__dict__["finite"] = torch.ones(len(items), dtype=torch.bool) if finite is None else finite
    return subject


@functools.cache
def tiny_clip_state():
    """Weights of a random CLIP: 32 features, images of 32, 2 + 2 layers of width 64."""
    import_clip()
    from clip.model import CLIP

    with torch.random.fork_rng():
        torch.manual_seed(0)
        return CLIP(32, 32, 2, 64, 8, 77, 49408, 64, 1, 2).state_dict()


@functools.cache
def tiny_classifier_state(classes=10):
    """Weights of torchvision's smallest classifier, at random."""
    import torchvision

    with torch.random.fork_rng():
        torch.manual_seed(0)
        return torchvision.models.shufflenet_v2_x0_5(weights=None, num_classes=classes).state_dict()
