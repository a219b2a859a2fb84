"""Amnesiac unlearning and certified Newton removal: updates by hand, residuals, and what is refused."""

import json
from dataclasses import replace

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from scipy.special import expit
from torch import nn

from msgm.classifier.data import Split
from msgm.classifier.methods import METHODS
from msgm.classifier.methods.newton_certified import BEND, Problem, features_are_blind
from msgm.classifier.networks import MLP, Linear
from msgm.classifier.training import TrainingSettings, fit, logits
from msgm.errors import UserError
from msgm.seeding import generator
from tests.classifier.digits_world import digits, settings_for
from tests.classifier.gradient_world import accuracy, blobs, settings_of, split_of

SHORT = TrainingSettings(lr=0.05, momentum=0.9, weight_decay=0.01, epochs=2, batch_size=16, schedule="cosine")


def linear(seed: int) -> nn.Module:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return nn.Sequential(nn.Linear(5, 4))


@pytest.fixture(scope="module")
def original():
    """A model trained from seed 0 on blobs, the request for two items, and the settings."""
    dataset = blobs(20, 20, 20, 20)
    split = split_of(dataset, np.isin(np.arange(80), [30, 40]))
    return fit(linear(0), split.train, SHORT, 0), split, settings_of(SHORT, build=linear)


def updates_by_hand(split: Split) -> list[tuple[np.ndarray, torch.Tensor, torch.Tensor]]:
    """Train as ``SHORT`` says with the arithmetic of SGD written out: (items, weight update, bias update) a step."""
    model = linear(0)[0]
    weight, bias = model.weight.detach().clone(), model.bias.detach().clone()
    speed, found = [torch.zeros_like(weight), torch.zeros_like(bias)], []
    orders = [torch.randperm(len(split.train), generator=generator(0, "order", epoch)) for epoch in range(2)]
    batches = [batch for order in orders for batch in order.split(16)]
    for number, batch in enumerate(batches):
        x, y = split.train.inputs(batch), F.one_hot(split.train.labels[batch], 4)
        error = ((x @ weight.T + bias).softmax(1) - y) / len(batch)
        rate = 0.5 * 0.05 * (1 + np.cos(np.pi * number / len(batches)))
        speed[0] = 0.9 * speed[0] + error.T @ x + 0.01 * weight
        speed[1] = 0.9 * speed[1] + error.sum(0) + 0.01 * bias
        weight, bias = weight - rate * speed[0], bias - rate * speed[1]
        found.append((split.train.indices[batch.numpy()], -rate * speed[0], -rate * speed[1]))
    return found


def test_amnesiac_subtracts_the_updates_of_the_batches_that_held_forget_items(original):
    model, split, settings = original
    found = METHODS.build({"name": "amnesiac", "repair_epochs": 0}).unlearn(model, split, settings)
    weight, bias, touched = model[0].weight.detach().clone(), model[0].bias.detach().clone(), 0
    steps = updates_by_hand(split)
    for items, weight_update, bias_update in steps:
        if np.isin(items, [30, 40]).any():
            weight, bias, touched = weight - weight_update, bias - bias_update, touched + 1
    assert 0 < touched < len(steps)
    torch.testing.assert_close(found.model[0].weight.detach(), weight, rtol=1e-4, atol=1e-6)
    torch.testing.assert_close(found.model[0].bias.detach(), bias, rtol=1e-4, atol=1e-6)
    assert found.artefacts == {"updates_subtracted": touched, "updates_share": touched / len(steps)}
    assert found.cost.storage_bytes == touched * 4 * 24
    assert found.cost.preparation_seconds > 0
    assert found.cost.examples == 0


def test_amnesiac_repairs_on_the_retain_set(original):
    model, split, settings = original
    raw = METHODS.build({"name": "amnesiac", "repair_epochs": 0}).unlearn(model, split, settings)
    repaired = METHODS.build({"name": "amnesiac", "repair_epochs": 5}).unlearn(model, split, settings)
    before, after = (
        F.cross_entropy(logits(found.model, split.retain), split.retain.labels) for found in (raw, repaired)
    )
    assert after < 0.5 * before
    assert repaired.cost.examples == 5 * len(split.retain)


def test_amnesiac_that_subtracts_every_update_is_back_at_the_initial_weights(original):
    model, split, settings = original
    all_but_two = Split(
        split.retain.subset(np.arange(2)),
        split.train.subset(np.flatnonzero(~np.isin(split.train.indices, split.retain.indices[:2]))),
        split.tuning,
        split.nonmembers,
        split.test,
        split.classes,
    )
    found = METHODS.build({"name": "amnesiac", "repair_epochs": 0}).unlearn(model, all_but_two, settings)
    assert found.artefacts["updates_share"] == 1
    torch.testing.assert_close(found.model[0].weight, linear(0)[0].weight, rtol=1e-4, atol=1e-6)


def test_amnesiac_refuses_a_model_that_the_replay_does_not_give(original):
    model, split, settings = original
    method = METHODS.build({"name": "amnesiac"})
    with pytest.raises(UserError, match="training anew from seed 1 does not give this model"):
        method.unlearn(model, split, replace(settings, original_seed=1))
    with pytest.raises(UserError, match="does not give this model"):
        method.unlearn(model, split, replace(settings, training=replace(SHORT, lr=0.06)))
    moved = linear(0)
    moved.load_state_dict(model.state_dict())
    with torch.no_grad():
        moved[0].bias[0] = torch.nextafter(moved[0].bias[0], torch.tensor(9.0))
    with pytest.raises(UserError, match="does not give this model"):
        method.unlearn(moved, split, settings)


REMOVE = {"name": "newton-certified"}


@pytest.fixture(scope="module")
def head():
    return digits(20, Linear())


def problem(items: int = 30, seed: int = 0, penalty: float = 0.1) -> Problem:
    draws = np.random.default_rng(seed)
    y = np.where(draws.random((items, 2)) < 0.5, 1.0, -1.0)
    return Problem(draws.normal(size=(items, 3)), y, draws.normal(size=(2, 3)), penalty)


def test_gradient_and_newton_step_are_the_derivatives_of_the_loss():
    made = problem()
    weights = np.random.default_rng(1).normal(size=(2, 3))
    x, y, noise = (torch.from_numpy(a) for a in (made.x, made.y, made.noise))

    def loss(w: torch.Tensor, k: int) -> torch.Tensor:
        return F.softplus(-y[:, k] * (x @ w)).sum() + 0.1 * 30 / 2 * w.square().sum() + (noise[k] * w).sum()

    for k, w in enumerate(torch.from_numpy(weights)):
        gradient, hessian = torch.func.grad(loss)(w, k), torch.func.hessian(loss)(w, k)
        assert made.loss(weights)[k] == pytest.approx(loss(w, k).item())
        np.testing.assert_allclose(made.gradient(weights)[k], gradient, rtol=1e-9)
        np.testing.assert_allclose(made.newton(weights)[k], -torch.linalg.solve(hessian, gradient), rtol=1e-8)


def test_training_ends_at_the_minimum_from_far_as_well():
    made = replace(problem(penalty=1e-3), noise=20 * problem().noise)
    weights = made.minimum()
    assert made.residual(weights) < 1e-7
    draws = np.random.default_rng(2)
    assert all((made.loss(weights + 0.01 * draws.normal(size=(2, 3))) > made.loss(weights)).all() for _ in range(20))


def test_the_constant_of_the_bound_is_the_largest_third_derivative_of_the_logistic_loss():
    s = np.linspace(-8, 8, 200001)
    p = expit(s)
    assert np.abs(p * (1 - p) * (1 - 2 * p)).max() == pytest.approx(BEND, rel=1e-8)


@pytest.mark.parametrize("removed", [1, 5, 20])
@pytest.mark.parametrize("seed", range(5))
def test_the_residual_after_removal_lies_below_its_bound(removed, seed):
    whole = problem(60, seed, penalty=0.02)
    left = replace(whole, x=whole.x[removed:], y=whole.y[removed:])
    weights = whole.minimum()
    steps = left.newton(weights)
    assert 0 < left.residual(weights + steps) <= left.bound(steps)
    assert left.residual(weights + steps) < 0.5 * left.residual(weights)


def test_removal_comes_close_to_the_head_trained_without_the_items(head):
    model, split, settings = head
    found = METHODS.build(REMOVE).unlearn(model, split, settings)
    method = METHODS.build(REMOVE)
    trained = Problem.of(model, split.train, settings, method)
    again = Problem.of(model, split.retain, settings, method, trained.noise).minimum()
    layer = found.model[-1]
    got = np.concatenate([layer.weight.detach().numpy(), layer.bias.detach().numpy()[:, None]], 1)
    assert np.abs(got - again).max() < 0.02 * np.abs(trained.minimum() - again).max()


def test_the_certificate_is_in_the_artefacts_and_follows_the_theorem(head):
    model, split, settings = head
    found = METHODS.build(REMOVE | {"sigma": 10.0, "delta": 1e-3}).unlearn(model, split, settings).artefacts
    assert found["residual"] <= found["residual_bound"]
    assert found["epsilon"] == pytest.approx(found["residual_bound"] * np.sqrt(2 * np.log(1.5 / 1e-3)) / 10)
    assert (found["proved"], found["delta"]) == (True, 1e-3)
    assert found["covers"] == "the whole model, which is its head"
    json.dumps(found)


def test_epsilon_is_positive_and_falls_with_sigma_and_with_the_penalty(head):
    model, split, settings = head

    def epsilon(**values: float) -> float:
        return METHODS.build(REMOVE | values).unlearn(model, split, settings).artefacts["epsilon"]

    by_sigma = [epsilon(sigma=sigma) for sigma in (0.5, 2.0, 8.0)]
    assert by_sigma[0] > by_sigma[1] > by_sigma[2] > 0
    assert epsilon(penalty=0.01) > epsilon(penalty=0.1)


def test_above_epsilon_one_nothing_is_certified(head):
    model, split, settings = head
    found = METHODS.build(REMOVE | {"sigma": 0.01}).unlearn(model, split, settings).artefacts
    assert found["epsilon"] > 1
    assert found["proved"] is False
    assert found["covers"] == "nothing: epsilon above 1"


def test_features_that_saw_the_items_are_refused_or_named_as_uncertified():
    model, split, settings = digits(20, MLP([8]))
    with pytest.raises(UserError, match="this network's features were fitted to the items"):
        METHODS.build(REMOVE).unlearn(model, split, settings)
    found = METHODS.build(REMOVE | {"head_only": True, "sigma": 100.0}).unlearn(model, split, settings)
    assert found.artefacts["proved"] is False
    assert found.artefacts["covers"].startswith("nothing: the features were fitted")
    assert torch.equal(found.model[2].weight, model[2].weight)
    assert not torch.equal(found.model[-1].weight, model[-1].weight)


def test_a_linear_network_whose_inputs_were_standardised_by_the_data_is_not_blind():
    dataset = blobs(20, 20, 20)
    split = split_of(dataset, np.arange(60) == 30)
    settings = settings_of(SHORT, build=lambda seed: Linear().build((5,), 3))
    model = fit(settings.build(0), split.train, SHORT, 0)
    assert not features_are_blind(model, settings)
    with pytest.raises(UserError, match="features were fitted"):
        METHODS.build(REMOVE).unlearn(model, split, settings)
    assert features_are_blind(settings_for(Linear()).build(0), settings_for(Linear()))


def test_a_head_without_bias_is_refused(original):
    split = original[1]
    bare = nn.Sequential(nn.Linear(5, 4, bias=False))
    with pytest.raises(UserError, match="head has no bias"):
        METHODS.build(REMOVE).unlearn(bare, split, settings_of(SHORT, build=lambda seed: bare))


def test_a_removed_class_is_no_longer_predicted():
    model, split, settings = digits("class", Linear())
    found = METHODS.build(REMOVE).unlearn(model, split, settings)
    assert accuracy(model, split.forget) > 0.9
    assert accuracy(found.model, split.forget) < 0.05
    assert accuracy(found.model, split.retain) > 0.85
    assert torch.isfinite(logits(found.model, split.test)).all()


@pytest.mark.parametrize(
    ("name", "key", "value"),
    [
        ("amnesiac", "repair_epochs", -1),
        ("amnesiac", "repair_lr", 0.0),
        ("newton-certified", "sigma", 0.0),
        ("newton-certified", "penalty", -1.0),
        ("newton-certified", "delta", 0.0),
        ("newton-certified", "delta", 1.0),
    ],
)
def test_settings_out_of_range_are_refused_by_name_and_value(name, key, value):
    with pytest.raises(UserError, match=rf"methods\.{key} must .*{value}"):
        METHODS.build({"name": name, key: value})
