"""Training in stages: the order, what is kept, and that a replay is the training from the state kept."""

import numpy as np
import pytest

from msgm.errors import UserError
from msgm.recommender.models.base import load_recommender
from msgm.recommender.requests import Deletion
from msgm.recommender.sharding import laser
from msgm.recommender.sharding.laser import SequentialRecommender, curriculum
from msgm.recommender.sharding.partitions import pretrained
from tests.recommender.models.cells import cells

MATRIX = cells(80, 40)
BASES = {
    "als": {"name": "als", "factors": 8, "regularisation": 5.0},
    "bpr": {"name": "bpr", "factors": 8},
    "lightgcn": {"name": "lightgcn", "factors": 8},
}
ALL = np.arange(80)


def built(base="als", matrix=MATRIX, seed=0):
    return SequentialRecommender(BASES[base], stages=4, rounds=2).fit(matrix, seed)


@pytest.fixture
def grouped(monkeypatch):
    """Groups that do not change with the cells."""
    groups = curriculum(MATRIX, 4, 0)
    monkeypatch.setattr(laser, "curriculum", lambda *_: groups)
    return groups


def same(one, two):
    return all((values == two[name]).all() for name, values in one.items())


@pytest.mark.parametrize("base", BASES)
@pytest.mark.parametrize("stage", [0, 2, 3])
def test_a_replay_is_the_training_without_the_cells(base, stage, grouped):
    deletion = Deletion(users=np.flatnonzero(grouped == stage)[:2])
    system = built(base)
    kept = [dict(c) for c in system.checkpoints]
    answer = system.forget(deletion)
    assert answer.facts == {"first_stage": stage, "stages_replayed": 4 - stage}
    assert all(same(kept[s], system.checkpoints[s]) for s in range(stage))
    assert not same(kept[stage], system.checkpoints[stage])
    never = built(base, deletion.without(MATRIX))
    others = np.flatnonzero(~system.gone_users)
    assert (system.score(others) == never.score(others)).all()
    assert answer.exactness == "approximate"


def test_states_before_the_first_hit_have_not_seen_the_cells(grouped):
    system = built()
    late = np.flatnonzero(grouped == 3)
    assert (system.checkpoints[2]["user_factors"][late] == 0).all()
    assert (system.checkpoints[3]["user_factors"][late] != 0).any()


def test_the_most_cohesive_group_comes_first():
    groups, vectors = curriculum(MATRIX, 4, 0), pretrained(MATRIX, 0)[0]
    unit = vectors / np.linalg.norm(vectors, axis=1, keepdims=True)
    cohesion = []
    for group in range(4):
        centroid = vectors[groups == group].mean(axis=0)
        cohesion.append((unit[groups == group] @ centroid / np.linalg.norm(centroid)).mean())
    assert cohesion == sorted(cohesion, reverse=True)
    assert cohesion[0] > cohesion[-1]
    assert np.bincount(groups).max() <= 24


def test_no_request_replays_nothing():
    system = built()
    before = system.score(ALL)
    assert system.forget(Deletion()).touched == 0
    assert (system.score(ALL) == before).all()


def test_a_first_group_may_lose_all_its_cells(grouped):
    system, deletion = built(), Deletion(users=np.flatnonzero(grouped == 0))
    system.forget(deletion)
    assert system.checkpoints[0] == {}
    others = np.flatnonzero(~system.gone_users)
    assert (system.score(others) == built(matrix=deletion.without(MATRIX)).score(others)).all()


def test_storage_is_a_state_for_every_stage():
    system = built()
    state = sum(values.nbytes for values in system.model.arrays().values())
    assert system.storage_bytes() == 4 * state + system.groups.nbytes


@pytest.mark.parametrize("base", BASES)
def test_a_saved_system_is_the_same_and_forgets_the_same(base, tmp_path):
    system = built(base)
    system.save(tmp_path)
    loaded = load_recommender(tmp_path)
    assert (loaded.score(ALL) == system.score(ALL)).all()
    for model in (system, loaded):
        model.forget(Deletion(users=np.array([3])))
    assert (loaded.score(ALL) == system.score(ALL)).all()


def test_models_that_cannot_train_on_are_refused():
    with pytest.raises(UserError, match="ease cannot train on; allowed: als"):
        SequentialRecommender({"name": "ease"})
    with pytest.raises(UserError, match="stages must be at most the number of users, 80; got 81"):
        SequentialRecommender(BASES["als"], stages=81).fit(MATRIX)
