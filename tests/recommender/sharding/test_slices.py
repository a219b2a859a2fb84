"""Slices within shards: what is drawn, which stages run again, and what that costs against the formula."""

import numpy as np
import pytest

from msgm.errors import UserError
from msgm.recommender.methods import METHODS
from msgm.recommender.models import MODELS
from msgm.recommender.models.base import load_recommender
from msgm.recommender.models.bpr import BPR
from msgm.recommender.requests import Deletion
from msgm.recommender.sharding.partitions import draw_slices, make_partition
from msgm.recommender.sharding.system import ShardedRecommender
from msgm.slices import stage_epochs
from tests.recommender.models.cells import cells

MATRIX = cells(80, 40)
PAIRS = np.column_stack(MATRIX.nonzero())
BASE = {"name": "bpr", "factors": 4, "epochs": 4}
ROUNDS = stage_epochs(4, 3)


def built(matrix=MATRIX, seed=0, **settings):
    return ShardedRecommender(**({"base": BASE, "shards": 4, "slices": 3} | settings)).fit(matrix, seed)


def slice_of(system, user):
    return system.places[system.seen.indptr[user]]


def member(system, shard, number):
    """A user of a slice."""
    return next(u for u in range(80) if system.owners[u] == shard and slice_of(system, u) == number)


def asking(partition, drawn):
    """The request for some users, or for some cells where a shard has no whole users."""
    return Deletion(users=np.array(drawn)) if partition == "random" else Deletion(cells=PAIRS[drawn])


@pytest.fixture
def triples(monkeypatch):
    """Numbers of the cells of every batch that a BPR trains on."""
    found, original = [], BPR._step
    monkeypatch.setattr(BPR, "_step", lambda self, *a: found.append(len(a[-1])) or original(self, *a))
    return found


@pytest.mark.parametrize(("shards", "slices"), [(1, 1), (4, 3), (7, 2)])
def test_slices_of_users_are_balanced_within_each_shard(shards, slices):
    made = make_partition("random", MATRIX, shards, "users", 0)
    places = draw_slices(made, MATRIX, slices, 0)[MATRIX.indptr[:-1]]
    for shard in range(shards):
        sizes = np.bincount(places[made.owners == shard], minlength=slices)
        assert sizes.max() - sizes.min() <= 1


def test_slices_of_cells_are_drawn_cell_by_cell():
    made = make_partition("random-interactions", MATRIX, 4, "users", 0)
    places = draw_slices(made, MATRIX, 3, 0)
    assert np.bincount(places) == pytest.approx(MATRIX.nnz / 3, rel=0.2)
    assert len(np.unique(places[: MATRIX.indptr[1]])) > 1


@pytest.mark.parametrize("partition", ["random", "random-interactions"])
def test_slices_read_no_cell(partition):
    gone = Deletion(users=np.array([3, 50]), items=np.array([7]))
    whole, rest = (
        draw_slices(make_partition(partition, m, 4, "users", 0), m, 3, 0) for m in (MATRIX, gone.without(MATRIX))
    )
    assert (whole[~gone.mask(MATRIX)] == rest).all()
    assert (whole != draw_slices(make_partition(partition, MATRIX, 4, "users", 1), MATRIX, 3, 1)).any()


def test_the_first_stage_knows_the_first_slice_alone():
    system = built()
    for shard in range(4):
        users = system.checkpoints[shard][0]["table.users"]
        for number in (1, 2):
            assert not users[member(system, shard, number)].any()
        assert users[member(system, shard, 0)].any()


@pytest.mark.parametrize("number", [0, 1, 2])
def test_a_user_is_forgotten_from_his_slice_on(number, triples):
    system = built()
    before = [list(states) for states in system.checkpoints]
    triples.clear()
    answer = system.forget(users=[member(system, 1, number)])
    assert answer.facts["shards_refitted"] == [1]
    assert answer.facts["stages_refitted"] == 3 - number
    mine = system.labels == 1
    below = [np.count_nonzero(mine & (system.places <= r)) for r in range(3)]
    assert sum(triples) == np.dot(ROUNDS[number:], below[number:]) == answer.facts["cells_visited"]
    for r in range(2):
        same = all((system.checkpoints[1][r][name] == values).all() for name, values in before[1][r].items())
        assert same == (r < number)
    assert all(system.checkpoints[k] == before[k] for k in (0, 2, 3))


def test_a_slice_and_a_shard_may_lose_all_their_cells():
    system = built()
    for numbers in ([0], [0, 1, 2]):
        gone = [u for u in range(80) if system.owners[u] == 2 and MATRIX[[u]].nnz and not system.gone_users[u]]
        gone = [u for u in gone if system.places[system.seen.indptr[u]] in numbers]
        system.forget(users=gone)
        never = built(Deletion(users=np.flatnonzero(system.gone_users)).without(MATRIX))
        found, wanted = system.arrays(), never.arrays()
        assert found.keys() == wanted.keys()
        assert all((found[name] == values).all() for name, values in wanted.items())
        assert system.checkpoints[2][0] == {}
    assert system.models[2] is None


def test_requests_one_by_one_are_as_exact_as_one_request_for_all(tmp_path):
    """Through a saved model in between, too."""
    stream, batch, asked = built(), built(), [5, 17, 33, 60]
    for user in asked[:2]:
        stream.forget(users=[user])
    stream.save(tmp_path)
    stream = load_recommender(tmp_path)
    for user in asked[2:]:
        stream.forget(users=[user])
    batch.forget(users=asked)
    found, wanted = stream.arrays(), batch.arrays()
    assert found.keys() == wanted.keys()
    assert all((found[name] == values).all() for name, values in wanted.items())


@pytest.mark.parametrize("slices", [1, 3])
@pytest.mark.parametrize("partition", ["random", "random-interactions"])
def test_the_measured_cost_is_the_expected_one(slices, partition, triples):
    """Triples that were trained on, counted over systems of different seeds: training, one by one, and one batch."""
    draws, asked = np.random.default_rng(0), 5
    settings = {"slices": slices, "partition": partition, "combiner": "mean"}
    counted = {"training": [], "batch": [], "stream": []}
    for seed in range(40):
        drawn = draws.choice(80 if partition == "random" else MATRIX.nnz, asked, replace=False)
        requests, together = [asking(partition, [one]) for one in drawn], asking(partition, drawn)
        triples.clear()
        system = built(seed=seed, **settings)
        assert sum(triples) == system.cells_visited
        counted["training"].append(sum(triples))
        for name, deletions in (("batch", [together]), ("stream", requests)):
            answering = system.fork()
            triples.clear()
            visited = sum(answering.forget(one).facts["cells_visited"] for one in deletions)
            assert sum(triples) == visited
            counted[name].append(visited)
    expected = system.expected_cost(asked)
    for name, visited in counted.items():
        assert np.mean(visited) == pytest.approx(getattr(expected, name), rel=0.05), name


def test_the_method_takes_slices_where_the_model_can_train_on():
    deletion = Deletion(users=np.array([11]))
    for base, slices in ((BASE, 3), ({"name": "ease"}, 1)):
        model = MODELS.build(base).fit(MATRIX, 0)
        made = METHODS.build({"name": "sisa", "shards": 4, "slices": 3}).unlearn(model, deletion, 0)
        assert made.model.slices == slices
        facts = made.answer.facts
        assert facts["cells_visited"] < facts["cells_of_training"]
        assert facts["cells_expected"] == built(base=base, slices=slices).expected_cost(1).batch


def test_bad_slices_are_one_sentence():
    with pytest.raises(UserError, match="model.slices: ease cannot train on .* take a base of als, bpr"):
        ShardedRecommender(slices=2)
    with pytest.raises(UserError, match="model.slices must be at least 1, got 0"):
        built(slices=0)
    with pytest.raises(UserError, match="model.slices 8 need at least 5 model.base.epochs.*got 4"):
        built(slices=8)
    with pytest.raises(UserError, match="model.base.sweeps"):
        built(base={"name": "als", "sweeps": 2}, slices=5)
