"""Sharded systems: what is refitted, what that equals, what combiners read, saving."""

import numpy as np
import pytest

from msgm.errors import UserError
from msgm.recommender.models import MODELS
from msgm.recommender.models.base import load_recommender
from msgm.recommender.models.low_rank import LowRankSum
from msgm.recommender.requests import Deletion
from msgm.recommender.scores import standardised
from msgm.recommender.sharding import system as module
from msgm.recommender.sharding.attention import Attention
from msgm.recommender.sharding.combiners import Logistic
from msgm.recommender.sharding.system import HELD, ShardedRecommender
from msgm.recommender.sparse import kept
from tests.recommender.models.cells import cells

MATRIX = cells(80, 40)
EASE = {"name": "ease", "regularisation": 20.0}
ALS = {"name": "als", "factors": 8, "regularisation": 5.0, "sweeps": 3}
BPR = {"name": "bpr", "factors": 8, "epochs": 3, "regularisation": 0.01}
ONE = Deletion(users=np.array([11]))
MANY = Deletion(users=np.array([1, 30]), items=np.array([7]), cells=np.array([[5, 0], [6, 0]]))
SYSTEMS = {
    "ease own": {"base": EASE, "combiner": "own"},
    "ease fold-in": {"base": EASE, "combiner": "fold-in"},
    "ease logistic": {"base": EASE, "combiner": "logistic"},
    "als fold-in": {"base": ALS, "combiner": "fold-in"},
    "item-knn fold-in": {"base": {"name": "item-knn"}, "combiner": "fold-in"},
    "user-knn fold-in": {"base": {"name": "user-knn"}, "combiner": "fold-in"},
    "mult-vae fold-in": {"base": {"name": "mult-vae", "epochs": 1}, "combiner": "fold-in"},
    "bpr fold-in": {"base": BPR, "combiner": "fold-in"},
    "lightgcn fold-in": {"base": {"name": "lightgcn", "factors": 8, "epochs": 2}, "combiner": "fold-in"},
    "als attention": {"base": ALS, "combiner": "attention"},
    "als mean of cells": {"base": ALS, "combiner": "mean", "partition": "random-interactions"},
    "bpr attention": {"base": BPR, "combiner": "attention"},
    "als slices": {"base": ALS, "slices": 3},
    "bpr slices": {"base": BPR, "slices": 3},
    "bpr slices of cells": {"base": BPR, "slices": 3, "partition": "random-interactions", "combiner": "mean"},
    "bpr slices logistic": {"base": BPR, "slices": 3, "combiner": "logistic"},
    "lightgcn slices": {"base": {"name": "lightgcn", "factors": 8, "epochs": 2}, "slices": 3},
    "mult-vae slices": {"base": {"name": "mult-vae", "epochs": 2}, "slices": 3},
}


def built(matrix=MATRIX, seed=0, **settings):
    return ShardedRecommender(**({"base": EASE, "shards": 4} | settings)).fit(matrix, seed)


def same(one, two):
    """Whether two models have the same bytes; rows of the combiner's tables are those of forgotten users, too."""
    return one.keys() == two.keys() and all((values == two[name]).all() for name, values in one.items())


def everyone(system):
    return system.score(np.flatnonzero(~system.gone_users))


@pytest.fixture
def fits(monkeypatch):
    """Shards that were fitted, in order."""
    found, original = [], ShardedRecommender._shard
    monkeypatch.setattr(ShardedRecommender, "_shard", lambda self, k, *a: found.append(k) or original(self, k, *a))
    return found


@pytest.mark.parametrize("name", SYSTEMS)
@pytest.mark.parametrize("deletion", [ONE, MANY], ids=["one", "many"])
def test_equals_a_system_that_never_saw_the_cells_bit_for_bit(name, deletion):
    system = built(**SYSTEMS[name])
    answer = system.forget(deletion)
    never = built(deletion.without(MATRIX), **SYSTEMS[name])
    assert answer.exactness == "bit-exact"
    kept = np.flatnonzero(~system.gone_users)
    assert (system.score(kept) == never.score(kept)).all()
    assert same(system.arrays(), never.arrays())


def test_equality_is_no_accident():
    system = built()
    before = everyone(system)
    system.forget(ONE)
    assert (system.score(np.arange(10)) != before[:10]).any()


def test_no_request_refits_nothing(fits):
    system = built(base=ALS, combiner="attention")
    fits.clear()
    before = everyone(system)
    answer = system.forget(Deletion())
    assert (fits, answer.touched, answer.facts["shards_refitted"]) == ([], 0, [])
    assert (everyone(system) == before).all()


def test_one_user_refits_one_shard(fits):
    system = built()
    fits.clear()
    others = [m for k, m in enumerate(system.models) if k != system.owners[11]]
    answer = system.forget(ONE)
    assert fits == [system.owners[11]] == answer.facts["shards_refitted"]
    assert [m for k, m in enumerate(system.models) if k != system.owners[11]] == others
    assert answer.touched == 80 + 40


def test_requests_hit_the_expected_number_of_shards():
    """K (1 - (1 - 1/K)^r), here for shards without replacement of users."""
    draws, system = np.random.default_rng(0), built(shards=8)
    hit = [len(np.unique(system.owners[draws.choice(80, 6, replace=False)])) for _ in range(2000)]
    assert np.mean(hit) == pytest.approx(8 * (1 - (1 - 1 / 8) ** 6), rel=0.05)


def test_a_learnt_partition_is_only_approximate():
    for settings in ({"partition": "ubp"}, {"partition": "ot"}, {"balance": "interactions"}):
        answer = built(**settings).forget(ONE)
        assert answer.exactness == "approximate"
        assert "learnt" in answer.facts["partition"]


@pytest.mark.parametrize("partition", ["ubp", "ibp", "inbp", "ot"])
def test_a_refit_partitions_anew(partition):
    system, never = built(partition=partition, combiner="fold-in"), built(ONE.without(MATRIX), partition=partition)
    assert system.refit(ONE).exactness == "bit-exact"
    assert (system.labels == never.labels).all()
    assert (everyone(system) == never.score(np.flatnonzero(~system.gone_users))).all()


def test_a_shard_without_cells_is_left_out():
    system = built(shards=4, combiner="fold-in")
    gone = np.flatnonzero(system.owners == 2)
    system.forget(Deletion(users=gone))
    assert system.models[2] is None
    assert np.isfinite(everyone(system)).all()


def test_fold_in_is_the_mean_of_the_models_scores_in_deviations_of_the_user():
    system = built()
    scores = np.array([MATRIX.toarray() @ model.weights() for model in system.models])
    scores = (scores - scores.mean(axis=2, keepdims=True)) / scores.std(axis=2, keepdims=True)
    assert system.score(np.arange(80)) == pytest.approx(scores.mean(axis=0), abs=1e-10)


@pytest.mark.parametrize("combiner", ["mean", "fold-in", "logistic"])
def test_no_shard_is_heard_more_because_its_scores_are_larger(combiner, monkeypatch):
    system = built(combiner=combiner)
    before = system.score(np.arange(80))
    loud, original = system.models[1], type(system.models[1]).score_rows
    monkeypatch.setattr(
        type(loud),
        "score_rows",
        lambda self, rows: original(self, rows) * (100 if self is loud else 1) + (self is loud),
    )
    assert system.score(np.arange(80)) == pytest.approx(before, abs=1e-8)


@pytest.mark.parametrize("base", [EASE, ALS])
def test_a_forgotten_user_is_folded_into_nothing(base):
    system = built(base=base)
    assert system.score(np.array([11])).std() > 0.1
    system.forget(ONE)
    assert not system.score(np.array([11])).any()


def test_own_shard_scores_are_those_of_the_shards_model():
    system = built(combiner="own")
    for user in (0, 5, 79):
        expected = system.models[system.owners[user]].score(np.array([user]))
        assert (system.score(np.array([user])) == expected).all()


def test_a_mean_of_equal_models_is_the_model():
    system, whole = built(base=ALS, shards=1), MODELS.build(ALS)
    whole.fit(MATRIX, system.models[0].seed)
    expected = standardised(whole.fold_in(MATRIX) @ whole.item_factors.T)
    assert system.score(np.arange(80)) == pytest.approx(expected, abs=1e-5)


def test_regularisation_is_a_shards_share():
    assert {m.regularisation for m in built(base=ALS, shards=4).models} == {5.0 / 4}
    assert {m.regularisation for m in built(base=ALS, shards=4, combiner="own").models} == {5.0}
    assert {m.regularisation for m in built(base=BPR, shards=4, combiner="mean").models} == {0.01}


def test_a_shard_takes_as_many_steps_as_a_fit_to_all_cells():
    assert {m.batch_size for m in built(base=BPR | {"batch_size": 100}, shards=4).models} == {25}
    assert {m.batch_size for m in built(base=BPR | {"batch_size": 3}, shards=4).models} == {1}


def test_held_cells_are_in_no_shard_and_are_all_that_weights_are_learnt_from(monkeypatch):
    read = []
    original = Logistic.fit
    monkeypatch.setattr(Logistic, "fit", lambda self, shards, seed: read.append(shards) or original(self, shards, seed))
    system = built(combiner="logistic")
    held = (system.labels == HELD).sum()
    assert 0.02 * MATRIX.nnz < held < 0.08 * MATRIX.nnz
    assert sum(model.seen.nnz for model in system.models) == MATRIX.nnz - held
    system.forget(MANY)
    for shards, cell_count in zip(read, (MATRIX.nnz, system.seen.nnz), strict=True):
        assert shards.held.nnz + shards.rows.nnz == cell_count
        assert abs(shards.held).multiply(abs(shards.rows)).nnz == 0
    assert MANY.only(read[1].held).nnz == 0


@pytest.mark.parametrize("combiner", [Logistic, Attention])
def test_combiners_see_training_cells_alone(combiner, monkeypatch):
    """Cells for testing are apart before a system is fitted; what a combiner reads is within the rest."""
    read, original = [], combiner.fit
    monkeypatch.setattr(combiner, "fit", lambda self, shards, seed: read.append(shards) or original(self, shards, seed))
    test = np.random.default_rng(0).random(MATRIX.nnz) < 0.2
    built(kept(MATRIX, ~test), base=ALS, combiner=combiner.name)
    assert (abs(read[0].rows + read[0].held - kept(MATRIX, ~test))).sum() == 0
    assert (read[0].rows + read[0].held).multiply(kept(MATRIX, test)).sum() == 0
    assert all(kept(MATRIX, test).multiply(model.seen).sum() == 0 for model in read[0].models)


def test_a_logistic_combiner_finds_the_shard_that_knows():
    """Shards of noise get little weight."""
    system = built(combiner="logistic", shards=2)
    model = system.models[1]
    noise = np.random.default_rng(0).normal(size=(40, 40))
    model.parts = LowRankSum(noise @ noise.T + np.eye(40))
    system._aggregate(system.models, system.seen, system.labels)
    assert system.aggregator.weights[0] > 3 * abs(system.aggregator.weights[1])


def test_aggregation_is_counted(monkeypatch):
    ticks = iter(range(1000))
    system = built(combiner="logistic")
    monkeypatch.setattr(module, "perf_counter", lambda: next(ticks))
    answer = system.forget(ONE)
    assert answer.facts["aggregation_seconds"] == 1
    assert answer.facts["refit_seconds"] == 1


@pytest.mark.parametrize("name", SYSTEMS)
def test_a_saved_system_is_the_same_and_forgets_the_same(name, tmp_path):
    system = built(**SYSTEMS[name])
    system.save(tmp_path)
    loaded = load_recommender(tmp_path)
    assert (everyone(loaded) == everyone(system)).all()
    assert system.forget(ONE).facts["shards_refitted"] == loaded.forget(ONE).facts["shards_refitted"]
    assert (everyone(loaded) == everyone(system)).all()


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"combiner": "foldin"}, "unknown combiner 'foldin'.*Did you mean 'fold-in'"),
        ({"combiner": "own", "partition": "inbp"}, "combiner own needs a partition of users"),
        ({"combiner": "attention", "base": EASE}, "attention needs a model of factors"),
        ({"combiner": "fold-in", "base": {"name": "mf"}}, "mf cannot take users"),
        ({"base": {"name": "sharded"}}, "cannot be a shard's"),
        ({"partition": "kmeans"}, "unknown partition 'kmeans'"),
    ],
)
def test_bad_settings_are_one_sentence(settings, words):
    with pytest.raises(UserError, match=words):
        ShardedRecommender(**settings)


def test_a_refused_request_changes_nothing():
    system = built()
    before = everyone(system)
    with pytest.raises(UserError, match="nothing is left"):
        system.forget(Deletion(users=np.arange(80)))
    assert (everyone(system) == before).all()
    assert not system.gone_users.any()
