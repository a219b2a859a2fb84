"""RMSE: closed form, range, and models that predict no rating."""

import numpy as np
import pytest

from msgm.recommender.metrics import METRICS
from msgm.recommender.requests import Deletion
from tests.recommender.metrics.worlds import Given, given, split_of, tiny_case


class Rated(Given):
    explicit = True


def rated(table):
    model = given(table)
    model.__class__ = Rated
    return model


def rmse(model, deletion=None, explicit=True):
    split = split_of([[1, 5, 0, 0], [4, 0, 0, 0]], [[0, 0, 3, 2], [0, 5, 0, 0]])
    case = tiny_case(model, split, deletion or Deletion(), explicit=explicit)
    return METRICS.build({"name": "rating"}).measure(case)["rmse"]


TABLE = [[0, 0, 3.5, 4.0], [0, 9.0, 0, 0]]


def test_predictions_are_held_to_the_range_of_the_ratings():
    assert rmse(rated(TABLE)) == pytest.approx(np.sqrt((0.5**2 + 2**2 + 0) / 3))


def test_forgotten_users_do_not_count():
    assert rmse(rated(TABLE), Deletion(users=np.array([0]))) == 0


def test_only_models_of_ratings_on_ratings_have_one():
    assert rmse(given(TABLE)) is None
    assert rmse(rated(TABLE), explicit=False) is None
    assert rmse(rated(TABLE), Deletion(users=np.array([0, 1]))) is None
