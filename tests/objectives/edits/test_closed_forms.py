"""UCE, RECE and MACE on layers of random weights: each is the optimum that it says, layer by layer, without algebra."""

import copy

import pytest
import torch
from torch import nn

from msgm.errors import UserError
from msgm.objectives.edits import MACE, RECE, UCE
from msgm.objectives.edits.concepts import Texts
from msgm.objectives.edits.cross_attention import gram_of, write
from msgm.objectives.edits.mace import Sentence, others
from msgm.objectives.edits.rece import adversary
from tests.objectives.edits.texts import BEGIN, END, PLACES, WIDTH, encode, vector

FORGET, GUIDES, KEEP = ["a slanted seven", "three"], ["", "the one"], ["two", "a left four"]
TEXTS = Texts(encode, FORGET, GUIDES, KEEP)
EYE = torch.eye(WIDTH, dtype=torch.float64)


@pytest.fixture
def layers():
    draws = torch.Generator().manual_seed(0)
    made = {f"{block}.attn2.to_{kind}": nn.Linear(WIDTH, 10 * block, bias=False) for block in (1, 2) for kind in "kv"}
    for layer in made.values():
        layer.weight.data = torch.randn(layer.weight.shape, generator=draws, dtype=torch.float64)
    return made


def edited(layers, edit, texts=TEXTS):
    """The weights before and after an edit, by layer."""
    edit.facts = {}
    after = copy.deepcopy(layers)
    write(after, edit.solution(after, texts))
    return [(layers[name].weight.detach(), layer.weight.detach()) for name, layer in after.items()]


def stationary(weight, objective, start):
    """Whether the gradient of an objective is zero at a weight, beside that at another one."""

    def slope(at):
        at = at.clone().requires_grad_(True)
        return torch.autograd.grad(objective(at), at)[0].norm()

    return bool(slope(weight) < 1e-10 * slope(start))


def mapped(weight, old, texts, targets, scale=1.0):
    return scale * (texts @ weight.T - targets @ old.T).square().sum()


LAST = torch.stack([vector(BEGIN, "a", "slanted", "seven"), vector(BEGIN, "three")])
LED_TO = torch.stack([vector(BEGIN), vector(BEGIN, "the", "one")])
KEPT = torch.stack([vector(BEGIN, "two"), vector(BEGIN, "a", "left", "four")])


def test_uce_is_the_optimum_of_its_objective_with_each_scale(layers):
    edit = UCE(lam=0.3, erase_scale=1.7, preserve_scale=0.6)
    for old, new in edited(layers, edit):

        def objective(weight, old=old):
            near = 0.3 * (weight - old).square().sum()
            return near + mapped(weight, old, LAST, LED_TO, 1.7) + mapped(weight, old, KEPT, KEPT, 0.6)

        assert stationary(new, objective, old)
        assert not torch.allclose(new, old)


def test_the_empty_prompt_is_anchor_and_kept_at_once_by_what_it_gave_at_first(layers):
    begin, seven = vector(BEGIN), vector(BEGIN, "seven")
    for old, new in edited(layers, UCE(lam=0.01), Texts(encode, ["seven"], [""], [""])):
        apart = (old @ (seven - begin)).norm()
        assert (new @ seven - old @ begin).norm() < 0.01 * apart
        assert (new @ begin - old @ begin).norm() < 0.01 * apart


def test_uce_reads_the_places_that_tokens_names(layers):
    found = {tokens: edited(layers, UCE(tokens=tokens)) for tokens in ("last", "words", "rest")}
    for (_, last), (_, words), (_, rest) in zip(*found.values(), strict=True):
        assert not torch.allclose(last, words)
        assert not torch.allclose(last, rest)
        assert not torch.allclose(words, rest)


def test_the_order_of_concepts_does_not_matter_and_none_is_left_out(layers):
    turned = Texts(encode, FORGET[::-1], GUIDES[::-1], KEEP[::-1])
    one = Texts(encode, FORGET[:1], GUIDES[:1], KEEP)
    for edit in (UCE(), RECE(), MACE(contexts=["{}", "a {} left"])):
        whole, other, less = (edited(layers, edit, texts) for texts in (TEXTS, turned, one))
        for (_, first), (_, second), (_, third) in zip(whole, other, less, strict=True):
            torch.testing.assert_close(first, second, rtol=1e-9, atol=1e-9)
            assert not torch.allclose(first, third)


@pytest.mark.parametrize("edit", [UCE(), UCE(tokens="words"), UCE(tokens="rest"), MACE(contexts=["a {}", "{}"])])
def test_a_concept_that_is_its_own_guide_changes_no_bit(layers, edit):
    texts = Texts(encode, ["seven", "three"], ["seven", "three"], ["two"])
    for old, new in edited(layers, edit, texts):
        assert torch.equal(old, new)


def test_the_adversarial_embedding_is_the_optimum_of_its_objective(layers):
    change = UCE(lam=0.1).solution(layers, TEXTS)
    after, mu = copy.deepcopy(layers), 0.1
    write(after, change)
    star = LAST[:1] @ adversary(gram_of(layers), change, mu).T

    def objective(embedding):
        pairs = [(layers[name].weight.detach(), layer.weight.detach()) for name, layer in after.items()]
        return sum(mapped(new, old, embedding, LAST[:1]) for old, new in pairs) + mu * embedding.square().sum()

    def mapped(new, old, embedding, text):
        return (embedding @ new.T - text @ old.T).square().sum()

    assert stationary(star, objective, LAST[:1])


def test_a_round_of_rece_is_uces_edit_of_the_adversarial_embedding_near_the_round_before(layers):
    """Targets are what the layers gave at first, not in the round before."""
    settings = {"lam": 0.2, "erase_scale": 1.5, "preserve_scale": 0.3, "mu": 0.05}
    first = UCE(lam=0.2, erase_scale=1.5, preserve_scale=0.3)
    near, change = edited(layers, first), first.solution(layers, TEXTS)
    for rounds in (1, 2):
        made = RECE(rounds=rounds, **settings)
        star = LAST @ adversary(gram_of(layers), change, 0.05).T
        after = edited(layers, made)
        for (old, before), (_, new) in zip(near, after, strict=True):

            def objective(weight, old=old, before=before, star=star):
                total = 0.2 * (weight - before).square().sum()
                return total + mapped(weight, old, star, LED_TO, 1.5) + mapped(weight, old, KEPT, KEPT, 0.3)

            assert stationary(new, objective, before)
        near, change = after, made.solution(layers, TEXTS)


def test_every_round_of_rece_brings_the_adversarial_embedding_nearer_to_the_guide(layers):
    edit = RECE(rounds=4)
    edited(layers, edit)
    assert len(edit.facts["rounds"]) == 4
    assert all(each["after"] < 0.5 * each["before"] for each in edit.facts["rounds"])


CONTEXTS = ["a {}", "{} left"]


def context(*words):
    """The embeddings of all places of a prompt."""
    found = encode([" ".join(words)])
    return found.embedding[0]


def test_mace_refines_the_other_words_edits_each_concept_apart_and_fuses_them(layers):
    lam, preserve = 0.7, 0.4
    texts = Texts(encode, ["seven", "three"], ["one", "one"], ["two"])
    edit = MACE(lam=lam, preserve_scale=preserve, contexts=CONTEXTS)
    kept = context("two")
    beside = [others_of(concept) for concept in ("seven", "three")]
    for old, new in edited(layers, edit, texts):

        def optimum(near, pairs, kept=kept, old=old, preserve=preserve):
            """The ridge regression by the formula of the source, targets given as outputs."""
            left, right = lam * near, lam * EYE
            for inputs, outputs, scale in (*pairs, (kept, kept @ old.T, preserve)):
                left, right = left + scale * outputs.T @ inputs, right + scale * inputs.T @ inputs
            return left @ torch.linalg.inv(right)

        refined = optimum(old, [(texts, targets @ old.T, 1.0) for texts, targets in beside])
        fused = []
        for concept, (texts_beside, targets_beside) in zip(("seven", "three"), beside, strict=True):
            last = torch.stack([vector(BEGIN, "a", concept), vector(BEGIN, concept)])
            guide = torch.stack([vector(BEGIN, "a", "one"), vector(BEGIN, "one")])
            led = [(last, guide @ old.T, 1.0), (texts_beside, targets_beside @ old.T, 1.0)]
            own = optimum(refined, led, preserve=0.0)
            places = torch.cat([context("a", concept), context(concept, "left")])
            fused.append((places, places @ own.T, 1.0))
        torch.testing.assert_close(new, optimum(refined, fused), rtol=1e-10, atol=1e-10)


def others_of(concept):
    """The places of a concept's contexts that are not its own, and those with the guide."""
    pairs = []
    for asked, led_to, own in ((("a", concept), ("a", "one"), 2), ((concept, "left"), ("one", "left"), 1)):
        rest = torch.tensor([place for place in range(PLACES) if place != own])
        pairs.append((context(*asked)[rest], context(*led_to)[rest]))
    return tuple(torch.cat(part) for part in zip(*pairs, strict=True))


def test_a_concept_of_several_words_is_no_neighbour_of_itself(layers):
    texts = Texts(encode, ["slanted seven"], ["one"])
    asked, led_to = (Sentence.read(texts, "a {} left", concept) for concept in ("slanted seven", "one"))
    assert [part.tolist() for part in (asked.before, asked.own, asked.behind)] == [[1], [2, 3], [4]]
    assert torch.equal(asked.last, vector(BEGIN, "a", "slanted", "seven")[None])
    found, targets = others(asked, led_to, "words")
    assert torch.equal(found, torch.stack([vector(BEGIN, "a"), vector(BEGIN, "a", "slanted", "seven", "left")]))
    assert torch.equal(targets, torch.stack([vector(BEGIN, "a"), vector(BEGIN, "a", "one", "left")]))
    whole, with_guide = others(asked, led_to, "rest")
    assert len(whole) == 1 + 2 + 3  # begin, both words, and end and padding as far as the longer one has them
    assert torch.equal(whole[3], vector(BEGIN, "a", "slanted", "seven", "left", END))
    assert torch.equal(with_guide[3], vector(BEGIN, "a", "one", "left", END))


@pytest.mark.parametrize("contexts", [["a photo"], ["a {}, left"], ["{} and {}"], ["{} and a{}"], []])
def test_contexts_that_do_not_hold_the_concept_once_as_a_word_are_refused(contexts):
    with pytest.raises(UserError, match=r"edit\.contexts"):
        MACE(contexts=contexts)


def test_a_context_that_the_text_encoder_cuts_is_refused(layers):
    with pytest.raises(UserError, match="take a shorter context"):
        edited(layers, MACE(contexts=["an image of a {} on the left"]), Texts(encode, ["seven"], ["one"]))


@pytest.mark.parametrize(
    ("kind", "settings"),
    [
        (UCE, {"lam": 0.0}),
        (UCE, {"erase_scale": 0.0}),
        (UCE, {"preserve_scale": -1.0}),
        (RECE, {"mu": 0.0}),
        (RECE, {"rounds": 0}),
        (MACE, {"lam": -1.0}),
        (MACE, {"preserve_scale": -1.0}),
    ],
)
def test_wrong_settings_are_refused(kind, settings):
    with pytest.raises(UserError, match=rf"edit\.{next(iter(settings))}"):
        kind(**settings)
