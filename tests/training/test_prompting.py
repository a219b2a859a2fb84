"""Edits of prompts from the command line: a diffusers folder goes in, a run folder comes out, and no data are read."""

import json
import os

import pytest
import torch
import yaml
from diffusers import StableDiffusionPipeline

import msgm
from msgm.chain import read_chain
from msgm.cli import main
from msgm.objectives.edits import UCE
from tests.diffusion import small_pipelines as small

CONFIG = {
    "name": "without-seven",
    "data": {},
    "request": {"concept": {"forget": ["seven"], "keep": ["two"], "anchor": "one"}},
    "edit": {"name": "uce", "lam": 0.01},
}


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    path = tmp_path_factory.mktemp("pipelines") / "theirs"
    small.stable_diffusion().save_pretrained(path)
    return path


@pytest.fixture
def unlearn(folder, tmp_path, monkeypatch):
    """Run the command with the config changed, and return its exit code."""
    monkeypatch.chdir(tmp_path)

    def run(*more, **changes):
        (tmp_path / "config.yaml").write_text(yaml.safe_dump(CONFIG | changes))
        given = ["unlearn", "config.yaml", "--from", str(folder), "--out", "runs/out", "--device", "cpu"]
        return main([*given, *more])

    return run


def test_a_concept_is_erased_from_a_folder_of_diffusers(unlearn, folder, tmp_path, capsys):
    assert unlearn() == 0
    assert "out: uce on cpu; 1 prompts to forget and 1 to keep" in capsys.readouterr().out
    run = msgm.Run(tmp_path / "runs" / "out")
    base = msgm.ScoreModel.from_pretrained(folder)
    expected = msgm.edit(base, None, UCE(lam=0.01), msgm.ForgetRequest(**CONFIG["request"]))
    made = msgm.ScoreModel.from_pretrained(run.model)
    for name, weights in expected.network.state_dict().items():
        assert torch.equal(made.network.state_dict()[name], weights)
    pipeline = StableDiffusionPipeline.from_pretrained(run.model)
    layer = pipeline.unet.get_submodule("mid_block.attentions.0.transformer_blocks.0.attn2.to_k")
    assert torch.equal(layer.weight, expected.network.cross_attention()[
        "mid_block.attentions.0.transformer_blocks.0.attn2.to_k"].weight)  # fmt: skip
    manifest = run.finished_manifest()
    assert (manifest["status"], manifest["start"], manifest["weights"]) == ("finished", "edit", "edited")
    assert manifest["objective"] == "uce"
    assert max(manifest["edited"]["residual"].values()) < 0.01
    assert manifest["seconds"] > 0
    (entry,) = read_chain(run.model).requests
    assert (entry.by, entry.extent) == ("uce", "prompts alone")


def test_the_run_is_read_by_the_other_commands(unlearn, capsys):
    assert unlearn() == 0
    assert main(["verify", "runs/out"]) == 0
    assert main(["forget-traces", "runs/out"]) == 0
    assert "prompts alone, by uce" in capsys.readouterr().out
    given = ["sample", "runs/out", "-n", "2", "--sampler", "ddim", "--steps", "2", "--format", "npz", "--device", "cpu"]
    assert main(given) == 0


def test_a_second_request_goes_on_with_the_chain(unlearn):
    assert unlearn() == 0
    assert unlearn("--from", "runs/out", "--out", "runs/again", request={"concept": {"forget": ["three"]}}) == 0
    chain = read_chain(msgm.Run("runs/again").model)
    assert len(chain.requests) == 2
    assert chain.unknown
    assert unlearn("--from", "runs/out", "--out", "runs/anew", "--fresh-chain") == 0
    assert len(read_chain(msgm.Run("runs/anew").model).requests) == 1


def test_a_run_that_is_there_is_not_made_again_and_no_other_takes_its_place(unlearn, capsys):
    assert unlearn() == 0
    before = os.stat("runs/out/model/unet/config.json").st_mtime_ns
    assert unlearn() == 2
    assert "go on with --resume" in capsys.readouterr().err
    assert unlearn("--resume") == 0
    assert os.stat("runs/out/model/unet/config.json").st_mtime_ns == before
    assert unlearn(edit={"name": "uce", "lam": 0.5}) == 2
    assert "holds a run with other settings" in capsys.readouterr().err
    assert unlearn("--from", "runs/out") == 2
    assert "holds the model of --from" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("changes", "told"),
    [
        ({"edit": {"name": "prune"}}, "data: prune reads items, so name the data"),
        ({"request": {"labels": [3]}}, "request.concept: without data"),
        ({"objective": {"name": "unseen"}}, "training reads items, so name the data"),
        ({"edit": {}, "objective": {"name": "unseen"}}, "training reads items, so name the data"),
    ],
)
def test_what_needs_data_is_refused_without(unlearn, capsys, changes, told):
    assert unlearn(**changes) == 2
    assert told in capsys.readouterr().err
    assert not os.path.exists("runs/out/model")


def test_a_launch_of_several_processes_is_refused(unlearn, monkeypatch, capsys):
    monkeypatch.setenv("WORLD_SIZE", "2")
    assert unlearn() == 2
    assert "runs in one process" in capsys.readouterr().err


def test_a_stopped_run_is_made_again(unlearn, tmp_path):
    assert unlearn() == 0
    manifest = tmp_path / "runs" / "out" / "manifest.json"
    manifest.write_text(json.dumps(json.loads(manifest.read_text()) | {"status": "running"}))
    assert unlearn("--resume") == 0
    assert json.loads(manifest.read_text())["status"] == "finished"
