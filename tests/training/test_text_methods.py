"""Every objective and edit on a text-to-image pipeline of diffusers, whose prompts are classes."""

import numpy as np
import pytest
import torch
from diffusers import StableDiffusionPipeline

import msgm
from msgm.data import Dataset
from msgm.objectives import OBJECTIVES
from msgm.objectives.edits import EDITS
from tests.diffusion.small_pipelines import stable_diffusion

PROMPTS = ["a one", "a two", "a three"]
REQUEST = msgm.ForgetRequest(labels=["a three"])
FEW = {"items": 4, "levels": 2, "iterations": 2, "steps": 2, "teacher_steps": 1, "replay": 6, "classifier_steps": 2}


@pytest.fixture(scope="module")
def model():
    found = msgm.ScoreModel.from_pretrained(stable_diffusion())
    found.network.set_prompts(PROMPTS)
    return found


@pytest.fixture(scope="module")
def latents():
    drawn = torch.randn(60, 4, 8, 8, generator=torch.Generator().manual_seed(0))
    return Dataset("latents", drawn, (4, 8, 8), None, labels=np.arange(60) % 3, classes=PROMPTS)


def few(registry, name):
    """Return a method with few items and steps."""
    found = registry.build({"name": name})
    for part in (found, getattr(found, "anchor", None), getattr(found, "mask", None)):
        for key, value in FEW.items():
            if isinstance(getattr(part, key, None), int):
                setattr(part, key, min(getattr(part, key), value))
    return found


def moved(model, made):
    """Return the parts of the pipeline whose weights are other ones."""
    before, after = model.network.state_dict(), made.network.state_dict()
    return {name.partition(".")[0] for name in before if not before[name].equal(after[name])}


@pytest.mark.parametrize("name", [name for name, entry in OBJECTIVES.entries.items() if entry.data != "all"])
def test_every_objective_trains_the_u_net_alone(name, model, latents):
    made = msgm.fit(model, latents, few(OBJECTIVES, name), REQUEST, steps=2, batch_size=4)
    assert moved(model, made) == {"unet"}
    assert made.sample(1, "ddim", steps=2, condition="a seven").isfinite().all()


@pytest.mark.parametrize("name", EDITS.entries)
def test_every_edit_changes_the_u_net_alone(name, model, latents):
    made = msgm.edit(model, latents, few(EDITS, name), REQUEST, batch_size=4)
    assert moved(model, made) == {"unet"}


def test_an_adapter_of_the_layers_that_read_text_leaves_the_others_as_they_are(model, latents, tmp_path):
    adapter = {"rank": 2, "targets": ["*attn2.to_k", "*attn2.to_v"]}
    made = msgm.fit(model, latents, "erasediff", REQUEST, steps=2, batch_size=4, adapter=adapter)
    before, after = model.network.state_dict(), made.network.state_dict()
    changed = {name for name in before if not before[name].equal(after[name])}
    assert changed == {f"unet.{name}.weight" for name in model.network.cross_attention()}
    made.save_pretrained(tmp_path / "made")
    given = StableDiffusionPipeline.from_pretrained(tmp_path / "made").unet.state_dict()
    assert all(weights.equal(after[f"unet.{name}"]) for name, weights in given.items())
