"""SISA, RecEraser, UltraRE and LASER as methods: labels, costs, the given model left as it is; utility on ml-100k."""

import os

import numpy as np
import pytest

from msgm.errors import UserError
from msgm.recommender.data.base import load_interactions
from msgm.recommender.data.splits import load_split
from msgm.recommender.methods import METHODS
from msgm.recommender.models import MODELS
from msgm.recommender.requests import Deletion
from msgm.recommender.sharding import system as module
from tests.recommender.models.cells import cells

MATRIX = cells(80, 40)
ONE = Deletion(users=np.array([11]))
ALS = {"name": "als", "factors": 8, "regularisation": 5.0, "sweeps": 3}
SETTINGS = {
    "sisa": {"shards": 4},
    "rec-eraser": {"shards": 4},
    "ultra-re": {"shards": 4},
    "laser": {"stages": 4},
}


@pytest.fixture(scope="module")
def model():
    return MODELS.build(ALS).fit(MATRIX, 0)


def unlearn(model, name, deletion=ONE, **settings):
    return METHODS.build({"name": name} | SETTINGS[name] | settings).unlearn(model, deletion, 0)


@pytest.mark.parametrize("name", SETTINGS)
def test_the_answer_is_another_model_without_the_user(name, model):
    before = {key: values.copy() for key, values in model.arrays().items()}
    made = unlearn(model, name)
    assert all((before[key] == values).all() for key, values in model.arrays().items())
    assert not model.gone_users.any()
    assert made.model.gone_users[11]
    assert made.model.seen[[11]].nnz == 0
    assert made.answer.exactness == ("bit-exact" if name == "sisa" else "approximate")
    assert made.answer.exactness == METHODS.entries[name].card.exactness


@pytest.mark.parametrize("name", SETTINGS)
def test_storage_is_that_of_all_copies(name, model):
    one = sum(values.nbytes for values in model.arrays().values())
    assert 4 * one <= unlearn(model, name).storage_bytes < 8 * one


def test_preparation_counts_partition_shards_and_combiner(model, monkeypatch):
    from time import sleep

    def slow(cls, name, seconds):
        original = getattr(cls, name)
        monkeypatch.setattr(cls, name, lambda *a: sleep(seconds) or original(*a))

    slow(module, "make_partition", 0.2)
    slow(module.ShardedRecommender, "_shard", 0.1)
    slow(module.Attention, "fit", 0.3)
    made = unlearn(model, "rec-eraser", partition="ubp")
    assert made.preparation_seconds >= 0.2 + 4 * 0.1 + 0.3
    assert made.answer.seconds >= 0.1 + 0.3
    assert made.answer.facts["aggregation_seconds"] >= 0.3
    assert made.answer.facts["partition_seconds"] >= 0.2


def test_users_forgotten_before_stay_forgotten(model):
    earlier = MODELS.build(ALS).fit(MATRIX, 0)
    earlier.forget(Deletion(users=np.array([2]), items=np.array([7])))
    for name in SETTINGS:
        made = unlearn(earlier, name).model
        assert np.flatnonzero(made.gone_users).tolist() == [2, 11]
        assert made.gone_items[7]


def test_sisa_by_interactions_is_only_approximate(model):
    assert unlearn(model, "sisa", balance="interactions").answer.exactness == "approximate"


@pytest.mark.parametrize(
    ("base", "combiner"), [("ease", "fold-in"), ("als", "fold-in"), ("bpr", "fold-in"), ("mf", "own")]
)
def test_sisa_folds_in_where_the_model_can(base, combiner):
    ratings = MATRIX.copy()
    ratings.data[::2] = 3
    fitted = MODELS.build({"name": base}).fit(ratings, 0)
    assert unlearn(fitted, "sisa").model.combiner == combiner


def test_models_without_factors_are_refused():
    ease = MODELS.build({"name": "ease"}).fit(MATRIX, 0)
    for name in ("rec-eraser", "laser"):
        with pytest.raises(UserError, match=f"{name} is for .*als.*, not for ease"):
            unlearn(ease, name)


def recall_and_ndcg(model, test, k=10):
    users = np.flatnonzero(np.diff(test.indptr))
    wanted = test[users].toarray() > 0
    hits = np.take_along_axis(wanted, model.listed(users, k), axis=1)
    discounts = 1 / np.log2(np.arange(2, k + 2))
    ideal = np.cumsum(discounts)[np.minimum(wanted.sum(axis=1), k) - 1]
    return np.array([(hits.sum(axis=1) / wanted.sum(axis=1)).mean(), (hits @ discounts / ideal).mean()])


@pytest.mark.skipif(not os.environ.get("MSGM_DATA"), reason="MSGM_DATA names no folder with ml-100k")
@pytest.mark.parametrize("base", [{"name": "ease"}, {"name": "als"}], ids=["ease", "als"])
def test_fold_in_is_within_three_percent_of_the_full_model(base):
    split = load_split("per-user", load_interactions("ml-100k"))
    full = recall_and_ndcg(MODELS.build(base).fit(split.train, 0), split.test)
    sharded = {
        combiner: recall_and_ndcg(
            MODELS.build({"name": "sharded", "base": base, "combiner": combiner, "shards": 5}).fit(split.train, 0),
            split.test,
        )
        for combiner in ("own", "fold-in")
    }
    assert (sharded["fold-in"] > 0.97 * full).all()
    assert (sharded["own"] < 0.95 * sharded["fold-in"]).all()
