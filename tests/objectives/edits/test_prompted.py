"""Edits of prompts on whole pipelines of diffusers: what they change, what they say, and what a saved folder holds."""

import copy
from dataclasses import replace

import numpy as np
import pytest
import torch
from diffusers import StableDiffusionPipeline

import msgm
from msgm.chain import Chain, Entry
from msgm.errors import UserError
from msgm.objectives.edits import EDITS, MACE, UCE, EditSetup
from tests.diffusion import small_pipelines as small

NAMES = [name for name, edit in EDITS.entries.items() if edit.data == "prompts"]
CONCEPT = {"forget": ["seven", "a three"], "keep": ["two", "picture of one"], "anchor": "one"}
WISH = msgm.ForgetRequest(concept=CONCEPT)


@pytest.fixture(scope="module")
def base():
    return msgm.ScoreModel.from_pretrained(small.stable_diffusion())


def changed(before, after):
    """The names of the weights that differ."""
    weights = after.network.state_dict()
    return {name for name, value in before.network.state_dict().items() if not torch.equal(value, weights[name])}


@pytest.mark.parametrize("name", NAMES)
def test_the_keys_and_values_of_all_cross_attentions_change_and_nothing_else(base, name):
    before = copy.deepcopy(base)
    made = msgm.edit(base, None, name, WISH)
    expected = {f"unet.{layer}.weight" for layer in base.network.cross_attention()}
    assert {end.rpartition(".attn2.")[2] for end in expected} == {"to_k.weight", "to_v.weight"}
    assert changed(base, made) == expected
    assert not changed(before, base)


@pytest.mark.parametrize("name", NAMES)
def test_every_edit_runs_on_a_pipeline_with_two_text_encoders(name):
    found = msgm.ScoreModel.from_pretrained(small.stable_diffusion_xl())
    made = msgm.edit(found, None, name, WISH)
    assert changed(found, made) == {f"unet.{layer}.weight" for layer in found.network.cross_attention()}


def test_a_transformer_that_reads_text_and_picture_together_is_refused():
    found = msgm.ScoreModel.from_pretrained(small.stable_diffusion_3())
    with pytest.raises(UserError, match="no cross-attention"):
        msgm.edit(found, None, "uce", WISH)


def test_a_network_that_reads_no_text_is_refused():
    with pytest.raises(UserError, match="start from a text-to-image pipeline"):
        msgm.edit(msgm.ScoreModel.new("unet", shape=(1, 8, 8), channels=[8]), None, "uce", WISH)


def test_the_layers_give_for_the_prompt_what_they_gave_for_the_anchor(base):
    """Read through the layers themselves, at the last of the prompt's words."""
    edit = UCE(lam=1e-6)
    made = msgm.edit(base, None, edit, WISH)
    places = {"seven": 1, "a three": 2, "one": 1, "two": 1, "picture of one": 3}
    text = {prompt: base.network.encode([prompt]).embedding[0, place] for prompt, place in places.items()}
    after = made.network.cross_attention()
    for name, layer in base.network.cross_attention().items():
        for prompt in CONCEPT["forget"]:
            torch.testing.assert_close(after[name](text[prompt]), layer(text["one"]), rtol=1e-3, atol=1e-3)
            assert not torch.allclose(layer(text[prompt]), layer(text["one"]), rtol=1e-2, atol=1e-2)
        for prompt in CONCEPT["keep"]:
            torch.testing.assert_close(after[name](text[prompt]), layer(text[prompt]), rtol=1e-3, atol=1e-3)
    assert max(edit.facts["residual"].values()) < 1e-3
    assert max(edit.facts["drift"].values()) < 1e-3
    assert (edit.facts["concepts"], edit.facts["kept"]) == (2, 2)


def test_the_share_that_is_left_is_that_of_lambda_beside_the_squared_length_of_the_embedding(base):
    edit = UCE(lam=3.0)
    msgm.edit(base, None, edit, msgm.ForgetRequest(concept={"forget": ["seven"], "anchor": "one"}))
    share = edit.facts["lam_by_norm"]
    text = base.network.encode(["seven"]).embedding[0, 1]
    assert share == pytest.approx(3.0 / text.square().sum().item(), rel=1e-5)
    for left in edit.facts["residual"].values():
        assert left == pytest.approx(share / (1 + share), rel=1e-3)


def test_guides_of_their_own_take_the_place_of_the_anchor(base):
    wish = replace(WISH, concept=CONCEPT | {"anchor": ""})
    one = msgm.edit(base, None, {"name": "uce", "guides": ["one", "one"]}, wish)
    assert not changed(one, msgm.edit(base, None, "uce", WISH))
    assert changed(one, msgm.edit(base, None, "uce", wish))
    with pytest.raises(UserError, match="one for each of the 2 prompts"):
        msgm.edit(base, None, {"name": "uce", "guides": ["one"]}, WISH)


def test_a_pipeline_of_half_precision_is_edited_in_double(base):
    """Its weights are read as they are, and the edit rounds once: to float32."""
    half = copy.deepcopy(base)
    half.network.half().float()
    made = msgm.edit(half, None, UCE(lam=1e-4), WISH)
    again = copy.deepcopy(half)
    again.network.double()
    exact = UCE(lam=1e-4).apply(again, EditSetup.of_prompts(again, WISH.concept))
    for name, layer in exact.network.cross_attention().items():
        found = made.network.cross_attention()[name].weight
        torch.testing.assert_close(found, layer.weight.float(), rtol=1e-5, atol=1e-5)


def test_what_is_saved_is_what_was_edited_and_diffusers_samples_it(base, tmp_path):
    made = msgm.edit(base, None, UCE(lam=1e-4), WISH)
    made.save_pretrained(tmp_path / "saved")
    again = msgm.ScoreModel.from_pretrained(tmp_path / "saved")
    assert not changed(made, again)
    noise = {"num_inference_steps": 2, "output_type": "latent", "latents": torch.randn(1, 4, 8, 8)}
    pipeline = StableDiffusionPipeline.from_pretrained(tmp_path / "saved")
    pipeline.set_progress_bar_config(disable=True)
    theirs = pipeline("a seven", **noise).images
    assert torch.equal(theirs, made.to_pipeline()("a seven", **noise).images)
    assert not torch.allclose(theirs, base.to_pipeline()("a seven", **noise).images, atol=1e-4)


def test_the_request_stands_on_the_chain_of_the_saved_model(base, tmp_path):
    made = msgm.edit(base, None, "uce", WISH)
    made.save_pretrained(tmp_path / "saved")
    again = msgm.ScoreModel.from_pretrained(tmp_path / "saved")
    (entry,) = again.chain.requests
    assert (entry.by, entry.selector, len(entry.positions)) == ("uce", "concept", 0)
    assert "seven" in entry.text
    card = (tmp_path / "saved" / "README.md").read_text()
    assert "Suppression of a concept: prompts alone. Answered by uce" in card
    twice = msgm.edit(again, None, "rece", msgm.ForgetRequest(concept={"forget": ["two"]}))
    assert [entry.by for entry in twice.chain.requests] == ["uce", "rece"]
    anew = msgm.edit(again, None, "rece", msgm.ForgetRequest(concept={"forget": ["two"]}), fresh_chain=True)
    assert [entry.by for entry in anew.chain.requests] == ["rece"]
    assert anew.chain.anew


def test_earlier_requests_of_items_need_their_data(base):
    entry = Entry("x", "suppression", "concept", "labels", "obtuse", None, np.array([1]))
    chain = Chain().extended(entry, msgm.load_dataset("digits"), {}, b"k" * 32)
    asked = replace(base, chain=chain, sealed=None)
    with pytest.raises(UserError, match="give them too"):
        msgm.edit(asked, None, "uce", WISH)


def test_an_edit_of_items_is_refused_without_data(base):
    with pytest.raises(UserError, match="data: prune reads items, so name the data"):
        msgm.edit(base, None, "prune", WISH)
    with pytest.raises(UserError, match=r"request\.concept: without data a request names prompts"):
        msgm.edit(base, None, "uce", msgm.ForgetRequest(labels=[3]))


def test_the_labels_of_items_name_the_prompts_where_the_request_does_not(base):
    """A prompt is a class: label i asks for the i-th prompt of the network's table."""
    model = copy.deepcopy(base)
    model.network.set_prompts(["seven", "two", "one"])
    parts = EditSetup.of_prompts(model, WISH.concept)
    by_labels = UCE().apply(model, replace(parts, concept=None, forgotten=(0,), retained=(0, 1, 2)))
    by_words = UCE().apply(model, replace(parts, concept=msgm.Concept(["seven"], ["two", "one"])))
    assert not changed(by_labels, by_words)
    with pytest.raises(UserError, match=r"request\.concept: the edit forgets prompts"):
        UCE().apply(base, replace(parts, concept=None))


def test_contexts_reach_what_an_edit_of_the_bare_word_leaves(base):
    """The word in a sentence has another embedding; MACE reads its contexts, UCE the bare word alone."""
    wish = msgm.ForgetRequest(concept={"forget": ["seven"], "anchor": "one"})
    place = 4
    sentence, twin = (base.network.encode([f"a picture of {word}"]).embedding[0, place] for word in ("seven", "one"))

    def left(edit):
        after = msgm.edit(base, None, edit, wish).network.cross_attention()
        pairs = [(layer(sentence), layer(twin), after[name](sentence)) for name, layer in
                 base.network.cross_attention().items()]  # fmt: skip
        return max(((new - goal).norm() / (old - goal).norm()).item() for old, goal, new in pairs)

    assert left(MACE(lam=1e-3, contexts=["a picture of {}"])) < 0.05
    assert left(UCE(lam=1e-3)) > 0.2
