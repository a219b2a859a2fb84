"""The examples in the docstrings of public names run as they stand."""

import doctest
import inspect
import shutil
from functools import cache
from importlib import import_module

import numpy as np
import pytest
import torch
from scipy.sparse import csr_array, random_array
from torch import nn
from torch.utils.data import TensorDataset

import msgm
from msgm.classifier.methods import METHODS
from msgm.classifier.methods.finetune import FineTune
from msgm.classifier.metrics import METRICS
from msgm.classifier.modules import asked, fresh_weights
from msgm.classifier.networks import CLASSIFIERS
from msgm.classifier.training import TrainingSettings, fit
from msgm.diffusion import PROCESSES, SAMPLERS
from msgm.diffusion.networks import NETWORKS
from msgm.masks import parse_mask
from msgm.objectives import OBJECTIVES
from tests.api.conftest import FAST
from tests.classifier.metrics.worlds import noise_world

MODULES = (
    "msgm.testing",
    "msgm.classifier",
    "msgm.recommender",
    "msgm.diffusion",
    "msgm.diffusion.samplers",
    "msgm.objectives",
)
"""Modules of public names beside the flat ones."""
REGISTRIES = (OBJECTIVES, SAMPLERS, PROCESSES, NETWORKS, CLASSIFIERS, METHODS, METRICS)
"""Whatever is registered is public too."""
OTHERS = (parse_mask,)
FINDER = doctest.DocTestFinder(recurse=True)


def examples(module, name):
    found = getattr(import_module(module), name)
    return [test for test in FINDER.find(found, name, module=inspect.getmodule(found)) if test.examples]


@cache
def clouds():
    """A classifier of three clouds, the data that it was trained on and others, and how it was trained."""
    labels = torch.arange(360) % 3
    items = 4 * torch.eye(3)[labels] + torch.randn(360, 3, generator=torch.Generator().manual_seed(0))
    data, unseen = TensorDataset(items[:300], labels[:300]), TensorDataset(items[300:], labels[300:])
    layers = [nn.Linear(3, 8), nn.ReLU(), nn.Linear(8, 3)]
    build, training = fresh_weights(nn.Sequential(*layers)), TrainingSettings(epochs=3)
    network = build(0)
    fit(network, asked(network, data, {"labels": ["2"]}).train, training, 0)
    return {"network": network, "data": data, "unseen": unseen, "build": build, "training": training}


@cache
def case():
    """What a metric of classifiers is given: a model that forgot by fine-tuning, and two retrained ones."""
    world, method = noise_world(retrains=2), FineTune(epochs=2)
    made = method.unlearn(world.original, world.split, world.settings).model
    return world.case(made, [world.outputs(model) for model in world.retrains], method)


@cache
def likes():
    """Who likes what, when, and what plan each is on."""
    matrix = csr_array(random_array((60, 30), density=0.3, rng=np.random.default_rng(0)))
    return {"matrix": matrix, "times": np.arange(matrix.nnz), "plans": np.array(["a", "b"] * 30)}


@cache
def base():
    """A score model as examples name it."""
    return msgm.ScoreModel.new("unet", "vp", shape=(1, 8, 8), channels=[8])


def public():
    """Return home and name of every public class and function: what modules name in ``__all__``, what is registered."""
    homes = [(msgm._HOME[name], name) for name in msgm.__all__ if name in msgm._HOME]
    homes += [(module, name) for module in MODULES for name in import_module(module).__all__]
    found = [getattr(import_module(module), name) for module, name in homes]
    found += [cls for registry in REGISTRIES for cls in registry.entries.values()] + list(OTHERS)
    shown = [thing for thing in found if inspect.isclass(thing) or inspect.isfunction(thing)]
    return sorted({(thing.__module__, thing.__name__) for thing in shown})


PLACES = public()


@pytest.mark.parametrize(("module", "name"), PLACES)
def test_public_classes_show_an_example(module, name):
    assert ">>>" in (vars(import_module(module))[name].__doc__ or ""), f"{module}.{name} shows no example"


@pytest.mark.parametrize(("module", "name"), PLACES)
def test_examples_run(module, name, report, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    compared = shutil.copytree(report.run, tmp_path / "compared")
    home = vars(import_module(module))
    runner = doctest.DocTestRunner(optionflags=doctest.ELLIPSIS | doctest.NORMALIZE_WHITESPACE)
    for test in examples(module, name):
        places = {"out": tmp_path, "compared": compared, "tiny": FAST, "case": case()}
        test.globs = {**home, "msgm": msgm, "torch": torch, "base": base(), **places, **clouds(), **likes()}
        said = []
        runner.run(test, out=said.append)
        assert not said, "".join(said)
