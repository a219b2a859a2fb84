import copy

import pytest
import torch
from torch import nn

from msgm.diffusion import VP, ScoreModel
from msgm.errors import UserError
from msgm.objectives import Drawn
from msgm.objectives.edits import RefitHead, refit_head
from msgm.objectives.edits.base import Noisings
from tests.objectives.edits.worlds import DIMS, AskedHead, World, labelled, linear_model, loss, vector

ITEMS, LEVELS = 40, 3
PREDICTIONS = pytest.mark.parametrize("prediction", ["epsilon", "v_prediction", "sample"])


def retain(world):
    return Noisings(world.model.process, world.items("retain", ITEMS), LEVELS, seed=5)


def gradient(model, batches):
    return torch.cat([g.flatten() for g in torch.autograd.grad(loss(model, batches), list(model.network.parameters()))])


@PREDICTIONS
def test_without_a_ridge_the_head_is_the_one_of_least_loss(prediction):
    world = World(linear_model(prediction=prediction))
    edited = RefitHead(0.0, ITEMS, LEVELS).apply(world.model, world.setup)
    size = gradient(world.model, retain(world)).norm()
    assert gradient(edited, retain(world)).norm() < 1e-6 * size


@PREDICTIONS
def test_it_is_the_head_that_retraining_on_the_same_features_finds(prediction):
    world, ridge = World(linear_model(prediction=prediction)), 0.05
    edited = RefitHead(ridge, ITEMS, LEVELS).apply(world.model, world.setup)
    retrained = copy.deepcopy(world.model)
    for weight in retrained.network.parameters():
        weight.data.normal_(generator=torch.Generator().manual_seed(1))
    penalty = ridge * features(world, prediction).square().mean()
    weights = list(retrained.network.parameters())
    exact = {"max_iter": 500, "tolerance_grad": 1e-11, "tolerance_change": 0, "line_search_fn": "strong_wolfe"}
    optimiser = torch.optim.LBFGS(weights, **exact)

    def closure():
        optimiser.zero_grad()
        # The loss is a mean over the D dimensions, the penalty stands beside their sum.
        whole = loss(retrained, retain(world)) + penalty * weights[0].square().sum() / DIMS
        whole.backward()
        return whole

    optimiser.step(closure)
    torch.testing.assert_close(vector(edited), vector(retrained), rtol=1e-5, atol=1e-6)


def test_items_are_read_under_their_labels():
    world = World(linear_model(AskedHead), items=labelled)
    edited = RefitHead(0.0, ITEMS, LEVELS).apply(world.model, world.setup)
    assert gradient(edited, retain(world)).norm() < 1e-6 * gradient(world.model, retain(world)).norm()


def features(world, prediction):
    """The features of all noised items, times the slope of eps in the network's output."""
    model, found = world.model, []
    for batch in retain(world):
        phi = model.network.features(batch.x, model.process.label(batch.t))
        slope = {"epsilon": 1, "v_prediction": batch.signal, "sample": -batch.signal / batch.noise}[prediction]
        found.append(slope * phi)
    return torch.cat(found)


def test_nothing_of_the_old_head_is_left():
    one, other = World(linear_model()), World(linear_model())
    for weight in other.model.network.parameters():
        weight.data.add_(3.0)
    made = [vector(RefitHead(1e-3, ITEMS, LEVELS).apply(world.model, world.setup)) for world in (one, other)]
    torch.testing.assert_close(*made, rtol=1e-8, atol=1e-8)


@pytest.mark.parametrize("side", [8, 7])
def test_the_last_convolution_of_a_unet_is_refitted_also_where_images_are_padded(side):
    model = ScoreModel.new("unet", "vp", shape=(1, side, side), channels=[8, 16])

    def items(part, count):
        return Drawn(torch.rand(count, 1, side, side, generator=torch.Generator().manual_seed(len(part))))

    world, edit = World(model, items=items), RefitHead(0.0, ITEMS, LEVELS)
    edited = edit.apply(model, world.setup)
    before = dict(model.network.named_parameters())
    pairs = [(name, value, before[name]) for name, value in edited.network.named_parameters()]
    changed = {name for name, value, old in pairs if not torch.equal(value, old)}
    assert changed == {"unet.conv_out.weight", "unet.conv_out.bias"}
    head = [value for name, value in edited.network.named_parameters() if "conv_out" in name]
    after = torch.cat([g.flatten() for g in torch.autograd.grad(loss(edited, retain(world)), head)])
    assert after.norm() < 1e-4
    assert edit.facts["loss_after"] == pytest.approx(loss(edited, retain(world)).item(), rel=1e-5)
    assert edit.facts["loss_after"] < edit.facts["loss_before"]


class Bent(nn.Module):
    def __init__(self):
        super().__init__()
        self.layer = nn.Linear(DIMS, DIMS)

    def forward(self, x, label):
        return self.layer(x).tanh()


def test_a_network_that_does_not_end_in_a_linear_layer_is_refused():
    world = World(ScoreModel(Bent().double(), VP(), (DIMS,)))
    with pytest.raises(UserError, match="output is that of a linear layer"):
        RefitHead(0.0, ITEMS, LEVELS).apply(world.model, world.setup)


def test_blocks_of_any_size_give_the_same_head_and_hold_no_more_rows(monkeypatch):
    model = ScoreModel.new("unet", "vp", shape=(1, 8, 8), channels=[8])
    pixels = torch.rand(ITEMS, 1, 8, 8, generator=torch.Generator().manual_seed(1))
    world = World(model, items=lambda part, count: Drawn(pixels))
    whole = vector(RefitHead(1e-3, ITEMS, LEVELS).apply(model, world.setup))
    rows, regression = [], refit_head._regression

    def noted(*given):
        for features, target in regression(*given):
            rows.append(len(features))
            yield features, target

    monkeypatch.setattr(refit_head, "ENTRIES", 3 * 64 * (9 * 8 + 1))
    monkeypatch.setattr(refit_head, "_regression", noted)
    cut = vector(RefitHead(1e-3, ITEMS, LEVELS).apply(model, world.setup))
    assert (max(rows), sum(rows)) == (3 * 64, ITEMS * LEVELS * 64)
    torch.testing.assert_close(cut, whole, rtol=1e-5, atol=1e-6)


def test_noised_items_are_drawn_as_they_are_gone_through_the_same_each_time():
    batches = retain(World(linear_model()))
    one, other = list(batches), list(batches)
    assert sum(len(batch.x) for batch in one) == len(batches) == ITEMS * LEVELS
    assert all(torch.equal(a.x, b.x) for a, b in zip(one, other, strict=True))
    assert one[0].x.data_ptr() != other[0].x.data_ptr()
