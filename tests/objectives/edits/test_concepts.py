"""Which places of prompts edits read: never padding as a concept, never the first word of several, no pair dropped."""

import pytest
import torch

from msgm.errors import UserError
from msgm.objectives.edits.concepts import CHUNK, Texts
from tests.objectives.edits.texts import BEGIN, END, PLACES, encode, vector


def pairs(part):
    texts, targets = zip(*part, strict=True)
    return torch.cat(texts), torch.cat(targets)


def test_a_concept_of_several_words_is_read_at_its_last():
    texts, targets = pairs(Texts(encode, ["a slanted seven"], ["the one"]).erased("last"))
    assert torch.equal(texts, vector(BEGIN, "a", "slanted", "seven")[None])
    assert torch.equal(targets, vector(BEGIN, "the", "one")[None])


def test_all_words_are_led_to_the_last_word_of_the_guide_and_padding_is_no_word():
    texts, targets = pairs(Texts(encode, ["slanted seven"], ["one"]).erased("words"))
    assert torch.equal(texts, torch.stack([vector(BEGIN, "slanted"), vector(BEGIN, "slanted", "seven")]))
    assert torch.equal(targets, vector(BEGIN, "one").expand(2, -1))


@pytest.mark.parametrize("tokens", ["last", "words"])
def test_end_and_padding_are_read_only_where_they_are_asked_for(tokens):
    found, _ = pairs(Texts(encode, ["seven", "three"], ["", "one"], ["two"]).erased(tokens))
    kept, _ = pairs(Texts(encode, [], [], ["two"]).kept(tokens))
    assert len(found) == 2
    assert torch.equal(kept, vector(BEGIN, "two")[None])


def test_the_last_word_and_all_behind_it_go_to_the_guides_one_by_one():
    texts, targets = pairs(Texts(encode, ["a seven"], ["one"]).erased("rest"))
    assert len(texts) == PLACES - 2
    assert torch.equal(texts[0], vector(BEGIN, "a", "seven"))
    assert torch.equal(texts[-1], vector(BEGIN, "a", "seven", *[END] * (PLACES - 3)))
    assert torch.equal(targets[0], vector(BEGIN, "one"))
    assert torch.equal(targets[-1], vector(BEGIN, "one", *[END] * (PLACES - 3)))
    assert len(pairs(Texts(encode, [], [], ["two"]).kept("rest"))[0]) == PLACES


def test_the_empty_prompt_as_a_guide_is_its_begin():
    _, targets = pairs(Texts(encode, ["seven"], [""]).erased("last"))
    assert torch.equal(targets, vector(BEGIN)[None])


@pytest.mark.parametrize(("tokens", "count"), [("last", 1), ("words", 1), ("rest", PLACES)])
def test_the_empty_prompt_may_be_kept_while_it_is_the_anchor(tokens, count):
    texts = Texts(encode, ["seven"], [""], [""])
    kept, targets = pairs(texts.kept(tokens))
    assert len(kept) == count
    assert torch.equal(kept, targets)
    assert torch.equal(kept[0], pairs(texts.erased("last"))[1][0])


def test_a_prompt_without_a_word_cannot_be_forgotten():
    with pytest.raises(UserError, match="holds no word"):
        list(Texts(encode, [" "], ["one"]).erased("last"))


def test_prompts_without_a_guide_of_their_own_are_never_dropped():
    with pytest.raises(UserError, match="one for each of the 2 prompts to forget"):
        Texts(encode, ["seven", "three"], ["one"])


def test_a_prompt_to_forget_and_to_keep_is_refused():
    with pytest.raises(UserError, match="'seven' is to be forgotten too"):
        Texts(encode, ["seven"], ["one"], ["two", "seven"])


def test_many_prompts_are_embedded_a_few_at_a_time_and_none_is_lost():
    asked = []

    def counting(prompts):
        asked.append(len(prompts))
        return encode(prompts)

    forget = [f"word{number}" for number in range(2 * CHUNK + 3)]
    texts, targets = pairs(Texts(counting, forget, ["one"] * len(forget)).erased("last"))
    assert max(asked) == CHUNK
    assert len(texts) == len(targets) == len(forget)
    assert torch.equal(texts[-1], vector(BEGIN, forget[-1]))
