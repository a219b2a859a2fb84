import pytest
import torch

from msgm.diffusion import ScoreModel
from msgm.objectives import Drawn, mean_square
from msgm.objectives.edits import Influence
from msgm.objectives.edits.influence import gauss_newton, mean_gradient
from tests.objectives.edits.worlds import (
    FORGET_SHARE,
    AskedHead,
    Head,
    World,
    items_of,
    labelled,
    linear_model,
    loss,
    vector,
)

DAMPING = 0.05


def jacobian(values, weights):
    rows = [torch.autograd.grad(value, weights, retain_graph=True) for value in values]
    return torch.stack([torch.cat([part.flatten() for part in row]) for row in rows])


def fitted(world, share):
    """The weights of least share L_f + (1 - share) L_r + damping / 2 |theta|^2, by normal equations."""
    model = world.model
    weights = list(model.network.parameters())
    for weight in weights:
        weight.data.zero_()
    whole = share * loss(model, world.batches("forget")) + (1 - share) * loss(model, world.batches("retain"))
    first = torch.autograd.grad(whole, weights, create_graph=True)
    flat = torch.cat([g.flatten() for g in first])
    hessian = jacobian(flat, weights)
    solution = torch.linalg.solve(hessian + DAMPING * torch.eye(len(flat)), -flat.detach())
    for weight, part in zip(weights, solution.split([w.numel() for w in weights]), strict=True):
        weight.data.copy_(part.view_as(weight))
    return vector(model)


@pytest.mark.parametrize(("head", "items"), [(Head, items_of), (AskedHead, labelled)])
def test_one_step_on_a_ridge_score_is_retraining(head, items):
    retrained = fitted(World(linear_model(head), items=items), 0.0)
    world = World(linear_model(head), items=items)
    trained = fitted(world, FORGET_SHARE)
    edit = Influence(DAMPING, iterations=100, tolerance=1e-10, items=16, levels=2)
    edited = vector(edit.apply(world.model, world.setup))
    assert (retrained - trained).norm() > 0.1
    torch.testing.assert_close(edited, retrained, rtol=1e-8, atol=1e-8)
    assert edit.facts["converged"]
    assert edit.facts["residual"] < 1e-10


def test_too_few_iterations_are_told_with_the_residual():
    world = World(linear_model())
    fitted(world, FORGET_SHARE)
    edit = Influence(DAMPING, iterations=2, tolerance=1e-10, items=16, levels=2)
    edit.apply(world.model, world.setup)
    assert edit.facts["iterations"] == 2
    assert not edit.facts["converged"]
    assert edit.facts["residual"] > 1e-10


def test_where_the_forget_items_are_like_the_others_nothing_moves():
    world = World(linear_model(), items=lambda part, count: Drawn(torch.ones(count, 3).double()))
    edited = Influence(items=16, levels=2).apply(world.model, world.setup)
    assert torch.equal(vector(edited), vector(world.model))


def test_the_product_is_that_of_the_dense_gauss_newton_matrix_of_a_unet_with_attention():
    model = ScoreModel.new("unet", "vp", shape=(1, 8, 8), channels=[8], head_dim=4)
    model.network.eval()
    pixels = torch.rand(2, 1, 8, 8, generator=torch.Generator().manual_seed(1))
    (batch,) = batches = World(model, items=lambda part, count: Drawn(pixels)).batches("retain", 2, 1)
    direction = torch.randn(len(vector(model)), generator=torch.Generator().manual_seed(2))
    out = model.eps(batch.x, batch.t).flatten()
    rows = jacobian(out, list(model.network.parameters()))
    expected = 2 / len(out) * rows.T @ (rows @ direction)
    torch.testing.assert_close(gauss_newton(model, batches, direction), expected, rtol=1e-3, atol=1e-4)


def test_the_mean_gradient_does_not_depend_on_how_the_items_are_cut(monkeypatch):
    world = World(linear_model())
    whole = mean_gradient(world.model, world.batches("retain"))
    monkeypatch.setattr("msgm.objectives.edits.base.BATCH", 16)
    cut = world.batches("retain")
    assert len(list(cut)) == 2
    torch.testing.assert_close(mean_gradient(world.model, cut), whole)
    values = torch.cat([mean_square(world.model.eps(b.x, b.t) - b.eps) for b in cut])
    torch.testing.assert_close(values.mean(), loss(world.model, world.batches("retain")))


@pytest.mark.parametrize("settings", [{"damping": 0.0}, {"iterations": 0}, {"tolerance": -1.0}])
def test_wrong_settings_are_refused(settings):
    with pytest.raises(Exception, match=f"edit.{next(iter(settings))}"):
        Influence(**settings)
