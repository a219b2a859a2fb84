import re
from dataclasses import replace

import numpy as np
import pytest
import torch

from msgm.classifier.config import RequestSettings
from msgm.concepts import mentions
from msgm.config import load_config
from msgm.data import Dataset
from msgm.errors import UserError
from msgm.recommender.requests import RecommenderRequest
from msgm.requests import Concept, ForgetRequest

PROMPTS = ["seven", "the digit after six", "two", "Seven  and two", "seventeen", "a dog"]
CAPTIONS = np.array([[0, 1], [2, -1], [3, -1], [4, -1], [1, 0]])
"""Captions of five items; nothing is a dog."""
ITEMS = Dataset("five", torch.arange(5, dtype=torch.uint8).view(5, 1, 1, 1), (1, 1, 1), 17)
CAPTIONED = replace(ITEMS, prompts=PROMPTS, captions=CAPTIONS, named=[(7,), (7,), (2,), (7, 2), (), ()])


def forgotten(*prompts, data=CAPTIONED):
    return data.forget_mask(ForgetRequest(concept=Concept(forget=list(prompts)))).nonzero()[0].tolist()


@pytest.mark.parametrize(
    ("caption", "prompt", "expected"),
    [
        ("Seven and two", "seven", True),
        ("seventeen", "seven", False),
        ("a seven-headed dog", "seven", True),
        ("a painting by van\tGogh.", "Van Gogh", True),
        ("a van, Gogh", "van gogh", False),
        ("written in C++ today", "C++", True),
        ("abc", "a.c", False),
        ("七 and 2", "七", True),
    ],
)
def test_a_prompt_is_mentioned_as_whole_words_in_whatever_case(caption, prompt, expected):
    assert mentions([caption], [prompt]).tolist() == [[expected]]


def test_items_with_any_caption_that_mentions_a_prompt_are_forgotten():
    assert forgotten("seven") == [0, 2, 4]
    assert forgotten("seventeen", "two") == [1, 2, 3]


def test_a_prompt_that_no_caption_mentions_is_refused_with_the_nearest():
    with pytest.raises(UserError, match=re.escape("forget: no caption mentions 'sevn'; the nearest are 'seven', 's")):
        forgotten("two", "sevn")
    with pytest.raises(UserError, match="no caption mentions 'dog'"):  # the table has the prompt, and no item has it
        forgotten("dog")
    with pytest.raises(UserError, match=re.escape("mentions '七'; the nearest are 'seven', 'the digit after six'")):
        forgotten("七")


def test_data_without_captions_know_no_concept():
    with pytest.raises(UserError, match=r"request\.concept needs data with captions"):
        forgotten("seven", data=ITEMS)


@pytest.mark.parametrize(
    ("given", "told"),
    [
        ({}, "request.concept.forget: name at least one prompt"),
        ({"forget": "seven"}, "request.concept.forget: expected a list, such as [a, b], got 'seven'"),
        ({"forget": [" "]}, "request.concept.forget: expected a prompt, got an empty text"),
        ({"forget": ["seven", "seven"]}, "request.concept.forget: 'seven' is given twice"),
        ({"forget": ["seven"], "keep": ["two", "seven"]}, "request.concept.keep: 'seven' is to be forgotten too"),
        ({"forget": ["seven"], "anchors": ["two"]}, "request.concept.anchors: unknown setting"),
    ],
)
def test_a_concept_that_cannot_be_meant_is_refused(given, told):
    with pytest.raises(UserError, match=re.escape(told)):
        load_config({"request": {"concept": given}})


def test_prompts_of_another_kind_than_text_are_refused_in_python():
    with pytest.raises(UserError, match=re.escape("request.concept.keep: expected a prompt as text, got 2")):
        Concept(forget=["seven"], keep=[2])
    with pytest.raises(UserError, match=re.escape("request.concept.anchor: expected a prompt as text, got None")):
        Concept(forget=["seven"], anchor=None)


def test_a_concept_is_read_from_a_config_and_a_dictionary_alike():
    wish = ForgetRequest(concept={"forget": ["seven", 7], "keep": [""], "anchor": "two"})
    assert wish.concept == Concept(["seven", "7"], [""], "two")
    assert wish.selector() == "concept"
    lines = ["request.concept.forget=[seven,7]", "request.concept.keep=['']", "request.concept.anchor=two"]
    config = load_config({}, lines)
    assert config.request == wish
    assert load_config(config.to_dict()).request == wish


def test_a_concept_means_the_condition_unless_it_says_otherwise():
    concept = Concept(forget=["seven"])
    assert ForgetRequest(concept=concept).means == "condition"
    assert ForgetRequest(concept=concept, means="both").means == "both"
    assert ForgetRequest(labels=[7]).means is None
    assert ForgetRequest(concept=concept).describe() == (
        "suppression of the concept given by concept seven, as a condition"
    )


def test_a_model_that_reads_no_prompts_refuses_a_concept():
    for kind in (RequestSettings, RecommenderRequest):
        with pytest.raises(UserError, match=r"request\.concept names prompts, and this model reads none"):
            kind(concept={"forget": ["seven"]})
    ForgetRequest(concept={"forget": ["seven"]}).check_means(3)


def test_conditions_are_first_captions_where_there_are_prompts_and_labels_elsewhere():
    labels = np.array([7, 2, 7, 1, 7])
    assert replace(CAPTIONED, labels=labels).conditions.tolist() == [0, 2, 3, 4, 1]
    assert replace(ITEMS, labels=labels).conditions is labels
    assert ITEMS.conditions is None


def test_captions_follow_their_items_and_count_in_every_digest():
    twice = CAPTIONED.repeated(np.array([0, 1, 2, 3, 4, 2]))
    assert twice.captions.tolist() == [*CAPTIONS.tolist(), [3, -1]]
    several = (CAPTIONS >= 0).all(1, keepdims=True)
    other = replace(CAPTIONED, captions=np.where(several, CAPTIONS[:, ::-1], CAPTIONS))
    assert len({data.digest() for data in (ITEMS, CAPTIONED, other)}) == 3
    changed = [a != b for a, b in zip(CAPTIONED.item_digests(), other.item_digests(), strict=True)]
    assert changed == [True, False, False, False, True]
    assert [len(digest) for digest in ITEMS.item_digests()] == [32] * 5
