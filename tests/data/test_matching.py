"""The items to forget, given as a data set of their own, are found by content."""

import numpy as np
import pytest
import torch

from msgm.data import Dataset, load_dataset
from msgm.errors import UserError
from msgm.requests import ForgetRequest


def vectors(*rows, **known):
    return Dataset("points", torch.tensor(rows, dtype=torch.float32), (2,), None, **known)


DATA = vectors([0, 1], [2, 3], [0, 1], [4, 5], labels=np.array([0, 1, 1, 0]), classes=["a", "b"])


def forgotten(dataset, wanted):
    return np.flatnonzero(dataset.forget_mask(ForgetRequest(dataset=wanted))).tolist()


def test_every_item_of_the_same_content_is_forgotten_whatever_its_label():
    assert forgotten(DATA, vectors([0, 1])) == [0, 2]
    assert forgotten(DATA, vectors([4, 5], [2, 3], [2, 3])) == [1, 3]
    assert forgotten(vectors([-0.0, 1], [1, 1]), vectors([0.0, 1])) == [0]


def test_an_item_that_is_not_there_is_refused_by_its_position():
    with pytest.raises(UserError, match="request.dataset: item 1 of those to forget is not in the data set"):
        forgotten(DATA, vectors([0, 1], [0, 2], [9, 9]))


def test_items_of_another_kind_are_refused():
    with pytest.raises(UserError, match=r"items of shape \(1, 8, 8\) with 17 levels, and the data set has \(2,\)"):
        forgotten(DATA, "digits")


def test_all_items_cannot_be_forgotten():
    with pytest.raises(UserError, match="nothing is left to retain"):
        forgotten(DATA, DATA)


def test_images_are_found_beyond_the_first_chunk():
    digits = load_dataset("digits")
    part = Dataset("few", digits.items[[1500, 3]], digits.shape, digits.levels)
    found = forgotten(digits, part)
    assert set(found) >= {3, 1500}
    assert all(any(torch.equal(digits.items[i], item) for item in part.items) for i in found)
    assert ForgetRequest(dataset=part).describe().endswith("given by dataset of the items themselves")
