import numpy as np
import pytest

from msgm.errors import UserError
from msgm.recommender.data import Interactions
from msgm.recommender.data.rating_rows import FileSource, RatedSource, RatingRows, core, select, with_attributes


class Files(FileSource):
    def load(self):
        raise NotImplementedError


class Rated(RatedSource):
    def load(self):
        raise NotImplementedError


def rating_rows(pairs, ratings=None, **columns):
    users, items = zip(*pairs, strict=True)
    ratings = None if ratings is None else np.array(ratings, dtype=float)
    return RatingRows(users, items, lambda row: f"file, line {row + 10}", ratings, **columns)


def test_a_doubled_pair_is_refused_by_line_or_its_last_row_kept():
    doubled = rating_rows(["ax", "bx", "ax", "by"], [1, 2, 3, 4], times=np.array([1, 2, 3, 4]))
    with pytest.raises(UserError, match="file, line 12: user a and item x are given twice"):
        Rated(feedback="explicit").rated(doubled)
    data = Rated(feedback="explicit", duplicates="last").rated(doubled)
    assert data.matrix.toarray().tolist() == [[3, 0], [2, 4]]
    assert data.times.tolist() == [3, 2, 4]


def test_the_last_of_doubled_rows_is_that_of_the_latest_time_and_of_a_tie_the_later_row():
    doubled = rating_rows(["ax", "ax", "bx", "bx"], [1, 2, 3, 4], times=np.array([9, 1, 5, 5]))
    data = Rated(feedback="explicit", duplicates="last").rated(doubled)
    assert (data.matrix.data.tolist(), data.times.tolist()) == ([1, 4], [9, 5])


def test_a_last_rating_below_the_threshold_does_not_bring_the_one_before_back():
    rows = rating_rows(["ax", "bx", "ax"], [5, 5, 1])
    data = Rated(duplicates="last", threshold=4).rated(rows)
    assert data.users.ids == ["b"]


def test_errors_after_the_last_of_doubled_rows_name_the_right_line():
    with pytest.raises(UserError, match="file, line 12: the value is 0"):
        Rated(feedback="explicit", duplicates="last").rated(rating_rows(["ax", "ax", "bx"], [1, 2, 0]))


def test_implicit_feedback_takes_every_row_or_those_from_the_threshold_on():
    rows = rating_rows(["ax", "ay", "bx", "cz"], [5, 3, 4, 0])
    data = Rated().rated(rows)
    assert data.matrix.data.tolist() == [1, 1, 1, 1]
    assert not data.explicit
    data = Rated(threshold=4).rated(rows)
    assert (data.users.ids, data.items.ids, data.matrix.toarray().tolist()) == (["a", "b"], ["x"], [[1], [1]])


def test_explicit_feedback_keeps_ratings():
    data = Rated(feedback="explicit").rated(rating_rows(["ax", "bx"], [4.5, 2]))
    assert data.explicit
    assert data.matrix.data.tolist() == [4.5, 2]


def test_data_without_ratings_are_implicit():
    assert Rated().rated(rating_rows(["ax", "bx"])).matrix.data.tolist() == [1, 1]


@pytest.mark.parametrize(
    ("settings", "sentence"),
    [
        ({"feedback": "explicit"}, "data.feedback explicit needs ratings"),
        ({"threshold": 3.0}, "data.threshold needs ratings"),
        ({"threshold": 3.0, "feedback": "explicit"}, "data.threshold is for implicit feedback, got 3 with explicit"),
        ({"min_count": 0}, "data.min_count must be at least 1, got 0"),
    ],
)
def test_settings_that_do_not_fit_are_refused(settings, sentence):
    with pytest.raises(UserError, match=sentence):
        Rated(**settings).rated(rating_rows(["ax", "bx"]))


def test_a_threshold_that_leaves_nothing_is_refused():
    with pytest.raises(UserError, match="data.threshold 9 leaves none of the 2 interactions"):
        Rated(threshold=9).rated(rating_rows(["ax", "bx"], [1, 2]))


def test_the_core_drops_rare_users_and_items_until_none_is_left():
    # Without d, item z has one user; without z, user c has one item; the rest stands.
    pairs = ["ax", "ay", "bx", "by", "cx", "cz", "dz"]
    data = Files(min_count=2).collect(rating_rows(pairs, times=np.arange(7)))
    assert (data.users.ids, data.items.ids) == (["a", "b"], ["x", "y"])
    assert data.times.tolist() == [0, 1, 2, 3]
    with pytest.raises(UserError, match="data.min_count 3 leaves none of the 7 interactions"):
        Files(min_count=3).collect(rating_rows(pairs))


def test_the_core_of_random_data_is_the_largest_with_the_counts():
    cells = np.unique(np.random.default_rng(0).integers(0, 40, size=(300, 2)), axis=0)
    data = Interactions.of([str(u) for u in cells[:, 0]], [str(i) for i in cells[:, 1]], np.ones(len(cells)))
    left = core(data, 5)
    assert 0 < left.matrix.nnz < len(cells)
    assert np.diff(left.matrix.indptr).min() >= 5
    assert np.bincount(left.matrix.indices).min() >= 5
    pairs = {(str(u), str(i)) for u, i in cells}
    while True:  # one at a time, which must end at the same set
        users, items = [u for u, _ in pairs], [i for _, i in pairs]
        rare = next((p for p in sorted(pairs) if users.count(p[0]) < 5 or items.count(p[1]) < 5), None)
        if rare is None:
            break
        pairs.remove(rare)
    rows, columns = left.matrix.nonzero()
    assert {(left.users.ids[u], left.items.ids[i]) for u, i in zip(rows, columns, strict=True)} == pairs


def test_selecting_cells_takes_times_attributes_tags_and_test_marks_along():
    data = Interactions.of(list("abbc"), list("xxyy"), np.array([1.0, 2, 3, 4]), np.arange(4), True, np.arange(4) > 2)
    data = with_attributes(data, ["c", "a", "b"], {"gender": ["F", "M", "F"]}, str)
    data = Interactions(
        data.matrix,
        data.users,
        data.items,
        data.times,
        data.attributes,
        {"t": np.array([True, False])},
        True,
        data.test,
    )
    left = select(data, np.array([False, False, True, True]), "a test")
    assert (left.users.ids, left.items.ids) == (["b", "c"], ["y"])
    assert left.matrix.toarray().tolist() == [[3], [4]]
    assert left.times.tolist() == [2, 3]
    assert left.attributes["gender"].tolist() == ["F", "F"]
    assert left.tags["t"].tolist() == [False]
    assert left.test.tolist() == [False, True]
    assert left.explicit


def test_attributes_follow_ids_and_are_empty_where_not_known():
    data = Interactions.of(list("abc"), list("xxx"), np.ones(3))
    known = with_attributes(data, ["c", "a", "stranger"], {"age": ["30", "20", "50"]}, str)
    assert known.attributes["age"].tolist() == ["20", "", "30"]
    with pytest.raises(UserError, match="file, line 2: user a is given twice"):
        with_attributes(data, ["c", "a", "a"], {"age": ["1", "2", "3"]}, lambda row: f"file, line {row}")
