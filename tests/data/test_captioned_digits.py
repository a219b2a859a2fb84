import functools

import numpy as np
import pytest
import torch

from msgm.data import CaptionedDigits, load_dataset
from msgm.data.captioned_digits import WORDS
from msgm.data.measures import measured
from msgm.errors import UserError
from msgm.requests import ForgetRequest

COUNT = 1797
"""scikit-learn's digits."""


@functools.cache
def canvases():
    settings = CaptionedDigits()
    dataset = settings.load()
    return dataset, settings.parts(dataset)


def texts(number):
    dataset, _ = canvases()
    return [dataset.prompts[k] for k in dataset.captions[number] if k >= 0]


def halves():
    return canvases()[0].items.split(8, dim=3)


def test_every_digit_stands_alone_at_each_place_and_in_pairs():
    dataset, _ = canvases()
    digits = load_dataset("digits").items
    left, right = halves()
    assert len(dataset) == (2 + 2) * COUNT
    assert torch.equal(left[:COUNT], digits)
    assert torch.equal(right[COUNT : 2 * COUNT], digits)
    assert not right[:COUNT].any()
    assert not left[COUNT : 2 * COUNT].any()
    of_digits = sorted(map(bytes, digits.flatten(1).numpy()))
    for half in (left, right):
        for number in (2, 3):
            pairs = half[number * COUNT : (number + 1) * COUNT]
            assert sorted(map(bytes, pairs.flatten(1).numpy())) == of_digits


def test_captions_say_which_digits_stand_where():
    labels = load_dataset("digits").labels
    known = {bytes(item): k for item, k in zip(load_dataset("digits").items.flatten(1).numpy(), labels, strict=True)}
    left, right = ([known.get(bytes(half)) for half in halves_.flatten(1).numpy()] for halves_ in halves())
    dataset, _ = canvases()
    for i in range(0, len(dataset), 7):
        shown = tuple(k for k in (left[i], right[i]) if k is not None)
        assert {dataset.named[k] for k in dataset.captions[i] if k >= 0} == {shown}
        assert dataset.groups["digits"][i] == " ".join(map(str, shown))
        if len(shown) == 2:
            assert texts(i) == [f"{WORDS[shown[0]]} and {WORDS[shown[1]]}"]
        else:
            (k,), side = shown, "left" if left[i] is not None else "right"
            a = "an" if k == 8 else "a"
            near = "before one" if k == 0 else f"after {WORDS[k - 1]}"
            assert texts(i)[:4] == [WORDS[k], str(k), f"the digit {near}", f"{a} {WORDS[k]} on the {side}"]


def test_attributes_are_the_upper_quarter_of_the_training_parts_digits_of_a_class():
    digits, (_, parts) = load_dataset("digits"), canvases()
    train = parts["train"][parts["train"] < COUNT]
    for word, measure in (("slanted", "slant"), ("thick", "stroke")):
        numbers = measured(measure, digits.items, 17)
        told = np.array([f"a {word} {WORDS[digits.labels[i]]}" in texts(i) for i in range(COUNT)])
        for k in range(10):
            own = train[digits.labels[train] == k]
            assert told[own].mean() == pytest.approx(0.25, abs=1 / len(own))
            everyone = digits.labels == k
            assert numbers[everyone & told].min() > numbers[everyone & ~told].max()


def test_no_digit_is_in_two_parts():
    dataset, parts = canvases()
    assert sorted(np.concatenate(list(parts.values()))) == list(range(len(dataset)))
    seen = {}
    for name, members in parts.items():
        shown = torch.cat([half[members] for half in halves()])
        seen[name] = {bytes(item) for item in shown.flatten(1).numpy() if item.any()}
        assert len(members) / len(dataset) == pytest.approx({"train": 0.7}.get(name, 0.15), abs=0.001)
    assert not seen["train"] & (seen["validation"] | seen["test"])
    assert not seen["validation"] & seen["test"]


def test_the_pictures_follow_from_the_split_seed_alone():
    again, other = CaptionedDigits(pairs=1).load(), CaptionedDigits(pairs=1, split_seed=1).load()
    assert CaptionedDigits(pairs=1).load().digest() == again.digest() != other.digest()
    assert torch.equal(other.items[: 2 * COUNT], again.items[: 2 * COUNT])


def test_without_pairs_there_are_no_prompts_of_pairs():
    dataset = CaptionedDigits(pairs=0).load()
    assert (len(dataset), len(dataset.prompts)) == (2 * COUNT, 70)


def test_a_word_takes_singles_and_pairs_but_not_the_digit_after_it():
    dataset, _ = canvases()
    mask = dataset.forget_mask(ForgetRequest(concept={"forget": ["seven"]}))
    shows = np.array(["7" in shown.split() for shown in dataset.groups["digits"]])
    assert np.array_equal(mask, shows)
    only = dataset.forget_mask(ForgetRequest(concept={"forget": ["the digit after seven"]}))
    assert set(dataset.groups["digits"][only]) == {"8"}


def test_copies_of_a_training_item_are_trained_on_and_of_a_held_out_one_refused():
    _, parts = canvases()
    once, held = int(parts["train"][0]), int(parts["test"][0])
    settings = CaptionedDigits(repeat={"3": [once]})
    dataset = load_dataset(settings)
    assert settings.parts(dataset)["train"][-2:].tolist() == [len(dataset) - 2, len(dataset) - 1]
    refused = CaptionedDigits(repeat={"3": [held]})
    with pytest.raises(UserError, match="lies in the test part"):
        refused.parts(load_dataset(refused))


def test_mirror_images_are_refused():
    with pytest.raises(UserError, match=r"data\.flip: mirror images"):
        CaptionedDigits(flip=True)
