import numpy as np
import pytest
from scipy.sparse import csr_array

from msgm.errors import UserError
from msgm.recommender.models import MODELS, load_recommender
from msgm.recommender.requests import Deletion
from tests.recommender.models.cells import cells, times
from tests.recommender.models.lists import check_stream, same


def fitted(neighbours=6, recent=15):
    matrix = cells()
    settings = {"name": "session-knn", "neighbours": neighbours, "recent": recent}
    return MODELS.build(settings).fit(matrix, times=times(matrix))


def plain_scores(model, items, itself=None):
    """Return the scores from the definition, session by session."""
    sessions, latest = {}, {}
    for user in range(len(model.gone_users)):
        cells = slice(*model.seen.indptr[user : user + 2])
        sessions[user] = set(model.seen.indices[cells].tolist())
        latest[user] = model.times[cells].max(initial=0)
    sharing = [user for user in sessions if user != itself and sessions[user] & set(items)]
    recent = sorted(sharing, key=lambda user: (-latest[user], user))[: model.recent]
    weight = {item: (place + 1) / len(items) for place, item in enumerate(items)}
    similarity = {user: sum(weight.get(item, 0) for item in sessions[user]) for user in recent}
    near = sorted(recent, key=lambda user: -round(similarity[user], 9))[: model.neighbours]
    scores = np.zeros(model.seen.shape[1])
    for user in near:
        scores[sorted(sessions[user])] += similarity[user]
    return scores


def test_a_session_is_in_order_of_time():
    model = fitted()
    cells = slice(*model.seen.indptr[4:6])
    pairs = zip(model.times[cells].tolist(), model.seen.indices[cells].tolist(), strict=True)
    assert model.session(4).tolist() == [item for _, item in sorted(pairs)]


@pytest.mark.parametrize("recent", [15, 1000])
def test_scores_are_those_of_the_definition(recent):
    model = fitted(recent=recent)
    for user in (0, 4, 77):
        expected = plain_scores(model, model.session(user).tolist(), user)
        assert model.score(np.array([user]))[0] == pytest.approx(expected, abs=1e-9)
    for items in ([7], [3, 41, 8], [8, 3, 41], [3, 8, 3]):
        assert model.score_session(np.array(items)) == pytest.approx(plain_scores(model, items), abs=1e-9)


def test_the_later_item_of_a_session_weighs_more():
    sessions = csr_array(np.array([[1, 0, 1, 0], [0, 1, 0, 1]], dtype=np.float32))
    model = MODELS.build({"name": "session-knn"}).fit(sessions, times=np.arange(4))
    assert model.score_session(np.array([0, 1])).tolist() == [0.5, 1, 0.5, 1]
    assert model.score_session(np.array([1, 0])).tolist() == [1, 0.5, 1, 0.5]


def test_the_most_recent_session_of_all_still_finds_others():
    sessions = csr_array(np.array([[1, 1, 0], [1, 0, 1]], dtype=np.float32))
    model = MODELS.build({"name": "session-knn", "recent": 1}).fit(sessions, times=np.arange(4))
    assert model.score(np.array([1])).tolist() == [[0.5, 0.5, 0]]


def test_a_session_under_way_is_not_served_what_it_holds_or_what_was_forgotten():
    model = fitted(neighbours=50, recent=200)
    model.forget(Deletion(items=np.array([0])))
    found = model.recommend_session(np.array([3, 8]), 60)
    assert not np.isin(found, [0, 3, 8]).any()
    scores = model.score_session(np.array([3, 8]))
    assert (np.diff(scores[found[found >= 0]]) <= 0).all()


@pytest.mark.parametrize("recent", [1, 15, 1000])
def test_any_stream_leaves_the_index_of_a_refit(recent):
    check_stream(fitted(recent=recent), 24, recent)


def test_forgetting_the_last_cell_makes_a_session_less_recent_everywhere():
    model = fitted(recent=3)
    user = int(model.index[0, 0])  # the most recent session of all with item 0
    cells = slice(*model.seen.indptr[user : user + 2])
    latest = model.seen.indices[cells][model.times[cells] == model.times[cells].max()]
    assert 0 not in latest
    answer = model.forget(Deletion(cells=np.array([[user, item] for item in latest])))
    assert answer.facts["sessions_moved"] == 1
    assert model.index[0, 0] != user


def test_a_forgotten_user_is_in_no_list_and_is_served_nothing():
    model = fitted()
    model.forget(Deletion(users=np.array([5])))
    assert not (model.index == 5).any()
    assert (model.score(np.array([5])) == 0).all()
    with pytest.raises(UserError, match="user number 5 was forgotten"):
        model.listed(np.array([5]), 3)


def test_a_batch_and_a_stream_agree_bit_by_bit():
    batch, stream = fitted(), fitted()
    batch.forget(Deletion(users=np.array([3, 17, 40])))
    for user in (3, 17, 40):
        stream.forget(Deletion(users=np.array([user])))
    assert same(batch, stream)


def test_saving_and_loading_is_bit_exact_and_forgetting_goes_on(tmp_path):
    model = fitted()
    model.save(tmp_path)
    loaded = load_recommender(tmp_path)
    for one in (model, loaded):
        one.forget(Deletion(users=np.array([6])))
    assert same(model, loaded)
    assert (loaded.times == model.times).all()


def test_what_it_cannot_answer_is_refused():
    model = fitted()
    model.forget(Deletion(items=np.array([4])))
    with pytest.raises(UserError, match="session-knn needs the times"):
        MODELS.build({"name": "session-knn"}).fit(cells())
    with pytest.raises(UserError, match="no item number 60; expected 0 to 59"):
        model.score_session(np.array([1, 60]))
    with pytest.raises(UserError, match="item number 4 was forgotten"):
        model.recommend_session(np.array([1, 4]), 3)
    with pytest.raises(UserError, match="k must be at least 1, got 0"):
        model.recommend_session(np.array([1]), 0)
    with pytest.raises(UserError, match=r"model.recent must be at least 1, got 0"):
        fitted(recent=0)
