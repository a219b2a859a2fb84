import numpy as np
import pytest

from msgm.errors import UserError
from msgm.recommender.models import negatives as module
from msgm.recommender.models.negatives import Negatives
from tests.recommender.models.cells import cells


def test_draws_are_never_cells_and_reach_every_other_item_alike():
    matrix = cells()
    users = np.repeat(np.arange(120), 400)
    drawn = Negatives(matrix).draw(users, np.random.default_rng(0))
    dense = matrix.toarray() > 0
    assert not dense[users, drawn].any()
    counts = np.zeros(dense.shape)
    np.add.at(counts, (users, drawn), 1)
    expected = 400 / (~dense).sum(1, keepdims=True)
    deviation = np.where(dense, 0, counts - expected) / np.sqrt(expected)
    # About 4,800 roughly Gaussian counts: none far out, and a spread of nearly 1.
    assert np.abs(deviation).max() < 6
    assert 0.9 < deviation[~dense].std() < 1.1


def test_a_user_with_one_item_left_gets_that_one():
    matrix = cells().tolil()
    matrix[4] = 1
    matrix[4, 33] = 0
    assert (Negatives(matrix.tocsr()).draw(np.full(20, 4), np.random.default_rng(0)) == 33).all()


def test_a_user_who_has_seen_every_item_is_refused():
    matrix = cells().tolil()
    matrix[4] = 1
    with pytest.raises(UserError, match="user number 4 has seen every item"):
        Negatives(matrix.tocsr()).draw(np.array([2, 4]), np.random.default_rng(0))


def test_the_same_generator_draws_the_same():
    users = np.arange(120)
    one, two = (Negatives(cells()).draw(users, np.random.default_rng(3)) for _ in range(2))
    assert (one == two).all()


@pytest.mark.parametrize("slots", [0, 1, 8])
def test_what_is_a_cell_is_known_however_small_the_table_is(slots, monkeypatch):
    monkeypatch.setattr(module, "SLOTS", slots)
    matrix = cells()
    users, items = (each.ravel() for each in np.indices(matrix.shape))
    assert (Negatives(matrix).known(users, items) == (matrix.toarray() > 0).ravel()).all()
