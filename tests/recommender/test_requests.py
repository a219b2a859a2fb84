import pickle

import numpy as np
import pytest
from scipy.sparse import csr_array

from msgm.errors import UserError
from msgm.recommender import sparse
from msgm.recommender.config import RequestSettings
from msgm.recommender.data import Interactions
from msgm.recommender.requests import Deletion, RecommenderRequest
from msgm.recommender.sparse import kept


@pytest.fixture
def data():
    """Users a, b, c and items x, y, z; everyone likes x, a likes y, b likes z."""
    return Interactions.of(list("aabbc"), list("xyxzx"), np.ones(5))


@pytest.fixture
def draws():
    generator = np.random.default_rng(0)
    dense = generator.integers(1, 6, (30, 20)) * (generator.random((30, 20)) < 0.2)
    dense[[0, 7, 29]] = 0
    return dense.astype(np.float32)


def test_users_items_and_pairs_become_numbers(data):
    assert RecommenderRequest(users=["c", "a"]).deletion(data, data.matrix).users.tolist() == [0, 2]
    assert RecommenderRequest(items=["z"]).deletion(data, data.matrix).items.tolist() == [2]
    cells = RecommenderRequest(interactions=[["b", "z"], ["a", "x"]]).deletion(data, data.matrix).cells
    assert cells.tolist() == [[1, 2], [0, 0]]


def test_a_file_lists_one_user_a_line(data, tmp_path):
    (tmp_path / "users.txt").write_text("b\n\n a \n")
    request = RecommenderRequest(file=str(tmp_path / "users.txt"))
    assert request.deletion(data, data.matrix).users.tolist() == [0, 1]
    assert request.describe() == f"removal of the users of {tmp_path / 'users.txt'}"


@pytest.mark.parametrize(
    ("settings", "sentence"),
    [
        ({}, "exactly one of users, items, interactions and file; found none"),
        ({"users": ["a"], "items": ["x"]}, "found request.users and request.items"),
        ({"users": ["d"]}, "unknown user 'd'"),
        ({"items": ["w"]}, "unknown item 'w'"),
        ({"users": ["a", "b", "a"]}, "user a is given twice"),
        ({"items": ["x", "x"]}, "item x is given twice"),
        ({"interactions": [["a", "x"], ["a", "x"]]}, "interaction .'a', 'x'. is given twice"),
        ({"interactions": [["a"]]}, r"expected pairs \[user, item\], got \['a'\]"),
        ({"interactions": ["ax!"]}, r"expected pairs \[user, item\], got 'ax!'"),
        ({"interactions": [["c", "z"]]}, "never saw item 'z' with user 'c': nothing to forget"),
        ({"users": ["a", "b", "c"]}, "forgets all 5 interactions: nothing is left"),
        ({"labels": [1]}, "request.labels is not for recommenders"),
        ({"group": {"subject": [1]}}, "request.group is not for recommenders"),
        ({"predicate": "x.py:f"}, "request.predicate is not for recommenders"),
        ({"users": ["a"], "means": "items"}, "^request.means: 'items' is said to class-conditional generators"),
    ],
)
def test_bad_requests_are_refused(data, settings, sentence):
    with pytest.raises(UserError, match=sentence):
        RecommenderRequest(**settings).deletion(data, data.matrix)


def test_a_pair_that_was_held_out_is_nothing_to_forget(data):
    train = kept(data.matrix, np.array([True, False, True, True, True]))
    with pytest.raises(UserError, match="never saw item 'y' with user 'a'"):
        RecommenderRequest(interactions=[["a", "y"]]).deletion(data, train)


def test_a_bad_id_of_a_file_is_named_with_its_line(data, tmp_path):
    request = RecommenderRequest(file=str(tmp_path / "users.txt"))
    for text, sentence in (("a\n\nd\n", "line 3: unknown user 'd'"), ("a\na\n", "line 2: user a is given twice")):
        (tmp_path / "users.txt").write_text(text)
        with pytest.raises(UserError, match=f"users.txt, {sentence}"):
            request.deletion(data, data.matrix)
    with pytest.raises(UserError, match="request.file: cannot read .*gone.txt"):
        RecommenderRequest(file=str(tmp_path / "gone.txt")).deletion(data, data.matrix)


def test_requests_say_what_they_are():
    assert RecommenderRequest(users=["a", "b"]).describe() == "removal of 2 users"
    assert RecommenderRequest(items=["x"], goal="suppression").describe() == "suppression of 1 item"
    assert RequestSettings(random_users=1).describe() == "removal of 1 user drawn at random"
    assert RequestSettings(most_active=3).describe() == "removal of the 3 most active users"


def test_without_ids_a_refusal_names_numbers(data):
    with pytest.raises(UserError, match="never saw item number 2 with user number 2: nothing to forget"):
        Deletion(cells=np.array([[0, 0], [2, 2]])).check(data.matrix)


@pytest.mark.parametrize(
    "deletion",
    [
        Deletion(users=np.array([1, 7, 28])),
        Deletion(items=np.array([0, 19])),
        Deletion(cells=np.array([[1, 0], [2, 3], [28, 19]])),
        Deletion(users=np.array([4]), items=np.array([5]), cells=np.array([[6, 6], [6, 7]])),
        Deletion(),
    ],
)
def test_what_is_forgotten_and_what_is_kept_are_the_dense_ones(draws, deletion):
    gone = np.zeros(draws.shape, dtype=bool)
    gone[deletion.users] = True
    gone[:, deletion.items] = True
    gone[deletion.cells[:, 0], deletion.cells[:, 1]] = True
    matrix = csr_array(draws)
    without, only = deletion.without(matrix), deletion.only(matrix)
    assert np.array_equal(without.toarray(), np.where(gone, 0, draws))
    assert np.array_equal(only.toarray(), np.where(gone, draws, 0))
    assert without.nnz + only.nnz == matrix.nnz
    assert without.shape == only.shape == matrix.shape
    assert np.array_equal(matrix.toarray(), draws)


def test_any_choice_of_cells_is_kept_with_empty_rows_at_every_place(draws):
    matrix = csr_array(draws)
    for share in (0.0, 0.02, 0.5, 1.0):
        keep = np.random.default_rng(1).random(matrix.nnz) < share
        part = kept(matrix, keep)
        dense = np.zeros_like(draws)
        rows, columns = matrix.nonzero()
        dense[rows[keep], columns[keep]] = matrix.data[keep]
        assert np.array_equal(part.toarray(), dense)
        assert part.nnz == keep.sum()


def test_places_of_a_request_for_single_rows_are_those_of_the_mask(draws):
    matrix = csr_array(draws)
    deletion = Deletion(users=np.array([28, 3, 0]), cells=np.array([[9, k] for k in range(20)]))
    places = deletion.places(matrix)
    assert np.array_equal(np.flatnonzero(deletion.mask(matrix)), places)
    users = np.array([0, 3, 9, 28])
    assert np.array_equal(
        deletion.among(users).without(matrix[users]).toarray(), deletion.without(matrix)[users].toarray()
    )


def test_places_are_kept_for_the_last_matrix_alone_and_not_pickled(draws):
    matrix, other = csr_array(draws), csr_array(draws[:, ::-1])
    deletion, fresh = Deletion(users=np.array([3, 9])), Deletion(users=np.array([3, 9]))
    assert deletion.places(matrix) is not deletion.places(other)
    for asked in (matrix, other, matrix):
        assert np.array_equal(deletion.places(asked), Deletion(users=np.array([3, 9])).places(asked))
    assert len(pickle.dumps(deletion)) == len(pickle.dumps(fresh))
    assert np.array_equal(pickle.loads(pickle.dumps(deletion)).users, deletion.users)


@pytest.mark.parametrize("pieces", [0, 1000])
def test_dropped_entries_are_gone_however_they_are_copied(draws, pieces, monkeypatch):
    monkeypatch.setattr(sparse, "PIECES", pieces)
    matrix = csr_array(draws)
    for places in ([], [0], [matrix.nnz - 1], [0, 1, 5, 6, 7, matrix.nnz - 1], range(matrix.nnz)):
        keep = ~np.isin(np.arange(matrix.nnz), places)
        left = sparse.dropped(matrix, np.array(places, dtype=np.int64))
        assert np.array_equal(left.toarray(), kept(matrix, keep).toarray())
        assert left.nnz == keep.sum()
        assert np.array_equal(sparse.without(matrix.data, np.array(places, dtype=np.int64)), matrix.data[keep])


def test_ids_have_the_same_numbers_before_and_after_a_stream_of_requests(data):
    matrix, names = data.matrix, list(data.users.ids)
    for request in (RecommenderRequest(users=["a"]), RecommenderRequest(interactions=[["b", "x"]])):
        matrix = request.deletion(data, matrix).without(matrix)
    assert matrix.shape == data.shape
    assert data.users.ids == names
    assert matrix.toarray()[data.users.number("b"), data.items.number("z")] == 1
    assert matrix.nnz == 2
