"""What every method reads: the parts of the data that its card names, and never those that attacks and reports use."""

from dataclasses import replace

import numpy as np
import pytest
import torch

from msgm.classifier.data import Examples
from msgm.classifier.methods import METHODS
from tests.classifier.gradient_world import run, same, state, world

SETTINGS = {
    "forsaken": {"steps": 3},
    "newton-certified": {"head_only": True},
    "scrub": {"rewind": True, "epochs": 2},
    "sisa": {"shards": 2},
}


@pytest.fixture(scope="module")
def small():
    return world()


@pytest.mark.parametrize("name", METHODS.entries)
def test_attack_and_test_items_decide_nothing_and_the_card_names_what_is_read(small, name):
    model, split = small
    unreadable = Examples(split.retain.dataset, np.array([10**9]), torch.tensor([0]))
    with pytest.raises(IndexError):
        unreadable.inputs(np.array([0]))
    hidden = {
        part: unreadable for part in ("nonmembers", "test", "tuning") if part not in METHODS.entries[name].card.needs
    }
    assert {"nonmembers", "test"} <= hidden.keys()
    found = run(name, model, replace(split, **hidden), **SETTINGS.get(name, {}))
    plain = run(name, model, split, **SETTINGS.get(name, {}))
    assert same(state(found.model), state(plain.model))
