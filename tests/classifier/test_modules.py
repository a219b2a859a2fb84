"""``method.forget`` on any torch module and any labelled torch Dataset."""

from dataclasses import dataclass

import numpy as np
import pytest
import torch
from torch import nn
from torch.utils.data import Dataset, IterableDataset, Subset, TensorDataset

import msgm
from msgm.classifier.methods import METHODS, Card, Method
from msgm.classifier.modules import asked, fresh_weights, read_labelled
from msgm.classifier.training import TrainingSettings, fit
from msgm.data import load_dataset
from msgm.errors import UserError
from tests.classifier.gradient_world import same, state

LABELS = torch.arange(200) % 4
ITEMS = 4 * torch.eye(4)[LABELS] + torch.randn(200, 4, generator=torch.Generator().manual_seed(0))
DATA, UNSEEN = TensorDataset(ITEMS[:160], LABELS[:160]), TensorDataset(ITEMS[160:], LABELS[160:])
BUILD = fresh_weights(nn.Sequential(nn.Linear(4, 12), nn.BatchNorm1d(12), nn.ReLU(), nn.Dropout(0.1), nn.Linear(12, 4)))
TRAINING = TrainingSettings(epochs=10, batch_size=16)
SETTINGS = {"forsaken": {"steps": 5}, "newton-certified": {"head_only": True}, "sisa": {"shards": 2}}
CLASS = msgm.ForgetRequest(labels=["3"])


@pytest.fixture(scope="module")
def module():
    return fit(BUILD(0), asked(BUILD(0), DATA, CLASS).train, TRAINING, 0)


def right(model, label):
    x, y = DATA.tensors
    with torch.no_grad():
        return float((model(x).argmax(1) == y)[y == label].float().mean())


@pytest.mark.parametrize("name", METHODS.entries)
def test_every_method_forgets_on_a_module_and_a_dataset(module, name):
    method, before = METHODS.build({"name": name, **SETTINGS.get(name, {})}), state(module)
    made = method.forget(module, DATA, CLASS, UNSEEN, TRAINING, BUILD)
    assert same(before, state(module))
    assert made is not module
    x, _ = UNSEEN.tensors
    assert made(x).shape == (40, 4)
    assert made(x).isfinite().all()


def test_a_class_goes_and_the_others_stay(module):
    made = msgm.classifier.Retrain().forget(module, DATA, CLASS, training=TRAINING)
    assert right(module, 3) > 0.9
    assert right(made, 3) == 0
    assert min(right(made, k) for k in range(3)) > 0.9


def test_an_answer_is_that_of_the_same_split(module):
    method = msgm.classifier.NegGrad(epochs=1)
    split = asked(module, DATA, {"indices": [3, 7]})
    settings = msgm.classifier.methods.Settings(TRAINING, 5, torch.device("cpu"), BUILD, 0)
    made = method.forget(module, DATA, {"indices": [3, 7]}, training=TRAINING, build=BUILD, seed=5)
    assert same(state(made), state(method.unlearn(module, split, settings).model))


def test_the_split_is_what_the_request_says(module):
    split = asked(module, DATA, msgm.ForgetRequest(indices=[3, 7]), UNSEEN)
    assert split.scope == "instances"
    assert asked(module, DATA, CLASS).scope == "class"
    assert split.forget.indices.tolist() == [3, 7]
    assert torch.equal(split.forget.inputs(np.arange(2)), ITEMS[[3, 7]])
    assert len(split.retain) == 158
    assert torch.equal(split.tuning.inputs(np.arange(40)), ITEMS[160:])
    assert split.classes == ["0", "1", "2", "3"]


class Pictures(Dataset):
    """Arrays with names of classes, as torchvision's data sets have."""

    classes = ("cat", "dog", "hen", "emu")

    def __len__(self):
        return 8

    def __getitem__(self, index):
        return np.full((1, 2, 2), index, dtype=np.uint8), index % 4


def test_names_of_classes_and_arrays_are_read():
    flat = nn.Sequential(nn.Flatten(), nn.Linear(4, 4))
    data = read_labelled(Pictures(), flat)
    assert (data.shape, data.classes, data.items.dtype) == ((1, 2, 2), ["cat", "dog", "hen", "emu"], torch.float32)
    split = asked(flat, Pictures(), {"labels": ["emu"]})
    assert split.forget.indices.tolist() == [3, 7]


def test_a_data_set_of_msgm_is_taken_as_it_is():
    digits = load_dataset("digits")
    flat = nn.Sequential(nn.Flatten(), nn.Linear(64, 10))
    split = asked(flat, digits, {"labels": [3]})
    assert split.forget.dataset is digits
    assert split.scope == "class"


def test_part_of_a_data_set_is_a_data_set(module):
    split = asked(module, Subset(DATA, range(50)), {"indices": [0]})
    assert len(split.retain) == 49


class Stream(IterableDataset):
    def __iter__(self):
        yield torch.zeros(4), 0


class Items(Dataset):
    def __init__(self, *items):
        self.items = items

    def __len__(self):
        return len(self.items)

    def __getitem__(self, index):
        return self.items[index]


@pytest.mark.parametrize(
    ("data", "sentence"),
    [
        (Stream(), "Stream has no length"),
        (Items(), "it has no item"),
        (Items(torch.zeros(4)), r"item 0 is no pair \(input, class number\)"),
        (Items(("a picture", 0)), "the input of item 0 is a str; expected a tensor or an array"),
        (Items((torch.zeros(4), "cat")), "item 0 has the class 'cat'; expected a whole number"),
        (Items((torch.zeros(4), 1.5)), "item 0 has the class 1.5; expected a whole number"),
        (Items((torch.zeros(4), 0), (torch.zeros(5), 0)), r"item 1 has shape \(5,\), item 0 has \(4,\)"),
        (Items((torch.zeros(4), 0), (torch.zeros(4), 4)), "item 1 is of class 4; the module has outputs 0 to 3"),
        (Items((torch.zeros(4), -1)), "item 0 is of class -1"),
        (Items((torch.zeros(9), 0)), "the model cannot read inputs of shape 9"),
    ],
)
def test_data_that_cannot_be_read_are_refused(module, data, sentence):
    with pytest.raises(UserError, match=sentence):
        asked(module, data, {"indices": [0]})


def test_a_module_without_one_number_a_class_is_refused():
    with pytest.raises(UserError, match=r"puts out \(2, 4\) for an item; expected one number for each class"):
        asked(nn.Linear(4, 4), Items((torch.zeros(2, 4), 0)), {"indices": [0]})


@pytest.mark.parametrize(
    ("request_", "sentence"),
    [
        ({"labels": ["0", "1", "2"]}, "leaves items of 1 class only"),
        ({"labels": ["7"]}, "7"),
        ({"lables": [1]}, "request.lables: unknown setting.*Did you mean 'labels'"),
    ],
)
def test_requests_that_cannot_be_answered_are_refused(module, request_, sentence):
    with pytest.raises(UserError, match=sentence):
        msgm.classifier.FineTune().forget(module, DATA, request_)


@pytest.mark.parametrize(
    "method", [msgm.classifier.Sisa(), msgm.classifier.Forsaken(), msgm.classifier.Scrub(rewind=True)]
)
def test_methods_that_read_held_out_items_ask_for_them(module, method):
    with pytest.raises(UserError, match=f"held_out: {method.name} reads items that the module was not trained on"):
        method.forget(module, DATA, CLASS)


def test_fresh_weights_come_from_the_seed_alone_and_share_none(module):
    before = torch.get_rng_state()
    one, again, other = (fresh_weights(module)(seed) for seed in (1, 1, 2))
    assert torch.equal(before, torch.get_rng_state())
    assert same(state(one), state(again))
    assert not same(state(one), state(other))
    assert not torch.equal(one[0].weight, module[0].weight)
    assert not one[1].running_mean.any()


class Token(nn.Module):
    def __init__(self):
        super().__init__()
        self.token, self.head = nn.Parameter(torch.randn(4)), nn.Linear(4, 4)

    def forward(self, x):
        return self.head(x + self.token)


def test_weights_that_cannot_be_drawn_anew_ask_for_build():
    with pytest.raises(UserError, match="build: the weights of the module, a Token, cannot be drawn anew.*give build"):
        msgm.classifier.Retrain().forget(Token(), DATA, CLASS)
    made = msgm.classifier.Retrain().forget(Token(), DATA, CLASS, build=lambda seed: Token())
    assert made(ITEMS).isfinite().all()


def test_a_plugin_written_for_0_2_still_works(module):
    with pytest.warns(DeprecationWarning, match="Old.forget is named _forget since msgm 0.3"):

        @dataclass(frozen=True)
        class Old(Method):
            name = "old"
            card = Card("theta / 2", source="a test", needs=(), family="edit")

            def forget(self, model, split, settings, ledger):
                with torch.no_grad():
                    model[0].weight.mul_(0.5)
                return model

    made = Old().forget(module, DATA, CLASS)
    assert torch.equal(made[0].weight, module[0].weight / 2)


def test_a_request_that_means_a_condition_is_refused(module):
    with pytest.raises(UserError, match="^request.means: 'condition' is said to class-conditional generators"):
        asked(module, DATA, {"labels": [3], "means": "condition"})
