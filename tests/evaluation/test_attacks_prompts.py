"""Attacks by prompts, of models whose samples are known: that they find what is there, and nothing where nothing is."""

import copy
import functools
from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pytest
import torch

import msgm
from msgm.data import Dataset
from msgm.errors import UserError
from msgm.evaluation import Subject
from msgm.evaluation.attacks.embedding import inverted
from msgm.evaluation.attacks.guidance_sweep import GuidanceSweep
from msgm.evaluation.attacks.levels import clean_items
from msgm.evaluation.attacks.prefix_search import PrefixedWords, PrefixSearch, drawn_tokens, onto_simplex
from msgm.evaluation.attacks.prompting import (
    NO_PROMPTS,
    asked_samples,
    denoising_loss,
    items_by_word,
    latents_of,
    typeable,
)
from msgm.evaluation.attacks.token_search import TokenSearch, direction, embedded, evolved, replaced
from msgm.evaluation.metrics import METRICS
from msgm.requests import ForgetRequest
from tests.diffusion import small_pipelines as small
from tests.evaluation.attacks import bench_of, fresh, same, subject_of, tensors
from tests.evaluation.painters import SYNONYM, WORDS, captioned_bench, painter, pictures, renamed

FORGET = ["three", "seven"]
SHORT = {
    "embedding": {"items": 25, "steps": 300, "lr": 1e-3, "samples": 20},
    "token-search": {
        "pairs": [[SYNONYM, "one"]],
        "scale": 1.0,
        "length": 1,
        "generations": 5,
        "population": 20,
        "samples": 20,
    },
    "prefix-search": {"items": 6, "times": 8, "iterations": 10, "lr": 0.1, "length": 1},
}


QUICK = {"embedding": {"steps": 3}, "prefix-search": {"times": 1}}


def subject(model, bench=None):
    return Subject("model", model, bench or captioned_bench())


def measured(name, model, **options):
    return METRICS.build({"name": name, **SHORT[name], **options}).measure(subject(model))[name.replace("-", "_")]


def ratios(found):
    return [found[when]["unlearning_ratio"]["value"] for when in ("before", "after")]


@functools.cache
def result(name, kind):
    """The numbers of an attack on a kind of model, by the function that makes it."""
    return measured(name, kind())


def suppressed():
    """A model that shows a one when it is asked for a three or a seven, and still a seven for the synonym."""
    return renamed(painter(), FORGET, "one")


def retrained():
    """A model that holds no three and no seven."""
    return painter({"three": 1, "seven": 1, SYNONYM: 1})


def draws(seed=0):
    return torch.Generator().manual_seed(seed)


# All of them


@pytest.mark.parametrize("name", SHORT)
def test_a_model_that_forgot_nothing_is_broken_by_the_words_already(name):
    assert ratios(result(name, painter))[0] == 1


@pytest.mark.parametrize(("name", "least"), [("embedding", 1.0), ("token-search", 1.0), ("prefix-search", 0.5)])
def test_what_is_only_hidden_comes_back_and_what_is_not_there_does_not(name, least):
    before, after = ratios(result(name, suppressed))
    assert before == 0
    assert after >= least
    assert ratios(result(name, retrained)) == [0, 0]


@pytest.mark.parametrize("name", [*SHORT, "guidance-sweep"])
def test_the_model_stays_as_it_was(name):
    model = painter()
    before = tensors(model)
    METRICS.build({"name": name, **SHORT.get(name, {"scales": [2.0]}), **QUICK.get(name, {})}).measure(subject(model))
    assert same(tensors(model), before)
    assert all(p.grad is None and not p.requires_grad for p in model.network.parameters())


@pytest.mark.parametrize("name", [*SHORT, "guidance-sweep"])
def test_a_model_without_prompts_is_not_asked_and_data_without_captions_are_refused(name):
    metric, bench, captioned = METRICS.build({"name": name}), bench_of(), captioned_bench()
    assert metric.measure(subject_of(captioned, fresh(bench)))[metric.key]["not_tested"] == NO_PROMPTS
    with pytest.raises(UserError, match=rf"{name} asks by prompts, and digits has no captions; leave it out\.$"):
        metric.check(captioned.config, bench.dataset, bench.split)
    labels = replace(captioned.config, request=ForgetRequest(labels=[3, 7]))
    with pytest.raises(UserError, match=rf"{name} attacks words, so name them by request.concept.forget"):
        metric.check(labels, captioned.dataset, captioned.split)
    metric.check(captioned.config, captioned.dataset, captioned.split)


@pytest.mark.parametrize(
    ("name", "option", "value"),
    [
        ("embedding", "items", 0),
        ("embedding", "lr", 0.0),
        ("token-search", "population", 1),
        ("token-search", "mutation", 1.5),
        ("token-search", "pairs", [["seven"]]),
        ("prefix-search", "times", 0),
        ("prefix-search", "decay", -1.0),
        ("guidance-sweep", "scales", []),
        ("guidance-sweep", "scales", [-1.0]),
        ("guidance-sweep", "samples", 0),
    ],
)
def test_options_out_of_range_are_refused(name, option, value):
    with pytest.raises(UserError, match=rf"^evaluation.options.{name}.{option}"):
        METRICS.build({"name": name, option: value})


@pytest.mark.parametrize("name", ["embedding", "prefix-search"])
def test_more_images_of_a_word_than_there_are_are_refused(name):
    bench = captioned_bench()
    with pytest.raises(UserError, match=rf"{name}.items: \d+ asked for, but there are \d+ .* that mention 'three'"):
        METRICS.build({"name": name, "items": 1000}).check(bench.config, bench.dataset, bench.split)


def test_the_items_of_a_word_are_those_whose_captions_mention_it():
    bench = captioned_bench()
    found = items_by_word(bench.config, bench.dataset, bench.split.train.forget)
    assert list(found) == FORGET
    assert {*bench.dataset.labels[found["seven"]]} == {7}
    assert sorted([*found["three"], *found["seven"]]) == bench.split.train.forget.tolist()
    captions = np.stack([bench.dataset.labels, np.full(len(bench.dataset), 10)], 1)
    captions[::2, 1] = -1
    more = replace(bench.dataset, prompts=[*WORDS, "a Three"], captions=captions, named=[])
    expected = [k for k in bench.split.train.forget if bench.dataset.labels[k] == 3 or k % 2]
    assert items_by_word(bench.config, more, bench.split.train.forget)["three"].tolist() == expected


def test_items_are_encoded_and_samples_decoded_where_there_is_an_autoencoder():
    model = msgm.ScoreModel.from_pretrained(small.stable_diffusion())
    raw = torch.randint(0, 256, (3, 3, 16, 16), generator=draws()).byte()
    data = Dataset("pictures", raw, (3, 16, 16), levels=256)
    found = latents_of(model.network, SimpleNamespace(dataset=data), np.arange(3))
    assert found.shape == (3, 4, 8, 8)
    pixels = clean_items(data, np.arange(3), torch.device("cpu"))
    torch.testing.assert_close(found, model.network.encode_images(pixels))
    assert asked_samples(model, ["seven"], 2, bench_of("sampling.steps=2")).shape == (2, 3, 16, 16)


def test_words_that_cannot_be_typed_are_no_tokens_of_a_search():
    from transformers import CLIPTokenizer

    letters = [chr(code) for code in range(97, 123)]
    words = [*letters, *(letter + "</w>" for letter in letters), "<|startoftext|>", "<|endoftext|>"]
    tokenizer = CLIPTokenizer(vocab={word: k for k, word in enumerate(words)}, merges=[])
    network = SimpleNamespace(standing=SimpleNamespace(parts={"tokenizer": tokenizer}))
    assert typeable(network) == letters
    assert typeable(network, ["A c"]) == [letter for letter in letters if letter not in "ac"]


# Embedding


def test_an_optimised_embedding_shows_the_mean_of_its_images_and_nothing_else_changes():
    model, images = suppressed(), pictures()
    found = inverted(model, FORGET, [images[3:4], images[7:8]], 300, 1e-3, 16, 0)
    before, after = (m.sample(2, "ddim", steps=5, condition=FORGET) - images[[3, 7]] for m in (model, found))
    assert after.abs().max() < 0.2 < 1.4 < before.abs().max()
    old, new = tensors(model), tensors(found)
    (changed,) = [name for name in old if not torch.equal(old[name], new[name])]
    number = model.network.standing.parts["tokenizer"].convert_tokens_to_ids
    assert changed.endswith("token_embedding.weight")
    assert (old[changed] != new[changed]).any(1).nonzero().flatten().tolist() == sorted(number(FORGET))


def test_its_loss_falls_to_that_of_the_model_that_forgot_nothing():
    found, base = (result("embedding", kind)["loss"] for kind in (suppressed, painter))
    assert found["before"] > 2 * base["before"]
    assert found["after"] < 1.1 * base["before"]


def test_all_tokens_of_a_word_are_optimised_in_every_text_encoder():
    model = msgm.ScoreModel.from_pretrained(small.stable_diffusion_xl())
    found = inverted(model, ["three two"], [torch.randn(2, *model.shape, generator=draws())], 2, 1e-2, 2, 0)
    old, new = tensors(model), tensors(found)
    changed = {name: (old[name] != new[name]).any(-1) for name in old if not torch.equal(old[name], new[name])}
    numbers = sorted(model.network.standing.parts["tokenizer"].convert_tokens_to_ids(["three", "two"]))
    assert len(changed) == 2
    assert all(rows.nonzero().flatten().tolist() == numbers for rows in changed.values())


def test_the_loss_of_an_exact_denoiser_is_that_of_its_picture():
    """At time t a model that shows m in the place of x0 is wrong by (x0 - m) a / sigma."""
    model, images = painter(), pictures()
    asked = model.asked(["one"], 1)
    t = model.process.training_times((torch.arange(16) + 0.5) / 16)
    weight = (model.process.signal(t) / model.process.noise(t)).square().mean()
    expected = float(weight * (images[7] - images[1]).square().mean())
    assert denoising_loss(model, images[7:8], asked, 0) == pytest.approx(expected, rel=1e-3)


# Token search


def test_the_search_finds_the_word_that_was_planted():
    """E(one) + (E(synonym) - E(one)) is the synonym's embedding, wherever the word itself leads."""
    assert result("token-search", suppressed)["prompts"] == [SYNONYM, SYNONYM]


def test_prompts_may_be_held_free_of_the_words_to_forget():
    options = {"pairs": [["seven", "one"]], "own_words": False}
    assert not {*FORGET} & {*measured("token-search", painter(), **options)["prompts"]}
    assert "seven" in measured("token-search", painter(), pairs=[["seven", "one"]])["prompts"][1]


def test_pairs_are_the_captions_with_the_word_and_with_the_anchor_in_its_place():
    bench = captioned_bench()
    prompts = ["a Seven", "seventeen", "seven and two", "two"]
    data = replace(bench.dataset, prompts=prompts, captions=np.zeros((len(bench.dataset), 1), int), named=[])
    pairs = TokenSearch()._pairs(replace(bench, dataset=data), "seven")
    assert pairs == [["a Seven", "a one"], ["seven and two", "one and two"]]
    assert replaced("the seven there", "seven", "") == "the there"
    network = painter().network
    one, two = (embedded(network, pair) for pair in (["seven", "one"], ["two seven", "two one"]))
    expected = ((one[0] - one[1]) + (two[0] - two[1])) / 2
    torch.testing.assert_close(direction(network, [["seven", "one"], ["two seven", "two one"]]), expected)


def test_evolution_finds_a_planted_row_and_never_loses_its_best():
    planted = torch.tensor([3, 14, 15])

    def distance(rows):
        return (rows != planted).sum(1).double()

    first = torch.randint(16, (60, 3), generator=draws())
    assert evolved(first, 16, distance, 40, 0.5, 0.25, draws()).equal(planted)
    for seed in range(20):  # every candidate but the best is drawn anew somewhere
        found = evolved(first[:8], 16, distance, 5, 0.5, 1.0, draws(seed))
        assert distance(found[None]) <= distance(first[:8]).min()


def test_without_mutation_every_place_keeps_to_what_stood_there():
    first = torch.randint(100, (30, 4), generator=draws())
    target = first.amax(0)
    found = evolved(first, 100, lambda rows: (target - rows).sum(1).double(), 30, 1.0, 0.0, draws())
    assert all(found[k] in first[:, k] for k in range(4))
    assert found.sum() > first.sum(1).max()


# Prefix search


def test_a_prefix_given_as_one_hot_tokens_is_read_as_the_typed_one():
    network = copy.deepcopy(painter().network)
    words = typeable(network)
    search = PrefixedWords(network, words, 2)
    chosen = torch.tensor([[3, 5], [10, 0]])
    weights = torch.nn.functional.one_hot(chosen, len(words)).float().requires_grad_()
    with search.reading(weights):
        found = network.encode(search.filled(["seven", "two"])).embedding
    typed = [
        " ".join([*(words[k] for k in row), word]) for row, word in zip(chosen.tolist(), ["seven", "two"], strict=True)
    ]
    torch.testing.assert_close(found, network.encode(typed).embedding)
    assert not torch.allclose(found, network.encode(search.filled(["seven", "two"])).embedding)
    (slope,) = torch.autograd.grad(found[0].sum(), weights)
    assert slope[0].abs().sum() > 0
    assert slope[1].abs().sum() == 0


def test_a_projection_onto_the_simplex_is_the_nearest_point():
    values = torch.randn(50, 6, generator=draws(), dtype=torch.float64)
    found = onto_simplex(values)
    torch.testing.assert_close(found.sum(1), torch.ones(50, dtype=torch.float64))
    assert found.min() >= 0
    torch.testing.assert_close(onto_simplex(found), found)
    others = torch.distributions.Dirichlet(torch.full((6,), 0.3, dtype=torch.float64)).sample((2000,))
    assert ((others - values[:, None]).norm(dim=2).min(1).values >= (found - values).norm(dim=1)).all()


def test_tokens_are_drawn_by_their_shares():
    shares = torch.tensor([[[0.0, 1.0, 0.0], [0.2, 0.0, 0.8]]]).repeat(4000, 1, 1)
    found = drawn_tokens(shares, draws())
    assert (found.sum(2) == 1).all()
    torch.testing.assert_close(found.mean(0), shares[0], atol=0.03, rtol=0)


def test_prefixes_of_successes_are_prompts_that_show_it():
    found = result("prefix-search", suppressed)
    broken = [prompt for prompt in found["prompts"] if prompt not in FORGET]
    assert len(broken) == round(6 * found["after"]["unlearning_ratio"]["value"])
    assert {prompt.split()[0] for prompt in broken} == {SYNONYM}
    assert {prompt.split()[1] for prompt in broken} <= {*FORGET}


def test_several_text_encoders_are_told_and_not_attacked():
    model = msgm.ScoreModel.from_pretrained(small.stable_diffusion_xl())
    found = PrefixSearch().measure(subject(model))["prefix_search"]
    assert found["not_tested"] == "the model reads prompts with 2 text encoders, and this attack takes one"


# Guidance sweep


def test_scale_0_asks_for_the_negative_prompt_alone_and_1_for_the_word():
    model, points = suppressed(), {}
    for found in (GuidanceSweep(scales=[0, 1], negatives=["", SYNONYM], samples=20).measure(subject(model)),):
        points = {(p["negative"], p["scale"]): p["unlearning_ratio"] for p in found["guidance_sweep"]["curve"]}
    assert {place: share["value"] for place, share in points.items()} == {
        ("", 0): 0, ("", 1): 0, (SYNONYM, 0): 1, (SYNONYM, 1): 0,
    }  # fmt: skip
    assert {share["n"] for share in points.values()} == {20}


def test_the_anchor_is_a_negative_prompt_by_default_and_the_guidance_of_sampling_is_not_added():
    bench = captioned_bench()
    guided = replace(bench, config=replace(bench.config, sampling=replace(bench.config.sampling, guidance=-1.0)))
    model, metric = painter(), GuidanceSweep(scales=[1.0], samples=10)
    plain, other = (metric.measure(subject(model, b))["guidance_sweep"] for b in (bench, guided))
    assert [point["negative"] for point in plain["curve"]] == ["", "one"]
    assert plain == other
    assert GuidanceSweep.followed(plain) == {"UR % by guidance scale and negative prompt": 100.0}
    assert GuidanceSweep.counted(plain) == {"UR % by guidance scale and negative prompt": 100 / 20}
