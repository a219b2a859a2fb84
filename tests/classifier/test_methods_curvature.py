"""SSD, Fisher forgetting and influence, against explicit loops and dense matrices."""

import copy

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import nn

from msgm.classifier.data import Split
from msgm.classifier.methods import METHODS
from msgm.classifier.methods.curvature import gauss_newton, mean_gradient, squared_gradients
from msgm.classifier.methods.fisher import SMALL, fisher_diagonal
from msgm.classifier.methods.ssd import batch_importance, importance
from msgm.classifier.networks import CNN, MLP, Linear
from msgm.classifier.training import TrainingSettings, logits
from msgm.curvature import add_to, conjugate_gradients, dampen, flatten, unflatten, weights_of
from msgm.errors import UserError
from msgm.seeding import generator
from tests.classifier.digits_world import digits, request, settings_for
from tests.classifier.gradient_world import accuracy, run, same, settings_of, state, world

NAMES = ["ssd", "fisher", "influence"]
MOVES = {"ssd": {"alpha": 1.5}}
CPU = torch.device("cpu")


@pytest.fixture(scope="module")
def small():
    return world()


def gradients(model: nn.Module, loss: torch.Tensor) -> dict[str, torch.Tensor]:
    weights = dict(model.named_parameters())
    return dict(zip(weights, torch.autograd.grad(loss, list(weights.values())), strict=True))


def assert_alike(one, other, **tolerances):
    assert one.keys() == other.keys()
    for name in one:
        torch.testing.assert_close(one[name], other[name], **tolerances)


def test_importance_per_item_is_the_mean_of_squared_gradients_one_by_one(small, monkeypatch):
    model, split = small
    monkeypatch.setattr("msgm.curvature.BATCH", 7)
    expected = {name: torch.zeros_like(value) for name, value in weights_of(model).items()}
    for x, y in split.forget.batches(1):
        for name, g in gradients(model, F.cross_entropy(model(x), y)).items():
            expected[name] += g**2 / len(split.forget)
    assert_alike(importance(model, split.forget, CPU), expected)


def test_importance_by_batches_squares_batch_means_and_so_depends_on_their_size(small):
    model, split = small
    expected = {name: torch.zeros_like(value) for name, value in weights_of(model).items()}
    for x, y in split.forget.batches(20):
        for name, g in gradients(model, F.cross_entropy(model(x), y)).items():
            expected[name] += g**2 / 2
    assert len(split.forget) == 28
    assert_alike(batch_importance(model, split.forget, 20, CPU), expected)
    assert_alike(batch_importance(model, split.forget, 1, CPU), importance(model, split.forget, CPU))


def test_selected_weights_shrink_by_the_formula_and_the_others_are_the_same_bits(small):
    model, split = copy.deepcopy(small[0]), small[1]
    forget, everything = importance(model, split.forget, CPU), importance(model, split.train, CPU)
    before = weights_of(copy.deepcopy(model))
    share = dampen(model, forget, everything, 2.0, 0.5)
    count = selected = 0
    for name, value in model.named_parameters():
        for new, old, f, d in zip(
            value.flatten().tolist(),
            before[name].flatten(),
            forget[name].flatten(),
            everything[name].flatten(),
            strict=True,
        ):
            chosen = bool(f > 2.0 * d)
            assert new == pytest.approx(float(old * min(0.5 * float(d / f), 1.0)) if chosen else float(old), rel=1e-6)
            assert chosen or new == float(old)
            count, selected = count + 1, selected + chosen
    assert 0 < selected < count
    assert share == selected / count


def test_dampening_never_lets_a_weight_grow(small):
    model = copy.deepcopy(small[0])
    ones = {name: torch.ones_like(value) for name, value in weights_of(model).items()}
    assert dampen(model, {name: 3 * value for name, value in ones.items()}, ones, 2.0, 9.0) == 1.0
    assert same(state(model), state(small[0]))


def test_ssd_that_selects_nothing_changes_nothing_and_warns(small):
    model, split = small
    limit = len(split.train) / len(split.forget)
    found = run("ssd", model, split, alpha=limit * 1.01)
    assert same(state(model), state(found.model))
    assert found.artefacts["selected_share"] == 0
    assert "only 0.0e+00 of the weights" in found.artefacts["warning"]
    assert "warning" not in run("ssd", model, split, alpha=1.5).artefacts


def test_ssd_counts_importances_of_all_data_as_preparation_and_storage(small):
    model, split = small
    found = run("ssd", model, split)
    assert found.cost.preparation_seconds > 0
    assert found.cost.storage_bytes == 4 * sum(value.numel() for value in model.parameters())
    assert found.cost.examples == len(split.forget)


def test_ssd_forgets_a_class_of_digits_and_next_to_nothing_of_random_items():
    for forget, low, high in (("class", 0.0, 0.1), (100, 0.95, 1.0)):
        model, split, settings = digits(forget)
        found = METHODS.build({"name": "ssd"}).unlearn(model, split, settings)
        assert low <= accuracy(found.model, split.forget) <= high
        assert accuracy(found.model, split.retain) > 0.98


def test_the_fisher_diagonal_is_the_expectation_over_classes_of_squared_gradients(small):
    model, split = small
    few = split.retain.subset(np.arange(0, len(split.retain), 9))
    expected = {name: torch.zeros_like(value) for name, value in weights_of(model).items()}
    for x, _ in few.batches(1):
        for label, p in enumerate(model(x).softmax(1)[0].tolist()):
            for name, g in gradients(model, model(x).log_softmax(1)[0, label]).items():
                expected[name] += p * g**2 / len(few)
    assert_alike(fisher_diagonal(model, few, CPU), expected)


def test_fisher_noise_has_the_standard_deviation_of_the_formula_and_no_row_of_the_head_is_wiped(small):
    model, split = small
    diagonal = flatten(fisher_diagonal(model, split.retain, CPU))
    spread = (1e-4 * (1 / (diagonal + SMALL)).clamp_max(1e3)).sqrt()
    noises = []
    for seed in range(20):
        found = run("fisher", model, split, settings_of(seed=seed), alpha=1e-4)
        noises.append((flatten(weights_of(found.model)) - flatten(weights_of(model))) / spread)
        assert (found.model[-1].weight.norm(dim=1) > 0.5 * model[-1].weight.norm(dim=1)).all()
    noise = torch.stack(noises)
    assert noise.mean().abs() < 4 / noise.numel() ** 0.5
    assert noise.std().item() == pytest.approx(1, abs=0.03)


def dense_gauss_newton(model: nn.Module, split: Split) -> torch.Tensor:
    """The mean of J^T (diag p - p p^T) J from Jacobians, item by item."""
    weights = list(model.parameters())
    total = 0
    for x, _ in split.retain.batches(1):
        z = model(x)[0]
        rows = [torch.cat([g.flatten() for g in torch.autograd.grad(o, weights, retain_graph=True)]) for o in z]
        jacobian, p = torch.stack(rows), z.softmax(0).detach()
        total = total + jacobian.T @ (p.diag() - torch.outer(p, p)) @ jacobian / len(split.retain)
    return total


def test_the_product_is_that_of_the_dense_gauss_newton_matrix(small, monkeypatch):
    model, split = small
    monkeypatch.setattr("msgm.classifier.methods.curvature.BATCH", 25)
    dense = dense_gauss_newton(model, split)
    vector = torch.randn(len(dense), generator=generator("v"))
    torch.testing.assert_close(gauss_newton(model, split.retain, CPU)(vector), dense @ vector, rtol=1e-3, atol=1e-4)


def test_for_a_linear_network_it_is_the_hessian():
    model, split = world()
    linear = nn.Sequential(model[0], nn.Linear(5, 4))
    shapes, x = weights_of(linear), split.retain.inputs(torch.arange(len(split.retain)))

    def loss(vector: torch.Tensor) -> torch.Tensor:
        return F.cross_entropy(torch.func.functional_call(linear, unflatten(vector, shapes), (x,)), split.retain.labels)

    start = flatten(shapes)
    vector = torch.randn(len(start), generator=generator("v"))
    hessian = torch.autograd.functional.hessian(loss, start)
    torch.testing.assert_close(gauss_newton(linear, split.retain, CPU)(vector), hessian @ vector, rtol=1e-3, atol=1e-5)
    torch.testing.assert_close(mean_gradient(linear, split.retain, CPU), torch.func.grad(loss)(start))


def test_conjugate_gradients_solve_a_dense_system_and_report_what_they_did():
    root = torch.randn(12, 12, generator=generator("root"), dtype=torch.float64)
    matrix, right = root @ root.T + torch.eye(12), torch.randn(12, generator=generator("right"), dtype=torch.float64)
    found, used, residual = conjugate_gradients(lambda v: matrix @ v, right, 200, 1e-10)
    torch.testing.assert_close(found, torch.linalg.solve(matrix, right))
    assert residual <= 1e-10
    assert 0 < used < 200
    short, used, residual = conjugate_gradients(lambda v: matrix @ v, right, 3, 1e-10)
    assert used == 3
    assert residual == pytest.approx(((right - matrix @ short).norm() / right.norm()).item(), rel=1e-6)
    zero, used, residual = conjugate_gradients(lambda v: matrix @ v, torch.zeros_like(right), 9, 1e-3)
    assert not zero.any()
    assert (used, residual) == (0, 0.0)


DECAY = 0.02


def optimum(model: nn.Module, examples) -> nn.Module:
    """Logistic regression at the minimum of the mean cross-entropy + DECAY / 2 |theta|^2, by L-BFGS."""
    model = copy.deepcopy(model).double()
    x, y = examples.inputs(torch.arange(len(examples))).double(), examples.labels
    optimiser = torch.optim.LBFGS(
        model.parameters(), max_iter=500, tolerance_grad=1e-10, tolerance_change=0, line_search_fn="strong_wolfe"
    )

    def closure() -> torch.Tensor:
        optimiser.zero_grad()
        penalty = sum(value.square().sum() for value in model.parameters())
        loss = F.cross_entropy(model(x), y) + DECAY / 2 * penalty
        loss.backward()
        return loss

    optimiser.step(closure)
    return model.float().eval()


def distance(one: nn.Module, other: nn.Module) -> float:
    return (flatten(weights_of(one)) - flatten(weights_of(other))).norm().item()


@pytest.mark.parametrize("forget", [20, "class"])
def test_influence_on_logistic_regression_reaches_the_retrained_optimum(forget):
    split = request(forget)
    settings = settings_for(Linear(), TrainingSettings(weight_decay=DECAY))
    original = optimum(settings.build(0), split.train)
    retrained = optimum(settings.build(1), split.retain)
    exact = {"name": "influence", "damping": 1e-7, "iterations": 300, "tolerance": 1e-5}
    one = METHODS.build(exact).unlearn(original, split, settings)
    many = METHODS.build(exact | {"steps": 5}).unlearn(original, split, settings)
    far = distance(original, retrained)
    assert far > 0.01
    assert distance(one.model, retrained) < (0.05 if forget == 20 else 0.35) * far
    assert distance(many.model, retrained) < 5e-3 * far
    assert one.artefacts["residual"] <= 1e-5
    assert one.cost.examples == len(split.train) + (2 + one.artefacts["iterations"]) * len(split.retain)


def test_influence_moves_by_the_request_alone_not_by_what_training_left_over():
    model, split, settings = digits(100)
    none = split.forget.subset(np.arange(0))
    nothing = Split(split.train, none, split.tuning, split.nonmembers, split.test, split.classes)
    found = METHODS.build({"name": "influence"}).unlearn(model, nothing, settings)
    assert mean_gradient(model, split.train, CPU).norm() > 1e-3
    assert distance(found.model, model) < 1e-6


def test_influence_reads_the_curvature_of_as_many_items_as_told(small):
    model, split = small
    found = run("influence", model, split, items=10, iterations=4, tolerance=1e-9)
    expected = len(split.train) + len(split.retain) + (4 + 1) * 10  # One product more gives the residual.
    assert found.cost.examples == expected
    assert run("influence", model, split, items=10**6).artefacts == run("influence", model, split).artefacts


@pytest.mark.parametrize("name", NAMES)
def test_convolutions_with_normalisation_are_read_in_eval_mode_and_stay_finite(name):
    split, settings = request(3), settings_for(CNN(2))
    model = settings.build(0)
    retain = split.retain.subset(np.arange(30))
    few = Split(retain, split.forget, split.tuning, split.nonmembers, split.test, split.classes)
    found = METHODS.build({"name": name}).unlearn(model, few, settings)
    assert torch.isfinite(logits(found.model, split.tuning)).all()
    for key, value in model.named_buffers():
        assert torch.equal(value, dict(found.model.named_buffers())[key])


def test_weights_go_flat_and_back():
    model = MLP([3]).build((2,), 2)
    weights = weights_of(model)
    assert_alike(unflatten(flatten(weights), weights), weights)
    vector = torch.arange(float(len(flatten(weights))))
    before = flatten(weights).clone()
    add_to(weights_of(model), vector)
    torch.testing.assert_close(flatten(weights_of(model)), before + vector)


def test_shares_weigh_the_squared_gradients(small):
    model, split = small
    x, y = next(split.retain.batches(6))
    each = [squared_gradients(model, x[i : i + 1], y[i : i + 1], torch.ones(1)) for i in range(6)]
    shares = torch.tensor([0.5, 0.0, 2.0, 1.0, 0.1, 3.0])
    expected = {name: sum(float(s) * e[name] for s, e in zip(shares, each, strict=True)) for name in each[0]}
    assert_alike(squared_gradients(model, x, y, shares), expected)


@pytest.mark.parametrize(
    ("name", "key", "value"),
    [
        ("ssd", "alpha", 0.0),
        ("ssd", "dampening", -1.0),
        ("ssd", "batch_size", 0),
        ("fisher", "alpha", 0.0),
        ("fisher", "cap", -2.0),
        ("influence", "damping", 0.0),
        ("influence", "steps", 0),
        ("influence", "iterations", 0),
        ("influence", "tolerance", 0.0),
        ("influence", "items", 0),
    ],
)
def test_settings_out_of_range_are_refused_by_name_and_value(name, key, value):
    with pytest.raises(UserError, match=rf"methods\.{key} must .*{value}"):
        METHODS.build({"name": name, key: value})
