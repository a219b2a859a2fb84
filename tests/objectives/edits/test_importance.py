"""Edits that read squared gradients: dampening, pruning, re-initialising."""

import pytest
import torch
from torch import nn

from msgm.diffusion import VP, Condition, ScoreModel
from msgm.errors import UserError
from msgm.objectives import moments
from msgm.objectives.edits import Dampen, Prune, Reinit
from msgm.objectives.edits.importance import importances
from msgm.objectives.gradient_moments import TINY
from tests.objectives.edits.worlds import DIMS, FORGET_SHARE, AskedHead, World, labelled, linear_model, vector

ITEMS, LEVELS = 12, 3


def world():
    return World(linear_model())


def fisher(given, part):
    """Squared gradients of the loss of one item after another, as a vector."""
    found = moments(given.model, given.items(part, ITEMS).items, LEVELS, seed=5).square
    return torch.cat([value.flatten() for value in found.values()])


def test_dampening_is_the_papers_formula():
    given = world()
    alpha, dampening = 0.9, 0.5
    forget, retain = fisher(given, "forget"), fisher(given, "retain")
    everything = FORGET_SHARE * forget + (1 - FORGET_SHARE) * retain
    before = vector(given.model)
    factor = torch.clamp(dampening * everything / forget, max=1)
    expected = torch.where(forget > alpha * everything, before * factor, before)
    edit = Dampen(alpha, dampening, ITEMS, LEVELS)
    torch.testing.assert_close(vector(edit.apply(given.model, given.setup)), expected)
    assert 0 < edit.facts["selected_share"] == (forget > alpha * everything).double().mean() < 1


def test_importances_are_read_under_the_items_labels():
    given = World(linear_model(AskedHead), items=labelled)
    drawn = labelled("forget", ITEMS)
    expected = moments(given.model, drawn.items, LEVELS, seed=5, condition=Condition(drawn.labels)).square
    found = importances(given.model, given.setup, "forget", ITEMS, LEVELS)
    assert all(torch.equal(found[name], value) for name, value in expected.items())


def test_an_alpha_above_one_over_the_forget_sets_share_selects_nothing():
    given = world()
    edit = Dampen(1.001 / FORGET_SHARE, 0.01, ITEMS, LEVELS)
    assert torch.equal(vector(edit.apply(given.model, given.setup)), vector(given.model))
    assert edit.facts["selected_share"] == 0


def test_pruning_sets_the_share_of_highest_ratio_to_zero():
    given = world()
    ratio = (fisher(given, "forget") + TINY) / (fisher(given, "retain") + TINY)
    count = round(0.2 * len(ratio))
    made = vector(Prune(0.2, "ratio", ITEMS, LEVELS).apply(given.model, given.setup))
    assert set((made == 0).nonzero()[:, 0].tolist()) == set(ratio.topk(count).indices.tolist())
    assert torch.equal(made[made != 0], vector(given.model)[made != 0])


def test_pruning_at_random_takes_the_same_share_of_other_weights_and_reads_no_data():
    given = world()
    chosen = vector(Prune(0.2, "ratio", ITEMS, LEVELS).apply(given.model, given.setup)) == 0
    given.items = None
    at_random = vector(Prune(0.2, "random").apply(given.model, given.setup)) == 0
    assert chosen.sum() == at_random.sum()
    assert not torch.equal(chosen, at_random)


def test_reinitialised_weights_are_drawn_as_their_layers_draw_them():
    given = world()
    edit = Reinit(0.5, "ratio", ITEMS, LEVELS)
    made, again = (vector(edit.apply(given.model, given.setup)) for _ in range(2))
    changed = made != vector(given.model)
    assert torch.equal(made, again)
    assert changed.sum() == round(0.5 * len(made))
    bound = given.model.network.leave.in_features**-0.5  # of torch's default for linear layers
    assert (made[changed].abs() <= bound).all()
    assert made[changed].std() > bound / 3
    pruned = vector(Prune(0.5, "ratio", ITEMS, LEVELS).apply(given.model, given.setup)) == 0
    assert torch.equal(changed, pruned)


class Scaled(nn.Module):
    """A layer, and a weight that no layer could draw anew."""

    def __init__(self):
        super().__init__()
        self.leave, self.scale = nn.Linear(DIMS, DIMS), nn.Parameter(torch.ones(200))

    def forward(self, x, label):
        return self.leave(x) * self.scale.mean()


def test_a_weight_that_no_layer_draws_is_not_reinitialised():
    model = ScoreModel(Scaled().double(), VP(), (DIMS,))
    given = World(model)
    edited = Reinit(1.0, "random").apply(model, given.setup)
    assert torch.equal(edited.network.scale, model.network.scale)
    assert not (edited.network.leave.weight == model.network.leave.weight).any()


@pytest.mark.parametrize(
    ("edit", "settings"),
    [(Dampen, {"alpha": 0.0}), (Dampen, {"items": 0}), (Prune, {"share": 0.0}), (Reinit, {"share": 1.2})],
)
def test_wrong_settings_are_refused(edit, settings):
    with pytest.raises(UserError, match=f"edit.{next(iter(settings))}"):
        edit(**settings)
