import numpy as np
import pytest

from msgm.errors import UserError
from msgm.recommender.data import Interactions, load_interactions
from msgm.recommender.data.splits import load_split
from msgm.recommender.requests import Deletion

WAYS = ["per-user", "leave-last", "global-time"]


@pytest.fixture(scope="module")
def data():
    return load_interactions({"name": "synthetic", "users": 120, "items": 90, "interactions": 3000, "least": 1})


def codes(matrix):
    rows = np.repeat(np.arange(matrix.shape[0]), np.diff(matrix.indptr))
    return rows * matrix.shape[1] + matrix.indices


def times_of(data, matrix):
    return data.times[np.searchsorted(codes(data.matrix), codes(matrix))]


def times_of_user(data, part, user):
    return times_of(data, part)[part.indptr[user] : part.indptr[user + 1]]


def parts_of(split):
    return split.train, split.validation, split.test


@pytest.mark.parametrize("way", WAYS)
def test_parts_are_disjoint_and_together_all_cells(data, way):
    split = load_split(way, data)
    parts = [codes(part) for part in parts_of(split)]
    assert np.array_equal(np.sort(np.concatenate(parts)), codes(data.matrix))
    assert all(len(part) for part in parts)
    assert all(part.shape == data.shape for part in parts_of(split))


@pytest.mark.parametrize("way", WAYS)
def test_every_user_keeps_a_training_cell_and_times_stay_aligned(data, way):
    split = load_split(way, data)
    assert np.diff(split.train.indptr).min() >= 1
    assert np.array_equal(split.train_times, times_of(data, split.train))


def test_values_go_with_their_cells():
    data = load_interactions(
        {"name": "synthetic", "users": 50, "items": 40, "interactions": 800, "feedback": "explicit"}
    )
    split = load_split("per-user", data)
    assert np.array_equal((split.train + split.validation + split.test).toarray(), data.matrix.toarray())


@pytest.mark.parametrize(
    ("cells", "expected"), [(1, (1, 0, 0)), (2, (2, 0, 0)), (3, (2, 0, 1)), (5, (3, 1, 1)), (10, (7, 1, 2))]
)
def test_shares_are_of_every_user(cells, expected):
    items = [str(k) for k in range(cells)] + [str(k) for k in range(10)]
    data = Interactions.of(["a"] * cells + ["b"] * 10, items, np.ones(cells + 10))
    split = load_split("per-user", data)
    assert tuple(int(np.diff(part.indptr)[0]) for part in parts_of(split)) == expected
    assert split.train_times is None


def test_the_seed_alone_decides_the_draw(data):
    first, again, other = (load_split({"name": "per-user", "seed": seed}, data) for seed in (0, 0, 1))
    assert np.array_equal(codes(first.test), codes(again.test))
    assert not np.array_equal(codes(first.test), codes(other.test))


def test_the_draw_is_uniform_over_a_users_items(data):
    # The least numbers of items must not be favoured: mean place of test cells within their users' rows is the middle.
    split = load_split("per-user", data)
    rows = np.repeat(np.arange(data.shape[0]), np.diff(data.matrix.indptr))
    place = (np.arange(data.matrix.nnz) - data.matrix.indptr[rows] + 0.5) / np.diff(data.matrix.indptr)[rows]
    held = place[np.isin(codes(data.matrix), codes(split.test))]
    assert abs(held.mean() - 0.5) < 4 * np.sqrt(1 / 12 / len(held))


def test_a_request_does_not_change_the_split_and_ids_keep_their_numbers(data):
    before, split = data.users.numbers(data.users.ids).tolist(), load_split("per-user", data)
    gone = Deletion(users=np.array([3, 7])).without(split.train)
    assert gone.shape == data.shape
    assert data.users.numbers(data.users.ids).tolist() == before
    assert set(codes(gone)) < set(codes(split.train))
    assert np.array_equal(codes(load_split("per-user", data).test), codes(split.test))


def test_leave_last_takes_the_last_cell_of_everyone(data):
    split = load_split("leave-last", data)
    many = np.flatnonzero(np.diff(data.matrix.indptr) > 2)
    assert (np.diff(split.test.indptr)[many] == 1).all()
    assert (np.diff(split.validation.indptr)[many] == 1).all()
    for user in many:
        train, validation, test = (times_of_user(data, part, user) for part in parts_of(split))
        assert train.max() <= validation.min() <= test.min()


def test_users_of_one_and_two_cells_under_leave_last():
    data = Interactions.of(list("abbccc"), list("xxyxyz"), np.ones(6), np.array([1, 9, 5, 4, 4, 4]))
    split = load_split("leave-last", data)
    assert split.train.toarray().tolist() == [[1, 0, 0], [0, 1, 0], [1, 0, 0]]
    assert split.validation.toarray().tolist() == [[0, 0, 0], [0, 0, 0], [0, 1, 0]]
    assert split.test.toarray().tolist() == [[0, 0, 0], [1, 0, 0], [0, 0, 1]]


def test_global_time_parts_by_moments_but_for_the_first_cell_of_latecomers(data):
    split = load_split({"name": "global-time", "validation": 0.1, "test": 0.2}, data)
    train, validation, test = (times_of(data, part) for part in parts_of(split))
    assert validation.max() < test.min()
    late = train >= validation.min()
    rows = np.repeat(np.arange(data.shape[0]), np.diff(split.train.indptr))
    assert 0 < late.sum() < 60
    assert (np.diff(split.train.indptr)[rows[late]] == 1).all()
    assert len(test) == pytest.approx(0.2 * data.matrix.nnz, rel=0.1)
    assert len(validation) == pytest.approx(0.1 * data.matrix.nnz, rel=0.15)


def test_validation_of_a_published_split_is_drawn_from_the_rest():
    cells = load_interactions({"name": "synthetic", "users": 50, "items": 40, "interactions": 800})
    test = np.random.default_rng(0).random(cells.matrix.nnz) < 0.2
    data = Interactions(cells.matrix, cells.users, cells.items, cells.times, test=test)
    split = load_split({"name": "published", "validation": 0.25}, data)
    assert np.array_equal(codes(split.test), codes(data.matrix)[test])
    assert split.validation.nnz == pytest.approx(0.25 * (~test).sum(), rel=0.1)
    assert split.train.nnz + split.validation.nnz == (~test).sum()
    assert np.diff(split.train.indptr).min() >= 1


@pytest.mark.parametrize(
    ("settings", "sentence"),
    [
        ({"name": "per-user", "test": 1.0}, r"split.test must lie in \[0, 1\), got 1.0"),
        ({"name": "per-user", "test": 0.6, "validation": 0.4}, "split.validation . split.test must be below 1, got 1"),
        ({"name": "per-user", "seed": -1}, "split.seed must be at least 0, got -1"),
        ({"name": "per-user", "test": 0.0}, "split per-user: no test cell"),
        ({"name": "leave-last"}, "split leave-last needs times, and the data have none; use per-user"),
        ({"name": "global-time"}, "split global-time needs times"),
        ({"name": "random"}, "unknown split 'random'"),
    ],
)
def test_settings_that_do_not_fit_are_refused(settings, sentence):
    data = Interactions.of(list("aaaa"), list("wxyz"), np.ones(4))
    with pytest.raises(UserError, match=sentence):
        load_split(settings, data)
