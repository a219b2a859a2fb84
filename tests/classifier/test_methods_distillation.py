"""SCRUB with its rewinding, and Bad-T."""

import copy

import numpy as np
import pytest
import torch
from torch import nn

from msgm.classifier.data import Split
from msgm.classifier.methods import METHODS, Ledger
from msgm.classifier.methods.bad_teacher import target
from msgm.classifier.methods.distillation import divergence, frozen, soft
from msgm.classifier.methods.scrub import rewound
from msgm.errors import UserError
from tests.classifier.digits_world import digits
from tests.classifier.gradient_world import accuracy, blobs, run, same, settings_of, split_of, state, world

NAMES = ["scrub", "bad-teacher"]
CPU = torch.device("cpu")


@pytest.fixture(scope="module")
def small():
    return world()


def pointers(model: nn.Module) -> set[int]:
    return {value.untyped_storage().data_ptr() for value in model.state_dict().values()}


def test_the_teacher_shares_no_storage_stays_in_eval_mode_and_differs_from_a_student_that_moved(small):
    student = copy.deepcopy(small[0]).train()
    teacher = frozen(student)
    assert pointers(teacher).isdisjoint(pointers(student))
    assert not any(module.training for module in teacher.modules())
    assert student.training
    assert not any(value.requires_grad for value in teacher.parameters())
    x = small[1].retain.inputs(torch.arange(8))
    before = soft(teacher, x, 1.0)
    with torch.no_grad():
        next(student.parameters()).mul_(1.5)
    assert torch.equal(before, soft(teacher, x, 1.0))
    assert divergence(student.eval()(x), before, 1.0) > 1e-4


def test_the_divergence_is_a_mean_over_items_of_sums_over_classes():
    z, p = torch.tensor([[0.0, 1.0, -1.0], [2.0, 0.0, 0.5]]), torch.tensor([[0.2, 0.5, 0.3], [0.1, 0.0, 0.9]])
    expected = 0.0
    for row, probabilities in zip(z, p, strict=True):
        q = (row / 3).softmax(0)
        expected += sum(float(a * (a / b).log()) for a, b in zip(probabilities, q, strict=True) if a > 0) / 2
    assert divergence(z, p, 3.0).item() == pytest.approx(9 * expected, rel=1e-5)
    assert divergence(z, z.softmax(1), 1.0).item() == pytest.approx(0, abs=1e-6)


def test_bad_teachers_targets_are_the_bad_ones_on_forget_and_the_good_ones_on_retain():
    good, bad, x = nn.Linear(3, 4), nn.Linear(3, 4), torch.randn(5, 3, generator=torch.Generator().manual_seed(0))
    gone = torch.tensor([1, 0, 0, 1, 0])
    found = target(good, bad, x, gone, 2.0)
    for i in range(5):
        teacher = bad if gone[i] else good
        torch.testing.assert_close(found[i], (teacher(x[i]) / 2).softmax(0).detach())


def test_bad_teachers_mixture_holds_all_forget_items_and_the_share_of_retain_items(small):
    method, split = METHODS.build({"name": "bad-teacher", "retain_share": 0.25}), small[1]
    mixture = method._mixture(split, 3)
    gone = mixture.labels.bool().numpy()
    assert set(mixture.indices[gone]) == set(split.forget.indices)
    assert set(mixture.indices[~gone]) <= set(split.retain.indices)
    assert len(np.unique(mixture.indices[~gone])) == (~gone).sum() == round(len(split.retain) / 4)


class Guess(nn.Module):
    """Answers with one class everywhere: its error on a set is the share of the other classes."""

    def __init__(self) -> None:
        super().__init__()
        self.scores = nn.Parameter(torch.zeros(3))

    def forward(self, x):
        return self.scores.expand(len(x), 3)


def always(label: int) -> dict[str, torch.Tensor]:
    return {"scores": torch.eye(3)[label]}


def constructed(forget: list[int], unseen: list[int]) -> Split:
    """Return a split whose forget and tuning items have just these labels."""
    dataset = blobs(12, 12, 12)
    split = split_of(dataset, np.arange(36) == 3)
    items = split.retain.subset(np.arange(8))
    return Split(
        split.retain,
        items.subset(np.arange(len(forget))).relabelled(torch.tensor(forget)),
        items.subset(np.arange(len(unseen))).relabelled(torch.tensor(unseen)),
        split.nonmembers,
        split.test,
        split.classes,
    )


def picked(split: Split, *labels: int) -> dict:
    model = Guess()
    model.load_state_dict(always(labels[-1]))
    found = rewound(model, [always(label) for label in labels], split, CPU)
    assert torch.equal(model.scores, torch.eye(3)[labels[found["epoch"]]])
    return found


def test_rewinding_picks_the_epoch_whose_forget_error_is_closest_to_that_on_unseen_items():
    # Forget errors are .25, .75 and 1 for the answers 0, 1 and 2; the unseen items of the classes 0 and 1 are three
    # times 1 and once 0, those of class 2 do not count.
    split = constructed([0, 0, 0, 1], [1, 1, 1, 0, 2, 2])
    assert picked(split, 0, 2, 1) == {"epoch": 0, "forget_errors": [0.25, 1.0, 0.75], "unseen_error": 0.25}
    assert picked(split, 0, 1, 0)["epoch"] == 1
    assert picked(split, 2, 1, 0)["unseen_error"] == 0.75
    assert picked(split, 0, 1, 2)["epoch"] == 2


def test_rewinding_reads_all_unseen_items_where_none_has_a_forgotten_class_and_prefers_the_latest_of_equals():
    split = constructed([0, 0, 0, 1], [2, 2, 2, 2])
    assert picked(split, 0, 0, 2) == {"epoch": 1, "forget_errors": [0.25, 0.25, 1.0], "unseen_error": 0.0}


def test_scrub_without_rewinding_is_its_last_epoch_and_with_it_one_of_all(small):
    model, split = small
    last, back = run("scrub", model, split), run("scrub", model, split, rewind=True)
    assert last.artefacts == {}
    assert len(back.artefacts["forget_errors"]) == 11
    assert back.artefacts["forget_errors"][0] == 0
    if back.artefacts["epoch"] == 10:
        assert same(state(last.model), state(back.model))
    error = 1 - accuracy(back.model, split.forget)
    assert back.artefacts["forget_errors"][back.artefacts["epoch"]] == pytest.approx(error, abs=1e-6)


def test_scrub_counts_every_item_that_it_sees(small):
    model, split = small
    found = run("scrub", model, split, epochs=4, max_epochs=3, lr=0.01)
    assert found.cost.examples == 4 * len(split.retain) + 3 * len(split.forget)


@pytest.mark.parametrize("name", NAMES)
def test_a_class_of_digits_goes_and_the_others_stay(name):
    world = digits("class")
    found = METHODS.build({"name": name}).unlearn(*world)
    assert accuracy(found.model, world[1].forget) < 0.1
    assert accuracy(found.model, world[1].retain) > 0.97


def test_scrub_without_max_epochs_keeps_the_class():
    model, split, settings = digits("class")
    found = METHODS.build({"name": "scrub", "max_epochs": 0}).unlearn(model, split, settings)
    assert accuracy(found.model, split.forget) > 0.95


def test_the_bad_teacher_reads_the_scale_of_its_inputs_from_retain_items(small, monkeypatch):
    model, split = small
    seen = []
    monkeypatch.setattr("msgm.classifier.methods.bad_teacher.frozen", lambda m: seen.append(frozen(m)) or seen[-1])
    METHODS.build({"name": "bad-teacher"})._forget(
        copy.deepcopy(model), split, settings_of(), Ledger(torch.device("cpu"))
    )
    good, bad = seen
    assert same(state(good), state(model))
    x = split.retain.inputs(torch.arange(len(split.retain)))
    torch.testing.assert_close(bad[0].mean, x.mean(0))
    assert not torch.equal(bad[1].weight, good[1].weight)


@pytest.mark.parametrize(
    ("name", "key", "value"),
    [
        ("scrub", "epochs", 0),
        ("scrub", "lr", 0.0),
        ("scrub", "temperature", -1.0),
        ("scrub", "max_epochs", -1),
        ("scrub", "alpha", -0.1),
        ("scrub", "forget_batch_size", 0),
        ("bad-teacher", "retain_share", 0.0),
        ("bad-teacher", "retain_share", 1.5),
        ("bad-teacher", "temperature", 0.0),
    ],
)
def test_settings_out_of_range_are_refused_by_name_and_value(name, key, value):
    with pytest.raises(UserError, match=rf"methods\.{key} must .*{value}"):
        METHODS.build({"name": name, key: value})
