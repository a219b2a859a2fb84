"""The examples in the docstrings of public names run as they stand."""

import copy
import doctest
import inspect
import re
import shutil
from dataclasses import replace
from functools import cache
from importlib import import_module
from pkgutil import walk_packages
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from PIL import Image
from scipy.sparse import csr_array, random_array
from torch import nn
from torch.utils.data import TensorDataset
from torchvision import datasets

import msgm
from msgm.classifier.methods.finetune import FineTune
from msgm.classifier.modules import asked, fresh_weights
from msgm.classifier.training import TrainingSettings, fit
from msgm.evaluation import Subject
from msgm.evaluation.bench import Retrained
from msgm.masks import parse_mask
from msgm.recommender.data.splits import PerUser
from msgm.recommender.data.synthetic import Synthetic
from msgm.recommender.metrics import Case as RecommenderCase
from msgm.recommender.requests import Deletion
from msgm.registry import Registry
from tests.api.conftest import FAST
from tests.classifier.metrics.worlds import noise_world
from tests.conftest import ROOT
from tests.evaluation.benches import digits_bench
from tests.evaluation.painters import captioned_bench, painter
from tests.recommender.metrics.worlds import cells_deletion

REFERENCE = ROOT / "docs" / "reference" / "api"
"""Pages that show public modules, some of them with the members that are shown."""
SHOWN = re.compile(r"automodule:: (\S+)\n   :members: *(.*)")
OTHERS = (parse_mask,)
"""Functions that the command line's words are read by."""
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
def subject(run):
    """What a metric of generators is given: a model that a row of a comparison made, and what it is measured against.

    Args:
        run: the comparison's folder.
    """
    made = msgm.Run(run / "rows" / "unseen")
    bench = digits_bench("evaluation.samples=20", "evaluation.nll_items=4", "evaluation.likelihood={steps: 2}")
    others = [Retrained(name, run / "rows" / name / "model", seed=1) for name in ("do-nothing", "obtuse")]
    bench = replace(bench, retrained=tuple(others))
    return Subject("unseen", msgm.ScoreModel.load(made.path / "model"), bench, run=made)


@cache
def prompted():
    """What an attack by prompts is given: a model that shows digits by their words, three and seven to be forgotten."""
    return Subject("prompted", painter(), captioned_bench())


def published(folder, monkeypatch):
    """Let torchvision find an item or two of each published data set in ``folder``."""

    def found(shape, of):
        part = {of: [0, 1], "classes": ["0 - zero", "1 - one"]}
        return lambda root, download, **_: SimpleNamespace(data=np.zeros(shape, dtype=np.uint8), **part)

    def grey(root, download, train):
        return SimpleNamespace(data=torch.zeros(2, 28, 28, dtype=torch.uint8), targets=[0, 1], classes=["0", "1"])

    for name in ("MNIST", "FashionMNIST"):
        monkeypatch.setattr(datasets, name, grey)
    for name in ("CIFAR10", "CIFAR100"):
        monkeypatch.setattr(datasets, name, found((2, 32, 32, 3), "targets"))
    monkeypatch.setattr(datasets, "SVHN", found((2, 3, 32, 32), "labels"))
    monkeypatch.setattr(datasets, "STL10", found((2, 3, 96, 96), "labels"))
    faces = folder / "celeba"
    (faces / "img_align_celeba").mkdir(parents=True)
    Image.new("RGB", (178, 218)).save(faces / "img_align_celeba" / "000001.jpg")
    (faces / "list_eval_partition.txt").write_text("000001.jpg 0\n")
    told = {"filename": ["000001.jpg"], "attr_names": ["Smiling", ""], "attr": torch.ones(1, 2)}
    celeba = SimpleNamespace(root=folder, base_folder="celeba", **told)
    monkeypatch.setattr(datasets, "CelebA", lambda root, download, **_: celeba)


@cache
def likes():
    """Who likes what, when, and what plan each is on."""
    matrix = csr_array(random_array((60, 30), density=0.3, rng=np.random.default_rng(0)))
    deletion = Deletion(users=np.array([3]))
    return {"matrix": matrix, "deletion": deletion, "times": np.arange(matrix.nnz), "plans": np.array(["a", "b"] * 30)}


@cache
def recommended():
    """What a metric of recommenders is given: a model that forgot users and cells, and two retrained ones."""
    data = Synthetic(users=120, items=60, interactions=3600, feedback="explicit").load()
    split = PerUser().split(data)
    deletion = Deletion(users=np.array([0, 1]), cells=cells_deletion(split.train, share=0.1).cells)
    promoted = np.arange(60) == np.bincount(deletion.cells[:, 1]).argmax()
    original = msgm.recommender.MF(factors=8).fit(split.train)
    target, *retrains = (copy.deepcopy(original) for _ in range(3))
    target.forget(deletion)
    for seed, model in enumerate(retrains, start=1):
        model.seed = seed
        model.refit(deletion)
    return RecommenderCase(target, original, retrains, deletion, split, replace(data, tags={"promoted": promoted}))


def rated(folder):
    """Write a few cells in the form of each published data set of ratings."""
    cells = [(1, 1, 5, 100), (1, 2, 3, 200), (2, 1, 4, 300)]
    files = {"ml-100k/u.data": "\t", "ml-1m/ratings.dat": "::", "films.inter": "\t"}
    for name, delimiter in files.items():
        (folder / name).parent.mkdir(exist_ok=True)
        lines = ["user_id:token\titem_id:token\trating:float\ttimestamp:float"] if name == "films.inter" else []
        lines += [delimiter.join(map(str, cell)) for cell in cells]
        (folder / name).write_text("\n".join(lines) + "\n")
    (folder / "gowalla").mkdir()
    (folder / "gowalla" / "train.txt").write_text("0 0 1\n1 1 2\n")
    (folder / "gowalla" / "test.txt").write_text("0 2\n1 0\n")


@cache
def base():
    """A score model as examples name it."""
    return msgm.ScoreModel.new("unet", "vp", shape=(1, 8, 8), channels=[8])


def registered():
    """Return the classes of every registry of the package."""
    names = [found.name for found in walk_packages(msgm.__path__, "msgm.") if found.name != "msgm.__main__"]
    values = [value for name in names for value in vars(import_module(name)).values()]
    kept = [cls for value in values if isinstance(value, Registry) for cls in value.entries.values()]
    return [cls for cls in kept if cls.__module__.startswith("msgm.")]


def documented():
    """Return what the API reference shows of each module: the members named, its ``__all__``, or what it defines."""
    for page in sorted(REFERENCE.glob("*.md")):
        for name, members in SHOWN.findall(page.read_text()):
            module = import_module(name)
            own = [key for key, value in vars(module).items() if getattr(value, "__module__", None) == name]
            shown = members.split(", ") if members else getattr(module, "__all__", own)
            yield from (getattr(module, key) for key in shown if not key.startswith("_"))


def public():
    """Return home and name of every public class and function: the flat ones, the documented, what is registered."""
    homes = [(home, name) for name, home in msgm._HOME.items()]
    homes += [(module, name) for module in msgm._MODULES.values() for name in import_module(module).__all__]
    found = [getattr(import_module(module), name) for module, name in homes]
    found += [*documented(), *registered(), *OTHERS]
    shown = [thing for thing in found if inspect.isclass(thing) or inspect.isfunction(thing)]
    return sorted({(thing.__module__, thing.__name__) for thing in shown})


PLACES = public()


@pytest.mark.parametrize(("module", "name"), PLACES)
def test_public_classes_show_an_example(module, name):
    assert ">>>" in (vars(import_module(module))[name].__doc__ or ""), f"{module}.{name} shows no example"


@pytest.mark.parametrize(("module", "name"), PLACES)
def test_examples_run(module, name, report, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    published(tmp_path / "data", monkeypatch)
    rated(tmp_path / "data")
    home = vars(import_module(module))
    runner = doctest.DocTestRunner(optionflags=doctest.ELLIPSIS | doctest.NORMALIZE_WHITESPACE)
    shown = examples(module, name)
    compared = tmp_path / "compared"
    if any("compared" in example.source for test in shown for example in test.examples):
        shutil.copytree(report.run, compared)
    for test in shown:
        places = {"out": tmp_path, "compared": compared, "tiny": FAST, "subject": subject(report.run)}
        places["case"] = recommended() if module.startswith("msgm.recommender.metrics") else case()
        if any("prompted" in example.source for example in test.examples):
            places["prompted"] = prompted()
        test.globs = {**home, "msgm": msgm, "torch": torch, "base": base(), **places, **clouds(), **likes()}
        said = []
        runner.run(test, out=said.append)
        assert not said, "".join(said)
