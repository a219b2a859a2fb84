import numpy as np
import pytest

from msgm.errors import UserError
from msgm.recommender.attributes.labels import chosen, encode, shuffled

TEXTS = np.array(["M", "F", "", "M", "F", "M"])


def test_users_without_a_value_are_dropped_and_counted():
    (labels,) = encode({"gender": TEXTS})
    assert labels.values == ("F", "M")
    assert labels.codes.tolist() == [1, 0, -1, 1, 0, 1]
    assert labels.missing == 1
    assert [each.tolist() for each in labels.members()] == [[1, 4], [0, 3, 5]]
    assert labels.one_hot().tolist() == [[0, 1], [1, 0], [0, 0], [0, 1], [1, 0], [0, 1]]


def test_forgotten_users_have_no_value():
    (labels,) = encode({"gender": TEXTS}, np.array([True, False, False, False, False, False]))
    assert labels.codes.tolist() == [-1, 0, -1, 1, 0, 1]


@pytest.mark.parametrize(("texts", "found"), [(["F", "F", ""], "only the value 'F'"), (["", "", ""], "no value")])
def test_an_attribute_with_fewer_than_two_values_is_refused(texts, found):
    with pytest.raises(UserError, match=f"attribute 'gender' has {found}; .*at least two values"):
        encode({"gender": np.array(texts)})


def test_values_of_forgotten_users_alone_do_not_count():
    with pytest.raises(UserError, match="only the value 'M'"):
        encode({"gender": np.array(["F", "M", "M"])}, np.array([True, False, False]))


def test_no_attribute_is_refused():
    with pytest.raises(UserError, match="no attribute is given"):
        encode({})


def test_an_unknown_name_is_refused_with_the_nearest():
    with pytest.raises(
        UserError, match="unknown attribute 'gendre'; the data have age, gender. Did you mean 'gender'?"
    ):
        chosen({"gender": TEXTS, "age": TEXTS}, ["gendre"])


def test_shuffling_keeps_counts_and_who_is_known():
    (labels,) = encode({"gender": np.array(["F", "M", ""] * 30)})
    dealt = shuffled(labels, np.random.default_rng(0))
    assert (dealt.known == labels.known).all()
    assert (np.bincount(dealt.codes[dealt.known]) == np.bincount(labels.codes[labels.known])).all()
    assert (dealt.codes != labels.codes).any()
