"""A score model as an object: made, sampled, saved as a folder for others, read back, turned into a pipeline."""

import json
from types import SimpleNamespace

import huggingface_hub
import numpy as np
import pytest
import torch
import yaml
from diffusers import DDIMScheduler, DDPMPipeline, DDPMScheduler, UNet2DModel

import msgm
from msgm.chain import Chain, Entry
from msgm.config import load_config
from msgm.data import load_dataset
from msgm.diffusion import SAMPLERS, SamplingSettings, ScoreModel, sample
from msgm.diffusion.hub import needed
from msgm.diffusion.processes import DDPM, VP
from msgm.errors import RunError, UserError
from msgm.training import train
from msgm.training.run import new_model
from tests.conftest import TINY
from tests.diffusion.test_model import UNET, contents

SMALL = {"channels": [8, 16], "mid_attention": False}


def small(process="vp", **settings):
    return ScoreModel.new("unet", process, shape=(1, 8, 8), **SMALL, **settings)


def forgotten(positions=(3, 9), selector="indices", text="indices 3, 9", **changes):
    entry = Entry(
        text, "suppression", "concept", selector, "redirect", "2020-02-03T04:05:06+00:00", np.array(positions)
    )
    data = load_dataset("digits")
    return Chain().extended(entry, data, {}, b"k" * 32)


def same_weights(one, other):
    theirs = other.network.state_dict()
    return all(torch.equal(value, theirs[name]) for name, value in one.network.state_dict().items())


@pytest.mark.parametrize("process", ["vp", "ve", "subvp", "ddpm"])
@pytest.mark.parametrize("network", ["unet", "mlp"])
def test_a_new_model_samples_and_comes_back(process, network, tmp_path):
    shape = (1, 8, 8) if network == "unet" else (3,)
    model = ScoreModel.new(network, process, shape=shape)
    model.save_pretrained(tmp_path / "model")
    loaded = ScoreModel.from_pretrained(tmp_path / "model")
    assert (loaded.process, loaded.shape, loaded.folder) == (model.process, shape, tmp_path / "model")
    assert torch.equal(loaded.sample(2, steps=3, seed=1), model.sample(2, steps=3, seed=1))


def test_a_new_model_is_that_of_the_command_line():
    config = load_config(None, [*TINY, "seed=5"])
    model = ScoreModel.new("unet", {"name": "vp"}, (1, 8, 8), seed=5, channels=[8], mid_attention=False)
    assert same_weights(model, new_model(config, load_dataset("digits")))
    assert not same_weights(model, ScoreModel.new("unet", "vp", channels=[8], mid_attention=False))
    assert model.untrained


def test_settings_go_to_the_process_or_the_network():
    model = small(beta_max=10.0)
    assert model.process == VP(beta_max=10.0)
    named = ScoreModel.new({"name": "unet", "channels": [8]}, {"name": "ddpm", "steps": 40}, (3, 8, 8))
    assert named.process == DDPM(steps=40)
    assert named.network.item_dims == 3


@pytest.mark.parametrize(
    ("arguments", "settings", "said"),
    [
        (("unet", "vq"), {}, "unknown process 'vq'"),
        (("unit", "vp"), {}, "unknown network 'unit'.*unet"),
        (("unet", "vp"), {"chanels": [8]}, "chanels"),
        (("mlp", "vp"), {}, "an mlp needs vectors"),
        (("unet", "vp"), {"beta_max": -1.0}, "beta_max"),
    ],
)
def test_what_a_part_does_not_take_is_refused(arguments, settings, said):
    with pytest.raises(UserError, match=said):
        ScoreModel.new(*arguments, **settings)


def test_samples_are_those_of_the_function():
    model = small()
    settings = SamplingSettings("dpm++2m", 4, "karras", 3)
    expected = sample(model, 5, settings, seed=2, first=1)
    assert torch.equal(model.sample(5, "dpm++2m", 4, seed=2, first=1, schedule="karras", batch_size=3), expected)


def test_a_sampler_may_be_an_object_with_its_options():
    model = small()
    kind = SAMPLERS.entries["predictor-corrector"]
    by_name = model.sample(2, "predictor-corrector", 3, snr=0.3)
    assert torch.equal(model.sample(2, kind(snr=0.3), 3), by_name)
    assert not torch.equal(model.sample(2, kind(), 3), by_name)
    with pytest.raises(UserError, match=f"give the sampler's options to {kind.__name__} itself"):
        model.sample(2, kind(), 3, snr=0.3)


@pytest.mark.parametrize(
    ("arguments", "said"), [((0,), "count"), ((1, "dpm"), "unknown sampler"), ((1, "heun", 1), "steps")]
)
def test_what_cannot_be_sampled_is_refused(arguments, said):
    with pytest.raises(UserError, match=said):
        small().sample(*arguments)


def test_diffusers_reads_the_folder_and_the_pipeline_is_the_same_model(tmp_path):
    model = small("ddpm")
    model.save_pretrained(tmp_path / "model")
    pipe, read = model.to_pipeline(), DDPMPipeline.from_pretrained(tmp_path / "model")
    made = [
        one(generator=torch.Generator().manual_seed(0), num_inference_steps=3, output_type="np").images
        for one in (pipe, read)
    ]
    np.testing.assert_allclose(*made, atol=1e-5)
    assert not pipe.unet.training
    assert pipe.scheduler.config.beta_start == read.scheduler.config.beta_start
    with torch.no_grad():
        next(pipe.unet.parameters()).zero_()
    assert next(model.network.parameters()).abs().sum() > 0, "the pipeline holds a copy"


def test_a_pipeline_object_is_read_and_goes_out_with_its_scheduler():
    torch.manual_seed(0)
    pipe = DDPMPipeline(UNet2DModel(**UNET).to(torch.bfloat16), DDIMScheduler(beta_schedule="squaredcos_cap_v2"))
    model = ScoreModel.from_pretrained(pipe)
    assert {p.dtype for p in model.network.parameters()} == {torch.float32}
    assert model.shape == (1, 8, 8)
    assert model.chain is None
    assert not model.untrained
    back = model.to_pipeline()
    assert type(back).__name__ == "DDIMPipeline"
    assert back.scheduler.config.beta_schedule == "squaredcos_cap_v2"


@pytest.mark.parametrize(
    ("given", "said"),
    [
        (object(), "got a object"),
        (SimpleNamespace(unet=UNet2DModel(**UNET), scheduler=object()), "reads DDPMScheduler"),
        (SimpleNamespace(unet=UNet2DModel(**UNET, class_embed_type="identity"), scheduler=DDPMScheduler()), "identity"),
    ],
)
def test_other_objects_are_refused(given, said):
    with pytest.raises(UserError, match=said):
        ScoreModel.from_pretrained(given)


@pytest.mark.parametrize(
    ("model", "said"),
    [
        (lambda: small("ve"), "no pipeline for process 've'"),
        (lambda: small("subvp"), "no pipeline for process 'subvp'"),
        (lambda: ScoreModel.new("mlp", "vp", (2,)), "no pipeline for this network, which is none of diffusers'"),
        (lambda: ScoreModel.new("unet", "vp", (1, 7, 8), **SMALL), "pads images of 7x8 to a multiple of 2"),
    ],
)
def test_where_diffusers_has_no_pipeline_a_sentence_says_so(model, said):
    with pytest.raises(UserError, match=said):
        model().to_pipeline()


def test_a_run_is_read_with_its_chain_and_key(tmp_path):
    config = load_config(None, [*TINY, "objective.name=unseen", "training.steps=1"])
    run = train(config, tmp_path / "run", device="cpu")
    model = ScoreModel.from_pretrained(run.path)
    assert len(model.chain.requests) == 1
    assert model.key == (run.path / "key").read_bytes()
    assert model.key.hex() not in repr(model)
    model.save_pretrained(tmp_path / "out")
    found = ScoreModel.from_pretrained(tmp_path / "out")
    assert found.chain.to_json() == model.chain.to_json()
    assert found.key is None
    assert not any(model.key in data for data in contents(tmp_path / "out").values())


def test_a_key_beside_another_folder_is_not_taken_for_its_own(tmp_path):
    (tmp_path / "key").write_bytes(b"x" * 32)
    small().save_pretrained(tmp_path / "out")
    assert ScoreModel.from_pretrained(tmp_path / "out").key is None


def test_other_things_are_not_written_over(tmp_path):
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "thesis.txt").write_text("mine")
    (tmp_path / "file").write_text("mine")
    (tmp_path / "empty").mkdir()
    for name in ("full", "file"):
        with pytest.raises(UserError, match="is there and holds no model"):
            small().save_pretrained(tmp_path / name)
    small().save_pretrained(tmp_path / "empty")
    small(seed=1).save_pretrained(tmp_path / "empty")
    assert same_weights(ScoreModel.from_pretrained(tmp_path / "empty"), small(seed=1))


def card_of(folder):
    text = (folder / "README.md").read_text()
    head = yaml.safe_load(text.split("---\n")[1])
    return head, text


def test_the_card_has_a_head_in_the_hubs_form(tmp_path):
    small().save_pretrained(tmp_path / "a model")
    head, text = card_of(tmp_path / "a model")
    assert head["library_name"] == "diffusers"
    assert head["pipeline_tag"] == "unconditional-image-generation"
    assert {"msgm", "machine-unlearning", "vp"} <= set(head["tags"])
    assert "\n# a model\n" in text
    assert "diffusers reads the folder as a `DDPMPipeline`" in text
    assert "To forget: nothing." in text
    assert "no measurement came with these weights" in text
    huggingface_hub.ModelCard(text, ignore_metadata_errors=False)
    ScoreModel.new("mlp", "ve", (2,)).save_pretrained(tmp_path / "points")
    head, text = card_of(tmp_path / "points")
    assert head["library_name"] == "msgm"
    assert "pipeline_tag" not in head
    assert "diffusers" not in text


@pytest.mark.parametrize(
    ("selector", "text", "said"),
    [
        ("indices", "suppression of the concept given by indices 31337", "named one by one"),
        ("files", "suppression of the concept given by files jane-doe/31337.png", "named one by one"),
        ("labels", "suppression of the concept given by labels jane-doe", "whole classes"),
        ("group", "suppression of the concept given by group subject jane-doe", "groups"),
    ],
)
def test_the_card_says_how_many_items_and_never_which(selector, text, said, tmp_path):
    model = small()
    model.chain = forgotten((1, 1337), selector, text)
    model.save_pretrained(tmp_path / "out")
    card = card_of(tmp_path / "out")[1]
    assert "Suppression of a concept: 2 items of the data" in card
    assert said in card
    assert "Answered by redirect, on 2020-02-03." in card
    assert "the weights may still hold" in card
    assert "1337" not in card
    assert "jane" not in card


def test_the_card_says_what_is_not_known_without_paths(tmp_path):
    model = small()
    model.chain = Chain(unknown="/home/somebody/x is no run", anew=("labels jane",))
    model.save_pretrained(tmp_path / "out")
    text = card_of(tmp_path / "out")[1]
    assert "Requests before these are not known." in text
    assert "started anew on purpose" in text
    assert "somebody" not in text
    assert "jane" not in text
    model.chain = None
    model.save_pretrained(tmp_path / "out")
    assert "is not known" in card_of(tmp_path / "out")[1]


def test_the_card_says_what_was_shown(tmp_path):
    card = {
        "level": "C1",
        "level_name": "behavioural",
        "statement": "By the judge.",
        "claims": [{"level": "C1", "name": "behavioural", "verdict": "PASS"}],
        "not_tested": ["fid: distance of x (never asked)"],
    }
    model = small()
    model.save_pretrained(tmp_path / "out", card)
    text = card_of(tmp_path / "out")[1]
    assert "Level C1, behavioural. By the judge." in text
    assert "| C1 | behavioural | PASS |" in text
    assert "Not tested: fid." in text
    with pytest.raises(UserError, match="it has no 'claims'"):
        model.save_pretrained(tmp_path / "other", {key: card[key] for key in ("level", "level_name", "statement")})
    assert not (tmp_path / "other").exists()


def test_a_name_of_the_hub_is_fetched_only_when_allowed(tmp_path, monkeypatch, capsys):
    small().save_pretrained(tmp_path / "cache")
    asked = {}

    class Hub:
        def model_info(self, name, revision, files_metadata):
            files = [
                SimpleNamespace(rfilename="a.safetensors", size=3 * 10**6),
                SimpleNamespace(rfilename="x.bin", size=1),
            ]
            return SimpleNamespace(sha="abc", siblings=files)

    def download(name, revision, allow_patterns):
        asked.update(name=name, revision=revision, patterns=allow_patterns)
        return str(tmp_path / "cache")

    monkeypatch.setattr(huggingface_hub, "HfApi", Hub)
    monkeypatch.setattr(huggingface_hub, "snapshot_download", download)
    with pytest.raises(UserError, match="download=True"):
        ScoreModel.from_pretrained("some/model")
    assert not asked
    model = ScoreModel.from_pretrained("some/model", download=True, revision="main")
    assert same_weights(model, small())
    assert asked == {"name": "some/model", "revision": "abc", "patterns": ["a.safetensors"]}
    assert capsys.readouterr().out == "fetching the model some/model from huggingface.co (3 MB)\n"


@pytest.mark.parametrize(
    ("files", "left"),
    [
        ("model_index.json v1-5.safetensors unet/a.safetensors", "v1-5.safetensors"),
        ("model_index.json unet/a.safetensors unet/a.non_ema.safetensors", "unet/a.non_ema.safetensors"),
        ("model_index.json unet/a.fp16.safetensors vae/a.safetensors", ""),
        ("unet/a-00001-of-00002.safetensors unet/a.safetensors.index.fp16.json", "unet/a.safetensors.index.fp16.json"),
        ("tokenizer/merges.txt tokenizer/vocab.json tokenizer_3/spiece.model run.py x.bin", "run.py x.bin"),
    ],
)
def test_what_is_fetched_from_the_hub_is_what_is_read(files, left):
    assert needed(files.split()) == [file for file in files.split() if file not in left.split()]


def test_a_hub_out_of_reach_is_the_machines_fault(monkeypatch):
    def model_info(self, *_, **__):
        raise ConnectionError("no route to host")

    monkeypatch.setattr(huggingface_hub.HfApi, "model_info", model_info)
    with pytest.raises(RunError, match="cannot fetch some/model from huggingface.co: no route to host"):
        ScoreModel.from_pretrained("some/model", download=True)


def test_a_card_of_a_report_goes_into_the_folder(tmp_path):
    out = msgm.compare(
        {},
        tmp_path / "compared",
        only=["do-nothing", "unseen"],
        overrides=[*TINY, "training.steps=1", "evaluation={samples: 8, metrics: [ur], judge: {epochs: 1, width: 8}}"],
        device="cpu",
    )
    model = ScoreModel.from_pretrained(out.run / "rows" / "unseen")
    model.save_pretrained(tmp_path / "out", out.card(out.rows[1]))
    text = card_of(tmp_path / "out")[1]
    assert "Level C" in text
    assert "labels" not in text
    assert json.loads((tmp_path / "out" / "chain.json").read_text())["requests"]
