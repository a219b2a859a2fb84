"""Epochs of slices' stages, and the expected cost of forgetting against the closed forms of its source."""

import pytest

from msgm.errors import UserError
from msgm.slices import expected_cost, stage_epochs


@pytest.mark.parametrize(("epochs", "slices"), [(20, 1), (20, 5), (20, 10), (3, 5), (7, 4)])
def test_stages_visit_as_many_points_as_the_whole_epochs(epochs, slices):
    stages = stage_epochs(epochs, slices)
    assert min(stages) >= 1
    assert sum(stages) == 2 * epochs * slices // (slices + 1)
    visits = sum(e * r / slices for r, e in enumerate(stages, start=1))
    assert visits == pytest.approx(epochs, abs=1)


def test_too_few_epochs_are_refused_by_the_names_of_their_settings():
    with pytest.raises(UserError, match="model.slices 7 need at least 4 model.base.epochs.*; got 3"):
        stage_epochs(3, 7, "model.slices", "model.base.epochs")


def test_expected_cost_is_the_formula_of_the_paper():
    """One slice and one epoch: the closed forms, to the order that they leave out."""
    n, s, k = 10_000, 20, 30
    found = expected_cost(n, s, 1, 1, k, model_bytes=7)
    assert found.stream == pytest.approx(k * (n / s - 1 + 1 / (2 * s)) - k**2 / (2 * s), rel=1e-4)
    assert found.batch == pytest.approx(n * (1 - (1 - 1 / s) ** k) - k)
    assert (found.checkpoints, found.storage_bytes, found.forward_passes) == (20, 140, 20)
    assert expected_cost(n, s, 10, 55, 1).stream == pytest.approx(55 * (n / s) * found_share(10), rel=0.01)


def found_share(slices):
    return expected_cost(10_000, 20, slices, 55, 1).share


def test_items_of_several_points_count_so_often():
    one, seven = (expected_cost(300, 4, 3, 10, 5, points=points) for points in (1.0, 7.0))
    for name in ("training", "stream", "batch", "retraining"):
        assert getattr(seven, name) == pytest.approx(7 * getattr(one, name))
    assert seven.shards == one.shards
