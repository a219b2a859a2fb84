"""Boundary shrink and expand, blocks with CF-k and EU-k, and task vectors."""

import copy

import pytest
import torch
import torchvision
from torch import nn

from msgm.classifier.methods.blocks import blocks
from msgm.classifier.methods.boundary_shrink import input_range, nearest_classes
from msgm.classifier.networks import CNN, MLP, Torchvision, build
from msgm.classifier.training import TrainingSettings
from msgm.data import load_dataset
from msgm.errors import UserError
from tests.classifier.gradient_world import accuracy, run, same, settings_of, split_of, state, world


@pytest.fixture(scope="module")
def small():
    return world()


# ---- boundaries ----------------------------------------------------------------------------------------------------


class Watching(nn.Module):
    """Remembers what it was shown."""

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.model, self.seen = model, []

    def forward(self, x):
        self.seen.append(x.detach().clone())
        return self.model(x)


@pytest.mark.parametrize("kind", ["vectors", "images"])
def test_the_adversarial_step_has_the_bounds_length_and_stays_in_range(small, kind):
    if kind == "vectors":
        model, split = small
    else:
        digits = load_dataset("digits")
        model, split = build(MLP([16]), digits.shape, 10, 0), split_of(digits, digits.labels == 3)
    low, high = input_range(split.train)
    if kind == "images":
        assert (float(low), float(high)) == (-1, 1)
    else:
        assert low.shape == high.shape == (5,)
    watching = Watching(copy.deepcopy(model))
    nearest_classes(watching, split, 0.1, settings_of(TrainingSettings(batch_size=10_000)))
    x, moved = watching.seen
    assert ((moved - x).abs() <= 0.1 * (high - low) * (1 + 1e-5) + 1e-6).all()
    assert ((moved >= low) & (moved <= high)).all()
    inside = (x > low + 0.11 * (high - low)) & (x < high - 0.11 * (high - low))
    step = (moved - x).abs() / (high - low)
    torch.testing.assert_close(step[inside], torch.full_like(step[inside], 0.1))


def test_items_get_the_retained_class_that_lies_nearest(small):
    """Three classes on a line: from the middle of the last one, the step leads to its neighbour and not beyond."""
    _, split = small
    linear = nn.Linear(5, 4)
    with torch.no_grad():
        linear.weight.zero_()
        linear.weight[:, 0] = torch.tensor([-3.0, -1.0, 1.0, 3.0])
        linear.bias.copy_(torch.tensor([-9.0, -1.0, -1.0, -9.0]))
    found = nearest_classes(linear, split, 0.05, settings_of())
    x = split.forget.inputs(torch.arange(len(split.forget)))[:, 0]
    assert 3 not in found
    assert (x > 1).sum() > 5
    assert (found[x > 1] == 2).all()


@pytest.mark.parametrize("name", ["boundary-shrink", "boundary-expand"])
def test_requests_for_single_items_are_refused(small, name):
    model, split = small
    items = split_of(split.retain.dataset, torch.arange(160).numpy() % 5 == 0)
    with pytest.raises(UserError, match=f"{name} forgets whole classes"):
        run(name, model, items)


def test_the_extra_node_is_dropped_and_the_class_goes(small):
    model, split = small
    found = run("boundary-expand", model, split, lr=0.01, epochs=20)
    assert {k: v.shape for k, v in found.model.state_dict().items()} == {
        k: v.shape for k, v in model.state_dict().items()
    }
    assert not any(module._forward_pre_hooks for module in found.model.modules())
    assert accuracy(found.model, split.forget) < 0.5


def test_a_network_whose_last_linear_layer_gives_no_logits_is_refused(small):
    _, split = small
    odd = nn.Sequential(nn.Linear(5, 8), nn.Unflatten(1, (4, 2)), nn.AvgPool1d(2), nn.Flatten())
    with pytest.raises(UserError, match="boundary-expand needs a last linear layer of 4 outputs"):
        run("boundary-expand", odd, split)


# ---- blocks --------------------------------------------------------------------------------------------------------


def kinds(model):
    return [[type(module).__name__ for module in block] for block in blocks(model)]


def test_blocks_of_the_networks_that_come_with_the_package():
    assert kinds(build(MLP([8, 4]), (1, 8, 8), 10, 0)) == [["Linear"]] * 3
    assert kinds(build(CNN(2), (1, 8, 8), 10, 0)) == [["Conv2d", "BatchNorm2d"]] * 3 + [["Linear"]]
    grey = build(Torchvision("resnet18"), (1, 32, 32), 10, 0)
    assert kinds(grey) == [["Conv2d", "BatchNorm2d"]] + [["BasicBlock"]] * 8 + [["Linear"]]
    assert kinds(nn.Linear(3, 2)) == [["Linear"]]


def test_every_weight_of_a_resnet_is_in_one_block():
    model = torchvision.models.resnet18()
    listed = [p for block in blocks(model) for p in block.parameters()]
    assert len(listed) == len(set(listed)) == len(list(model.parameters()))


@pytest.mark.parametrize("name", ["cf-k", "eu-k"])
@pytest.mark.parametrize(("k", "first"), [(1, 8), (2, 5)])
def test_blocks_before_the_last_k_are_bit_identical(small, name, k, first):
    model, split = small
    found = run(name, model, split, k=k)
    before, after = state(model), state(found.model)
    for key, value in before.items():
        frozen = int(key.split(".")[0]) < first
        assert torch.equal(value, after[key]) == frozen, key


def test_all_blocks_may_move(small):
    model, split = small
    after = state(run("cf-k", model, split, k=3).model)
    assert all(not torch.equal(value, after[key]) for key, value in model.named_parameters())
    with pytest.raises(UserError, match="methods.k must be at most 3"):
        run("cf-k", model, split, k=4)


def test_eu_k_starts_from_fresh_weights_in_every_tensor_of_the_last_k(small):
    model, split = small
    settings = settings_of(TrainingSettings(lr=0.05, momentum=0, weight_decay=0, batch_size=1000))
    found = run("eu-k", model, split, settings, k=2, epochs=1, lr=1e-12)
    last = {key: value for key, value in state(found.model).items() if int(key.split(".")[0]) >= 5}
    assert last
    assert all(not torch.equal(value, model.state_dict()[key]) for key, value in last.items())
    gain, shift = last["6.weight"], last["6.bias"]
    torch.testing.assert_close(gain, torch.ones_like(gain))
    torch.testing.assert_close(shift, torch.zeros_like(shift))
    assert last["6.num_batches_tracked"] == 1


def test_frozen_weights_of_the_users_stay_frozen(small):
    model, split = copy.deepcopy(small[0]), small[1]
    model[8].bias.requires_grad_(False)
    found = run("cf-k", model, split)
    assert torch.equal(found.model[8].bias, model[8].bias)
    assert not found.model[8].bias.requires_grad
    assert not torch.equal(found.model[8].weight, model[8].weight)


def test_eu_k_refuses_a_build_that_gives_the_trained_weights(small):
    model, split = small
    settings = settings_of(build=lambda seed: copy.deepcopy(model))
    with pytest.raises(UserError, match="re-initialisation left the weights"):
        run("eu-k", model, split, settings)


# ---- task vectors --------------------------------------------------------------------------------------------------


def test_scale_zero_is_the_identity(small):
    model, split = small
    assert same(state(model), state(run("task-vector", model, split, scale=0.0).model))


def test_the_move_is_the_scale_times_the_vector_and_buffers_stay(small):
    model, split = small
    one, three = (run("task-vector", model, split, scale=scale).model for scale in (1.0, 3.0))
    for p, q, r in zip(model.parameters(), one.parameters(), three.parameters(), strict=True):
        torch.testing.assert_close(r - p, 3 * (q - p), rtol=1e-4, atol=1e-5)
    assert all(torch.equal(value, state(one)[key]) for key, value in model.named_buffers())
