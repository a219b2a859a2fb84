import math

import numpy as np
import pytest

from msgm.errors import UserError
from msgm.recommender.data import IdMap, Interactions, load_interactions

USERS = ["b", "a", "b", "c"]
ITEMS = ["y", "x", "x", "y"]


def test_ids_have_the_numbers_of_their_places_and_unknown_ones_are_named():
    ids = IdMap(["anna", "bob"], "user")
    assert len(ids) == 2
    assert ids.number("bob") == 1
    assert ids.numbers(["bob", "anna"]).tolist() == [1, 0]
    with pytest.raises(UserError, match=r"^unknown user 'bop'\.$"):
        ids.number("bop")
    with pytest.raises(UserError, match=r"unknown item 'bop'. Did you mean 'bob'\?"):
        IdMap(["anna", "bob"], "item").number("bop")
    with pytest.raises(UserError, match="user ids are not unique"):
        IdMap(["anna", "anna"], "user")


def test_integers_mean_the_ids_that_are_written_so():
    assert IdMap(["7", "12"], "item").number(12) == 1


def test_columns_become_a_matrix_with_times_and_test_marks_in_its_order():
    data = Interactions.of(
        USERS, ITEMS, np.array([1.0, 2.0, 3.0, 4.0]), np.array([10, 20, 30, 40]), True, np.array([1, 0, 0, 1]) == 1
    )
    assert data.users.ids == ["a", "b", "c"]
    assert data.items.ids == ["x", "y"]
    assert data.shape == (3, 2)
    assert data.matrix.toarray().tolist() == [[2, 0], [3, 1], [0, 4]]
    assert data.matrix.dtype == np.float32
    assert data.times.tolist() == [20, 30, 10, 40]
    assert data.test.tolist() == [False, False, True, True]


@pytest.mark.parametrize(
    ("users", "items", "values", "sentence"),
    [
        ([], [], [], "hold no interaction"),
        (["a", "a"], ["x", "x"], [1, 1], "row 2: user a and item x are given twice"),
        (["a", "a", "b", "b"], ["y", "x", "y", "y"], [1, 1, 1, 1], "row 4: user b and item y are given twice"),
        (["b", "b", "a", "a"], ["x", "x", "x", "x"], [1, 1, 1, 1], "row 2: user b and item x are given twice"),
        (["a", "b"], ["x", "x"], [1, np.nan], "row 2: the value is nan"),
        (["a", "b"], ["x", "x"], [np.inf, 1], "row 1: the value is inf"),
        (["a", "b"], ["x", "x"], [1, 0], "row 2: the value is 0; 0 stands for no interaction"),
        (["a", ""], ["x", "x"], [1, 1], "row 2, user: expected an id, got an empty text"),
        (["a", "b"], ["", "x"], [1, 1], "row 1, item: expected an id, got an empty text"),
    ],
)
def test_malformed_columns_are_refused_by_row(users, items, values, sentence):
    with pytest.raises(UserError, match=sentence):
        Interactions.of(users, items, np.array(values, dtype=float), explicit=True)


def test_the_digest_depends_on_cells_values_and_ids_and_not_on_the_order_of_rows():
    def digest(users=USERS, items=ITEMS, values=(1, 2, 3, 4)):
        return Interactions.of(users, items, np.array(values, dtype=float)).digest()

    assert digest() == digest(USERS[::-1], ITEMS[::-1], (4, 3, 2, 1))
    changed = [digest(values=(1, 2, 3, 5)), digest(["b", "a", "b", "d"]), digest(items=["y", "y", "x", "y"])]
    assert len({digest(), *changed}) == 4


def test_an_unknown_source_is_named_with_the_nearest():
    with pytest.raises(UserError, match="unknown data 'ml-10k'.*Did you mean 'ml-100k'"):
        load_interactions("ml-10k")


def test_a_setting_of_another_source_is_refused():
    with pytest.raises(UserError, match="data.clusters: clusters belongs to data 'synthetic'"):
        load_interactions({"name": "ml-100k", "clusters": 3})


@pytest.mark.parametrize(
    "users", [[10, 7], np.array([10, 7]), ["10", "7"], [np.int64(10), " 7 "], np.array(["10", "7"])]
)
def test_whole_numbers_and_texts_are_the_same_ids(users):
    data = Interactions.of(users, ["x", "x"], np.ones(2))
    assert (data.users.ids, data.users.number(10), data.users.number(" 7")) == (["10", "7"], 0, 1)


@pytest.mark.parametrize("name", [None, math.nan, 1.0, np.float64(1), True, np.bool_(True), "", "  ", b"a", ("a",)])
def test_what_is_no_id_is_refused_by_row_and_column(name):
    with pytest.raises(UserError, match="^row 2, user: expected an id"):
        Interactions.of(["a", name], ["x", "x"], np.ones(2))
    with pytest.raises(UserError, match="^row 1, item: expected an id"):
        Interactions.of(["a", "b"], [name, "x"], np.ones(2))
    with pytest.raises(UserError, match="the user: expected an id"):
        IdMap(["1", "True", "None", "nan", "a"], "user").number(name)


@pytest.mark.parametrize("value", [16777217, 16777217.0, 1e39, 1e-50, 2**60 + 1])
def test_values_that_float32_does_not_hold_are_refused(value):
    with pytest.raises(UserError, match="^row 2, value: expected a number that float32 holds"):
        Interactions.of(["a", "b"], ["x", "x"], np.array([1, value]), explicit=True)


@pytest.mark.parametrize("times", [[1, 1e30], [1, -1], [1, math.nan], [1, 10**12], [20240531, 20240601]])
def test_times_that_are_none_are_refused(times):
    with pytest.raises(UserError, match="^row [12], time: expected seconds since 1970"):
        Interactions.of(["a", "b"], ["x", "x"], np.ones(2), np.array(times))


def test_columns_of_different_lengths_are_refused():
    with pytest.raises(UserError, match=r"differ in length: \[1, 2\]"):
        Interactions.of(["a", "b"], ["x"], np.ones(2))
