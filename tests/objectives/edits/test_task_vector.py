import copy

import pytest
import torch

from msgm.errors import UserError
from msgm.objectives.edits import TaskVector
from msgm.objectives.edits.task_vector import trimmed
from tests.objectives.edits.worlds import World, descend, linear_model, vector


def ascended(world, steps, coefficient):
    """The same number of steps of gradient ascent."""
    model = copy.deepcopy(world.model)
    descend(model, world.batches("forget"), steps, coefficient * world.lr)
    return vector(model)


def test_one_step_negated_is_one_step_of_gradient_ascent():
    world = World(linear_model())
    edited = TaskVector(coefficient=0.7, steps=1).apply(world.model, world.setup)
    torch.testing.assert_close(vector(edited), ascended(world, 1, 0.7), rtol=1e-12, atol=1e-12)
    assert world.asked == [1]


def test_several_steps_negated_are_gradient_ascent_to_first_order_in_the_rate():
    errors = []
    for lr in (0.02, 0.002):
        world = World(linear_model(), lr=lr)
        edited = TaskVector(steps=5).apply(world.model, world.setup)
        moved = (vector(edited) - vector(world.model)).norm()
        errors.append(((vector(edited) - ascended(world, 5, 1.0)).norm() / moved).item())
    assert errors[0] / errors[1] == pytest.approx(10, rel=0.1)


def test_a_coefficient_of_zero_leaves_the_model_as_it_is():
    world = World(linear_model())
    edit = TaskVector(coefficient=0.0)
    assert torch.equal(vector(edit.apply(world.model, world.setup)), vector(world.model))
    assert edit.facts["changed_share"] == edit.facts["distance"] == 0


def test_trimming_keeps_the_share_of_greatest_magnitude():
    whole = torch.tensor([0.1, -3.0, 2.0, 0.5, -0.2])
    assert trimmed(whole, 0.4).tolist() == [0.0, -3.0, 2.0, 0.0, 0.0]
    assert torch.equal(trimmed(whole, 1.0), whole)
    assert trimmed(whole, 0.01).count_nonzero() == 1


def test_a_trimmed_edit_moves_that_share_of_the_weights():
    world = World(linear_model())
    edit = TaskVector(keep=0.25)
    whole, part = (each.apply(world.model, world.setup) for each in (TaskVector(), edit))
    moved = vector(part) != vector(world.model)
    assert moved.sum() == round(0.25 * len(moved))
    assert torch.equal(vector(part)[moved], vector(whole)[moved])
    assert edit.facts["changed_share"] == moved.double().mean()


@pytest.mark.parametrize("settings", [{"coefficient": -1.0}, {"steps": 0}, {"keep": 0.0}, {"keep": 1.5}])
def test_wrong_settings_are_refused(settings):
    with pytest.raises(UserError, match=f"edit.{next(iter(settings))}"):
        TaskVector(**settings)


def ties(vectors, keep):
    """Trim, elect and merge of TIES, arXiv 2306.01708, algorithm 1: one vector of several."""
    kept = torch.stack([trimmed(vector, keep) for vector in vectors])
    signs = kept.sum(0).sign()
    agreeing = (kept.sign() == signs) & (kept != 0)
    return (kept * agreeing).sum(0) / agreeing.sum(0).clamp_min(1)


@pytest.mark.parametrize("keep", [0.2, 0.5, 1.0])
def test_of_a_single_vector_ties_is_trimming_alone(keep):
    one, other = torch.randn(2, 50, generator=torch.Generator().manual_seed(0))
    assert torch.equal(ties([one], keep), trimmed(one, keep))
    assert not torch.equal(ties([one, other], keep), trimmed(one, keep))
