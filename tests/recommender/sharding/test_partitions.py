"""Every cell has a shard; balance; what depends on the data and what does not."""

import numpy as np
import pytest

from msgm.errors import UserError
from msgm.recommender.requests import Deletion
from msgm.recommender.sharding.balanced import SLACK, Space
from msgm.recommender.sharding.partitions import OF_USERS, PARTITIONS, cell_draws, make_partition, pretrained
from tests.recommender.models.cells import cells

MATRIX = cells(150, 60)


@pytest.mark.parametrize("name", PARTITIONS)
def test_no_cell_and_no_user_is_lost(name):
    made = make_partition(name, MATRIX, 5, "users", 0)
    assert made.cells.shape == (MATRIX.nnz,)
    assert set(made.cells) == set(range(5))
    assert (made.owners is not None) == (name in OF_USERS)
    if made.owners is not None:
        assert np.bincount(made.owners, minlength=5).sum() == 150
        assert (np.repeat(made.owners, np.diff(MATRIX.indptr)) == made.cells).all()


@pytest.mark.parametrize("name", PARTITIONS)
def test_the_seed_alone_decides(name):
    one, two, other = (make_partition(name, MATRIX, 5, "users", seed).cells for seed in (0, 0, 1))
    assert (one == two).all()
    assert (one != other).any()


@pytest.mark.parametrize("name", ["random", "ubp"])
def test_users_are_balanced(name):
    sizes = np.bincount(make_partition(name, MATRIX, 5, "users", 0).owners, minlength=5)
    assert sizes.max() <= (30 if name == "random" else SLACK * 30)


@pytest.mark.parametrize("name", ["random", "random-interactions", "ubp", "ibp", "inbp", "ot"])
def test_interactions_are_balanced(name):
    sizes = np.bincount(make_partition(name, MATRIX, 5, "interactions", 0).cells, minlength=5)
    assert sizes.max() <= np.ceil(SLACK * MATRIX.nnz / 5)


def test_shards_of_equal_users_are_not_of_equal_work():
    users = make_partition("ot", MATRIX, 5, "users", 0)
    interactions = make_partition("ot", MATRIX, 5, "interactions", 0)
    spread = [np.bincount(p.cells, minlength=5).std() for p in (users, interactions)]
    assert spread[1] < 0.5 * spread[0]


@pytest.mark.parametrize("name", ["ubp", "ot"])
def test_learnt_shards_are_closer_together_than_random_ones(name):
    vectors = pretrained(MATRIX, 0)[0]
    space = Space(vectors, np.arange(150))

    def inertia(labels):
        return ((vectors - space.means(labels, np.zeros((5, vectors.shape[1])))[labels]) ** 2).sum()

    learnt, random = (make_partition(n, MATRIX, 5, "users", 0).owners for n in (name, "random"))
    assert inertia(learnt) < 0.95 * inertia(random)


@pytest.mark.parametrize("name", PARTITIONS)
@pytest.mark.parametrize("balance", ["users", "interactions"])
def test_partitions_not_called_learnt_ignore_the_cells(name, balance):
    rest = Deletion(users=np.array([3, 17, 60]), cells=np.array([[5, 0], [90, 0]])).without(MATRIX)
    kept = ~Deletion(users=np.array([3, 17, 60]), cells=np.array([[5, 0], [90, 0]])).mask(MATRIX)
    before, after = (make_partition(name, m, 5, balance, 0) for m in (MATRIX, rest))
    assert before.learnt != (name == "random-interactions" or (name == "random" and balance == "users"))
    if not before.learnt:
        assert (before.cells[kept] == after.cells).all()


def test_draws_of_cells_do_not_depend_on_other_cells():
    deletion = Deletion(users=np.array([2]), items=np.array([0, 4]))
    all_draws, rest = cell_draws(MATRIX, 0, "a"), cell_draws(deletion.without(MATRIX), 0, "a")
    assert (all_draws[~deletion.mask(MATRIX)] == rest).all()
    assert 0.45 < all_draws.mean() < 0.55
    assert len(np.unique(all_draws)) > 0.99 * len(all_draws)


def test_bad_settings_are_refused():
    with pytest.raises(UserError, match=r"unknown partition 'ubq'; known: .*ubp"):
        make_partition("ubq", MATRIX, 5, "users", 0)
    for shards in (0, 61):
        with pytest.raises(UserError, match=f"shards must lie between 1 and 60 here, got {shards}"):
            make_partition("random", MATRIX, shards, "users", 0)
