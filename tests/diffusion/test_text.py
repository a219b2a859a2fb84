"""Text-to-image pipelines as score models: what diffusers samples, what is saved, and how prompts are read."""

import copy
import itertools
import json
import shutil
import warnings

import pytest
import torch
from safetensors.torch import load_file, save_file

import msgm
from msgm.diffusion import Condition
from msgm.errors import UserError
from tests.diffusion import small_pipelines as small

PROMPTS = ["a seven", "three on the left"]
LEFT_OUT = {"text_encoder_3": None, "tokenizer_3": None}
KINDS = {
    "sd": (small.stable_diffusion, {}),
    "xl": (small.stable_diffusion_xl, {}),
    "sd3": (small.stable_diffusion_3, LEFT_OUT),
}


@pytest.fixture(params=KINDS, scope="module")
def kind(request):
    return KINDS[request.param]


def images(pipeline, **settings):
    pipeline.set_progress_bar_config(disable=True)
    drawn = torch.Generator().manual_seed(0)
    return pipeline("a seven", num_inference_steps=3, output_type="pt", generator=drawn, **settings).images


def sampled(model, **settings):
    return model.sample(2, "ddim", steps=3, condition=PROMPTS, **settings)


@pytest.fixture(scope="module")
def model():
    return msgm.ScoreModel.from_pretrained(small.stable_diffusion())


def test_a_pipeline_that_is_read_and_given_back_samples_the_same_images_to_the_bit(kind):
    pipeline = kind[0]()
    found = msgm.ScoreModel.from_pretrained(pipeline)
    assert torch.equal(images(found.to_pipeline()), images(pipeline))


def test_a_saved_folder_is_read_by_msgm_and_by_diffusers(kind, tmp_path):
    pipeline, left_out = kind[0](), kind[1]
    found = msgm.ScoreModel.from_pretrained(pipeline)
    found.save_pretrained(tmp_path / "saved")
    again = msgm.ScoreModel.from_pretrained(tmp_path / "saved")
    torch.testing.assert_close(sampled(again), sampled(found), rtol=1e-5, atol=1e-5)
    for name, weights in found.network.state_dict().items():
        assert torch.equal(again.network.state_dict()[name], weights)
    read = type(pipeline).from_pretrained(tmp_path / "saved", **left_out)
    assert torch.equal(images(read), images(pipeline))


def test_a_folder_that_diffusers_wrote_is_read(kind, tmp_path):
    pipeline = kind[0]()
    pipeline.save_pretrained(tmp_path / "theirs")
    found = msgm.ScoreModel.from_pretrained(tmp_path / "theirs")
    assert torch.equal(images(found.to_pipeline()), images(pipeline))


@pytest.mark.parametrize("prediction", ["epsilon", "v_prediction"])
@pytest.mark.parametrize("scale", [1.0, 3.0])
def test_ddim_gives_what_diffusers_gives_from_the_same_noise(prediction, scale):
    """Ten labels of the grid of a thousand, 901 to 1, so that a label beside the right one would show."""
    pipeline = small.stable_diffusion(prediction)
    found = msgm.ScoreModel.from_pretrained(pipeline)
    asked = found.asked(PROMPTS, 2)
    noise = torch.randn(2, *found.shape, generator=torch.Generator().manual_seed(1))
    theirs = pipeline(
        PROMPTS, num_inference_steps=10, guidance_scale=scale, latents=noise.clone(), output_type="latent"
    ).images
    guided = msgm.diffusion.guidance.ClassifierFree(scale).wrap(found)
    x, labels = noise, [*range(901, 0, -100), -99]
    for label, after in itertools.pairwise(labels):
        now, then = (torch.tensor([(max(k, 0) + 1) / 1000] * 2) for k in (label, after))
        with torch.no_grad():
            eps, clean = guided.eps(x, now, asked), guided.denoise(x, now, asked)
        signal, sigma = (float(part(then[:1])) for part in (found.process.signal, found.process.noise))
        x = signal * clean + sigma * eps
    torch.testing.assert_close(x, theirs, rtol=1e-5, atol=1e-5 * float(theirs.abs().max()))


def test_the_empty_prompt_is_the_null_condition(model):
    x, t = torch.randn(1, 4, 8, 8), torch.tensor([0.5])
    asked = model.network.encode([""])
    assert asked.null.tolist() == [True]
    assert torch.equal(model.eps(x, t, asked), model.eps(x, t))
    dropped = model.network.encode(["a seven"]).dropped(torch.tensor([True]))
    assert torch.equal(model.eps(x, t, dropped), model.eps(x, t))


def test_a_label_asks_for_the_prompt_of_its_place_in_the_table(model):
    found = msgm.ScoreModel.from_pretrained(small.stable_diffusion())
    found.network.set_prompts(PROMPTS)
    assert found.classes == 2
    x, t = torch.randn(3, 4, 8, 8), torch.full((3,), 0.5)
    by_label = found.eps(x, t, Condition(torch.tensor([1, -1, 0])))
    torch.testing.assert_close(by_label, found.eps(x, t, found.asked([PROMPTS[1], "", PROMPTS[0]], 3)))
    with pytest.raises(UserError, match="knows labels 0 to 1"):
        found.asked(2, 1)


def test_a_model_without_a_table_is_asked_by_words_alone(model):
    with pytest.raises(UserError, match="ask for a prompt by its words"):
        model.asked(0, 1)


def test_the_mask_marks_words_and_neither_begin_nor_end_nor_padding(model):
    asked = model.network.encode(["seven", "three on the left"])
    assert asked.mask[0].nonzero().flatten().tolist() == [1]
    assert asked.mask[1].nonzero().flatten().tolist() == [1, 2, 3, 4]


def test_prompts_are_read_anew_when_the_text_encoder_has_changed():
    found = msgm.ScoreModel.from_pretrained(small.stable_diffusion())
    before = found.network.encode(["seven"]).embedding
    with torch.no_grad():
        found.network.text_encoder.get_input_embeddings().weight.add_(1.0)
    assert not torch.equal(found.network.encode(["seven"]).embedding, before)


def test_a_text_encoder_is_never_in_train_mode(model):
    network = copy.deepcopy(model.network).train()
    assert network.unet.training
    assert not network.text_encoder.training


def test_a_text_encoder_of_a_pipeline_is_never_trained_and_one_that_learns_with_its_network_is(model):
    network = copy.deepcopy(model.network).requires_grad_(True)
    assert not any(p.requires_grad for p in network.text_encoder.parameters())
    assert all(p.requires_grad for p in network.unet.parameters())
    made = msgm.ScoreModel.new("text-unet", "vp", shape=(1, 8, 8), channels=[8]).network
    assert all(p.requires_grad for p in made.requires_grad_(False).requires_grad_(True).text_encoder.parameters())


def test_gradients_reach_a_text_encoder_that_is_trained_and_the_u_net_alone_of_a_pipeline(model):
    made = msgm.ScoreModel.new("text-unet", "vp", shape=(1, 8, 8), channels=[8])
    made.network.set_prompts(PROMPTS)
    for found in (made, model):
        x, t = torch.randn(2, *found.shape), torch.full((2,), 0.5)
        found.network.zero_grad()
        found.eps(x, t, found.network.encode(PROMPTS)).square().mean().backward()
        given = [p.grad is not None for p in found.network.text_encoder.parameters()]
        assert any(given) == (found is made)


def test_images_and_latents_are_scaled_as_the_autoencoder_says(model):
    vae = small.stable_diffusion().vae
    latents = torch.randn(1, 4, 8, 8)
    with torch.no_grad():
        theirs = vae.decode(latents / vae.config.scaling_factor).sample
    shown = model.decode(latents)
    assert torch.equal(shown, theirs)
    with torch.no_grad():
        encoded = vae.encode(shown).latent_dist.mean * vae.config.scaling_factor
    assert torch.equal(model.network.encode_images(shown), encoded)


def test_cross_attention_is_every_key_and_value_that_reads_the_text(model):
    layers = model.network.cross_attention()
    ends = {name.rsplit(".", 1)[1] for name in layers}
    assert ends == {"to_k", "to_v"}
    assert all(layer.in_features == 32 for layer in layers.values())
    assert len(layers) == 2 * sum(name.endswith("attn2") for name, _ in model.network.unet.named_modules())
    three = msgm.ScoreModel.from_pretrained(small.stable_diffusion_3())
    with pytest.raises(UserError, match="no cross-attention"):
        three.network.cross_attention()


def test_a_network_learns_the_words_of_its_first_prompts_and_two_prompts_differ(tmp_path):
    made = msgm.ScoreModel.new("text-unet", "vp", shape=(1, 8, 16), channels=[8, 16], words=8)
    made.network.set_prompts(["seven", "slanted seven", "Three on the left"])
    embedding = made.network.encode(["seven", "three", "unheard"]).embedding
    assert not torch.allclose(embedding[0], embedding[1])
    made.save_pretrained(tmp_path / "made")
    again = msgm.ScoreModel.from_pretrained(tmp_path / "made")
    assert again.network.prompts == made.network.prompts
    asked = {"condition": ["three on the left", "seven"], "steps": 3}
    assert torch.equal(again.sample(2, **asked), made.sample(2, **asked))
    with pytest.raises(UserError, match="9 words, and there is room for 8"):
        msgm.ScoreModel.new("text-unet", shape=(1, 8, 8), channels=[8], words=8).network.set_prompts(list("abcdefghi"))


def test_an_unknown_pipeline_and_a_scheduler_of_another_kind_are_refused(tmp_path):
    pipeline = copy.copy(small.stable_diffusion())
    pipeline.scheduler = torch.nn.Identity()
    with warnings.catch_warnings(), pytest.raises(UserError, match="has a Identity"):
        msgm.ScoreModel.from_pretrained(pipeline)


@pytest.mark.parametrize("asked", ["seven", ["seven", "three"]])
def test_a_model_without_text_refuses_a_prompt(asked):
    with pytest.raises(UserError, match="reads no text"):
        msgm.ScoreModel.new("unet", shape=(1, 8, 8), channels=[8], classes=3).asked(asked, 2)


def test_a_pipeline_of_half_precision_alone_is_read_in_full_and_all_its_parts_must_be_whole(tmp_path, capsys):
    pipeline = small.stable_diffusion()
    pipeline.save_pretrained(tmp_path / "half", variant="fp16")
    read = msgm.ScoreModel.from_pretrained(tmp_path / "half")
    assert {part.dtype for part in read.network.state_dict().values() if part.is_floating_point()} == {torch.float32}
    assert capsys.readouterr().out.count("weights of fp16 only") == 3
    file = next((tmp_path / "half" / "text_encoder").glob("*.safetensors"))
    tensors = load_file(file)
    tensors.pop(next(name for name in tensors if "layers.1" in name))
    save_file(tensors, file, {"format": "pt"})
    with pytest.raises(UserError, match="text_encoder: weights are missing"):
        msgm.ScoreModel.from_pretrained(tmp_path / "half")


def test_the_files_of_an_old_tokenizer_of_clip_are_read_and_words_are_told_apart(tmp_path):
    small.stable_diffusion().save_pretrained(tmp_path / "old")
    index = tmp_path / "old" / "model_index.json"
    index.write_text(index.read_text().replace("TokenizersBackend", "CLIPTokenizer"))
    folder = tmp_path / "old" / "tokenizer"
    shutil.rmtree(folder)
    folder.mkdir()
    letters = "abcdefghijklmnopqrstuvwxyz"
    words = ["<|startoftext|>", "<|endoftext|>", *letters, *(f"{one}</w>" for one in letters), "se", "se</w>"]
    (folder / "vocab.json").write_text(json.dumps({word: number for number, word in enumerate(words)}))
    (folder / "merges.txt").write_text("#version: 0.2\ns e\n")
    marks = dict.fromkeys(("eos_token", "unk_token", "pad_token"), words[1]) | {"bos_token": words[0]}
    (folder / "tokenizer_config.json").write_text(json.dumps(marks | {"model_max_length": 10}))
    model = msgm.ScoreModel.from_pretrained(tmp_path / "old")
    found = model.network.encode(["see", "seen", "x"])
    assert found.mask.sum(1).tolist() == [2, 3, 1]
    assert not torch.equal(found.embedding[0], found.embedding[1])
    model.save_pretrained(tmp_path / "new")
    assert (
        msgm.ScoreModel.from_pretrained(tmp_path / "new").network.encode(["see"]).embedding.equal(found.embedding[:1])
    )
