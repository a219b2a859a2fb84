"""What every gradient-based method keeps to, and how each behaves on digits."""

import numpy as np
import pytest
import torch

from msgm.classifier.data import Shares, held_out, split_by
from msgm.classifier.methods import METHODS, Settings
from msgm.classifier.networks import MLP, build
from msgm.classifier.training import TrainingSettings, fit, logits
from msgm.data import load_dataset
from msgm.errors import UserError
from tests.classifier.gradient_world import NAMES, accuracy, run, same, settings_of, state, world


@pytest.fixture(scope="module")
def small():
    return world()


DRAWING = [*NAMES, "scrub", "bad-teacher", "amnesiac", "fisher", "retrain", "sisa"]
"""Methods whose answer depends on a seed; that nothing else decides it is the battery's to check."""


@pytest.mark.parametrize("name", DRAWING)
def test_another_seed_gives_another_answer(small, name):
    model, split = small
    one, other = (run(name, model, split, settings_of(seed=seed)) for seed in (1, 2))
    assert not same(state(one.model), state(other.model))


COUNTS = {
    "finetune": lambda r, f: 3 * r,
    "neggrad": lambda r, f: 3 * f,
    "random-label": lambda r, f: 3 * (r + f),
    "salun": lambda r, f: 3 * (r + f) + f,
    "l1-sparse": lambda r, f: 3 * r,
    "boundary-shrink": lambda r, f: 4 * f,
    "boundary-expand": lambda r, f: 3 * f,
    "cf-k": lambda r, f: 3 * r,
    "eu-k": lambda r, f: 3 * r,
    "task-vector": lambda r, f: 3 * f,
}


@pytest.mark.parametrize("name", COUNTS)
def test_items_that_a_method_passes_are_counted(small, name):
    model, split = small
    found = run(name, model, split, epochs=3)
    assert found.cost.examples == COUNTS[name](len(split.retain), len(split.forget))


def test_neggrad_plus_pairs_every_retain_batch_with_a_forget_batch(small):
    _, split = small
    settings = settings_of()
    pairs = list(METHODS.build({"name": "neggrad-plus", "epochs": 2})._pairs(split, settings))
    assert sum(len(y) for _, y, _, _ in pairs) == 2 * len(split.retain)
    assert set(torch.cat([y for _, y, _, _ in pairs]).tolist()) == {0, 1, 2}
    assert set(torch.cat([y for _, _, _, y in pairs]).tolist()) == {3}
    seen = torch.cat([x for _, _, x, _ in pairs])
    assert len(seen.unique(dim=0)) == len(split.forget) < len(seen)


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"name": "finetune", "epochs": 0}, "methods.epochs must be at least 1, got 0"),
        ({"name": "finetune", "lr": 0.0}, "methods.lr must be a positive number, got 0.0"),
        ({"name": "neggrad", "ceiling": -1.0}, "methods.ceiling must be a positive number"),
        ({"name": "neggrad-plus", "alpha": 1.0}, "methods.alpha must lie between 0 and 1, got 1.0"),
        ({"name": "salun", "density": 0.0}, r"methods.density must lie in \(0, 1\], got 0.0"),
        ({"name": "salun", "mask_mode": "soft"}, "methods.mask_mode"),
        ({"name": "random-label", "order": "other"}, "methods.order"),
        ({"name": "l1-sparse", "alpha": -1.0}, "methods.alpha must be at least 0, got -1.0"),
        ({"name": "l1-sparse", "epochs": 3, "free_epochs": 3}, "methods.free_epochs must be below epochs 3, got 3"),
        ({"name": "boundary-shrink", "bound": 0.0}, "methods.bound must be a positive number"),
        ({"name": "cf-k", "k": 0}, "methods.k must be at least 1, got 0"),
        ({"name": "task-vector", "scale": -1.0}, "methods.scale must be at least 0, got -1.0"),
    ],
)
def test_settings_out_of_range_are_refused(values, message):
    with pytest.raises(UserError, match=message):
        METHODS.build(values)


# ---- digits --------------------------------------------------------------------------------------------------------

DIGITS = TrainingSettings(lr=0.1, epochs=20, batch_size=64, weight_decay=0)
CLASS_ACCURACY = {  # the highest share of a forgotten class still named, where the original names all of it
    "finetune": 0.95,
    "neggrad": 0.6,
    "neggrad-plus": 0.05,
    "random-label": 0.05,
    "salun": 0.05,
    "l1-sparse": 0.8,
    "boundary-shrink": 0.1,
    "boundary-expand": 0.2,
    "cf-k": 0.95,
    "eu-k": 0.0,
    "task-vector": 0.4,
}


@pytest.fixture(scope="module")
def digits():
    dataset = load_dataset("digits")
    parts = held_out(dataset, Shares(), 0)

    def fresh(seed):
        return build(MLP([64]), dataset.shape, 10, seed)

    drawn = np.zeros(len(dataset), dtype=bool)
    drawn[np.random.default_rng(0).choice(parts["train"], 100, replace=False)] = True
    by_class, by_item = split_by(dataset, parts, dataset.labels == 3), split_by(dataset, parts, drawn)
    model = fit(fresh(0), by_class.train, DIGITS, 0)
    return model, by_class, by_item, Settings(DIGITS, 50, torch.device("cpu"), fresh, 0)


@pytest.mark.parametrize("name", NAMES)
def test_a_class_is_forgotten_and_the_others_are_not(digits, name):
    model, split, _, settings = digits
    assert accuracy(model, split.forget) == 1
    found = run(name, model, split, settings)
    assert accuracy(found.model, split.forget) <= CLASS_ACCURACY[name]
    assert accuracy(found.model, split.retain) > 0.97


@pytest.mark.parametrize("name", [name for name in NAMES if not name.startswith("boundary")])
def test_forgetting_random_items_leaves_held_out_accuracy(digits, name):
    model, _, split, settings = digits
    found = run(name, model, split, settings)
    assert accuracy(found.model, split.tuning) > accuracy(model, split.tuning) - 0.04
    assert accuracy(found.model, split.retain) > 0.97


def test_methods_follow_the_optimiser_of_the_training():
    model, split = world()
    adam = settings_of(TrainingSettings(optimiser="adam", lr=0.01, batch_size=16, epochs=1))
    one, two = run("finetune", model, split, adam, lr=0.001), run("finetune", model, split, lr=0.001)
    assert not same(state(one.model), state(two.model))


def test_bf16_and_augmentation_are_the_trainings(digits):
    model, split, _, settings = digits
    half = TrainingSettings(lr=0.1, epochs=1, batch_size=64, weight_decay=0, precision="bf16", augment="crop-flip")
    changed = Settings(half, settings.seed, settings.device, settings.build, 0)
    one = run("finetune", model, split, settings, epochs=1)
    two = run("finetune", model, split, changed, epochs=1)
    assert not same(state(one.model), state(two.model))
    assert torch.isfinite(logits(two.model, split.test)).all()
