from dataclasses import replace

import numpy as np
import torch

from msgm.data import Dataset
from msgm.data.captions import drawn, packed
from msgm.requests import Concept

ITEMS = Dataset("four", torch.arange(4, dtype=torch.uint8).view(4, 1, 1, 1), (1, 1, 1), 17)
CAPTIONED = replace(
    ITEMS,
    prompts=["seven", "a seven", "seven and two", "two", "the digit after seven"],
    captions=np.array([[1, 0], [2, -1], [3, -1], [4, -1]]),
    named=[(7,), (7,), (7, 2), (2,), (8,)],
)


def test_packing_keeps_the_order_and_drops_empty_columns():
    assert packed(np.array([[-1, 5, -1, 1], [2, -1, -1, -1]])).tolist() == [[5, 1], [2, -1]]
    assert packed(np.full((2, 3), -1)).tolist() == [[-1], [-1]]


def test_every_caption_of_an_item_is_drawn_equally_often_and_none_of_an_item_without():
    rows = np.repeat([[4, 2, 9], [3, 8, -1], [-1, -1, -1]], 600, axis=0)
    found = drawn(rows, np.tile(np.linspace(0, 1, 600, endpoint=False, dtype=np.float32), 3)).reshape(3, 600)
    values = [dict(zip(*np.unique(row, return_counts=True), strict=True)) for row in found]
    assert values == [{4: 200, 2: 200, 9: 200}, {3: 300, 8: 300}, {-1: 600}]


def test_items_to_forget_are_asked_for_by_the_prompts_that_they_mention():
    view = CAPTIONED.asked_by(Concept(forget=["two", "Seven"], keep=["a dog", ""], anchor="a digit"))
    assert view.prompts == [*CAPTIONED.prompts, "Seven", "a dog", "a digit"]
    assert view.captions.tolist() == [[5, -1], [3, 5], [3, -1], [5, -1]]
    assert len(view.named) == len(view.prompts)


def test_a_prompt_whose_classes_are_known_is_not_asked_of_an_item_of_others():
    assert CAPTIONED.asked_by(Concept(forget=["seven"])).captions.tolist() == [[0], [0], [-1], [-1]]


def test_data_without_a_concept_or_without_captions_stay_as_they_are():
    assert CAPTIONED.asked_by(None) is CAPTIONED
    assert ITEMS.asked_by(Concept(forget=["seven"])) is ITEMS


def test_a_view_shares_the_items_on_the_device():
    on_device = CAPTIONED.resident(torch.device("cpu"))
    assert CAPTIONED.asked_by(Concept(forget=["seven"])).resident(torch.device("cpu")) is on_device


def test_labels_are_asked_for_where_there_are_no_prompts():
    labelled = replace(ITEMS, labels=np.array([7, 2, 7, 8]))
    chosen, draws = np.array([3, 1]), np.zeros(2, dtype=np.float32)
    assert labelled.asked(chosen, draws).tolist() == [8, 2]
    assert ITEMS.asked(chosen, draws) is None
    assert CAPTIONED.asked(np.array([0, 0]), np.array([0.1, 0.9], dtype=np.float32)).tolist() == [1, 0]
