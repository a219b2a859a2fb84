"""What every model has from its base, on the smallest model there is: the popularity of items."""

from dataclasses import dataclass

import numpy as np
import pytest
from scipy.sparse import csr_array, random_array

from msgm.errors import UserError
from msgm.recommender.models.base import FILE, MODELS, Recommender, load_recommender
from msgm.recommender.models.estimator import top
from msgm.recommender.requests import Deletion


@dataclass
class Popularity(Recommender):
    """Scores are counts to a power; forgetting subtracts."""

    power: float = 1.0

    name = "test-popularity"

    def _fit(self):
        self.counts = np.bincount(self.seen.indices, minlength=self.seen.shape[1])

    def score(self, users):
        return np.tile(self.counts**self.power, (len(users), 1))

    def _forget(self, deletion):
        gone = np.bincount(deletion.only(self.seen).indices, minlength=len(self.counts))
        self.counts = self.counts - gone
        return int((gone > 0).sum()), "bit-exact", {"cells": int(gone.sum())}

    def arrays(self):
        return {"counts": self.counts}

    def restore(self, arrays):
        self.counts = arrays["counts"]


@pytest.fixture(autouse=True)
def registered(monkeypatch):
    monkeypatch.setitem(MODELS.entries, Popularity.name, Popularity)


@pytest.fixture
def matrix():
    return csr_array(random_array((20, 12), density=0.3, rng=np.random.default_rng(0)) != 0).astype(np.float32)


@pytest.fixture
def model(matrix):
    return Popularity(power=0.5).fit(matrix, seed=3, times=np.arange(matrix.nnz))


def test_nothing_is_no_data_to_fit_to():
    with pytest.raises(UserError, match="no interaction to fit"):
        Popularity().fit(csr_array((3, 4), dtype=np.float32))


def test_recommendations_are_the_best_unseen_items(model, matrix):
    dense, scores = matrix.toarray(), model.score(np.array([0]))[0]
    for user, items in enumerate(model.listed(np.arange(20), 4)):
        unseen = sorted(np.flatnonzero(dense[user] == 0), key=lambda item: (-scores[item], item))
        assert scores[items].tolist() == scores[unseen[:4]].tolist()


def test_short_lists_end_in_minus_one(model, matrix):
    lists = model.listed(np.arange(20), 15)
    assert lists.shape == (20, 15)
    assert ((lists >= 0).sum(1) == 12 - np.diff(matrix.indptr)).all()
    assert (np.diff((lists < 0).astype(int), axis=1) >= 0).all()


def test_k_is_at_least_one(model):
    with pytest.raises(UserError, match="k must be at least 1, got 0"):
        model.listed(np.array([0]), 0)


def test_forgotten_users_and_items_are_served_no_more(model):
    model.forget(Deletion(items=np.array([int(model.counts.argmax())])))
    gone = int(np.flatnonzero(model.gone_items)[0])
    assert gone not in model.listed(np.arange(20), 12)
    model.forget(Deletion(users=np.array([5])))
    with pytest.raises(UserError, match="user number 5 was forgotten and is served nothing"):
        model.listed(np.array([4, 5]), 3)


def test_forgetting_keeps_cells_and_times_in_step_and_says_what_it_cost(model, matrix):
    deletion = Deletion(users=np.array([2, 9]))
    mask = deletion.mask(matrix)
    answer = model.forget(deletion)
    assert (answer.exactness, answer.facts) == ("bit-exact", {"cells": int(mask.sum())})
    assert answer.seconds > 0
    assert np.array_equal(model.times, np.flatnonzero(~mask))
    assert np.array_equal(model.seen.toarray(), deletion.without(matrix).toarray())


def test_a_single_forgotten_cell_may_be_recommended_again(model, matrix):
    user, item = 0, int(matrix.indices[0])
    assert item not in model.listed(np.array([user]), 12)
    model.forget(Deletion(cells=np.array([[user, item]])))
    assert item in model.listed(np.array([user]), 12)


def test_forgetting_equals_refitting(model, matrix):
    deletion, other = Deletion(users=np.array([0, 3])), Popularity(power=0.5).fit(matrix)
    model.forget(deletion)
    answer = other.refit(deletion)
    assert np.array_equal(model.counts, other.counts)
    assert (answer.exactness, answer.facts) == ("bit-exact", {"refit": True})
    assert np.array_equal(model.counts, Popularity(0.5).fit(deletion.without(matrix)).counts)


@pytest.mark.parametrize(
    ("ask", "sentence"),
    [
        (lambda dense: Deletion(users=np.arange(20)), "forgets all"),
        (lambda dense: Deletion(items=np.arange(12)), "forgets all"),
        (
            lambda dense: Deletion(cells=np.concatenate([np.argwhere(dense)[:1], np.argwhere(dense == 0)[:1]])),
            "never saw",
        ),
    ],
)
@pytest.mark.parametrize("way", ["forget", "refit"])
def test_a_refused_request_changes_nothing(model, matrix, ask, sentence, way):
    before = model.counts.copy()
    with pytest.raises(UserError, match=sentence):
        getattr(model, way)(ask(matrix.toarray()))
    assert np.array_equal(model.counts, before)
    assert model.seen.nnz == matrix.nnz
    assert not model.gone_users.any()


@pytest.mark.parametrize("times", [True, False])
def test_a_model_comes_back_from_its_folder(tmp_path, matrix, times):
    model = Popularity(power=0.5).fit(matrix, seed=3, times=np.arange(matrix.nnz) if times else None)
    model.forget(Deletion(users=np.array([5]), items=np.array([1])))
    model.save(tmp_path / "model")
    again = load_recommender(tmp_path / "model")
    assert again.settings() == {"name": "test-popularity", "power": 0.5}
    assert (again.seed, again.seen.shape) == (3, (20, 12))
    assert np.array_equal(again.seen.toarray(), model.seen.toarray())
    assert np.array_equal(again.gone_users, model.gone_users)
    assert np.array_equal(again.gone_items, model.gone_items)
    assert (again.times is None) if not times else np.array_equal(again.times, model.times)
    users = np.delete(np.arange(20), 5)
    assert np.array_equal(again.listed(users, 5), model.listed(users, 5))
    again.forget(Deletion(users=np.array([6])))
    assert again.counts.sum() < model.counts.sum()


def test_saving_over_a_model_that_cannot_be_written_leaves_the_old_one(tmp_path, model, monkeypatch):
    model.save(tmp_path)
    before = (tmp_path / FILE).read_bytes()
    model.forget(Deletion(users=np.array([5])))

    def fail(*_):
        raise OSError("disk full")

    monkeypatch.setattr("os.replace", fail)
    with pytest.raises(OSError, match="disk full"):
        model.save(tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == [FILE]
    assert (tmp_path / FILE).read_bytes() == before


def test_a_folder_without_a_model_and_a_damaged_file_are_refused(tmp_path, model):
    with pytest.raises(UserError, match="holds no recommender; expected recommender.safetensors"):
        load_recommender(tmp_path)
    model.save(tmp_path)
    whole = (tmp_path / FILE).read_bytes()
    for content in (b"", b"text", whole[:-10], b"\0" * len(whole)):
        (tmp_path / FILE).write_bytes(content)
        with pytest.raises(UserError, match="is damaged or no file of msgm's"):
            load_recommender(tmp_path)


def test_another_programs_safetensors_are_refused(tmp_path):
    from safetensors.numpy import save_file

    save_file({"a": np.ones(3)}, tmp_path / FILE)
    with pytest.raises(UserError, match="is damaged or no file of msgm's"):
        load_recommender(tmp_path)


def test_the_top_is_a_stable_sort_with_ties_to_the_lower_column():
    scores = np.random.default_rng(0).integers(0, 5, (50, 30)).astype(float)
    scores[scores == 0] = -np.inf
    for k in (1, 7, 30, 40):
        found = top(scores, k)
        assert found.shape == (50, k)
        for row, items in zip(scores, found, strict=True):
            best = np.argsort(-row, kind="stable")[: min(k, (row > -np.inf).sum())]
            assert items.tolist() == best.tolist() + [-1] * (k - len(best))
