"""Fully sharded data parallel in two processes on a CPU."""

import os
import shutil

import pytest
import torch
from torch.distributed.tensor import DTensor

from msgm.config import AdapterSettings, Config, TrainingSettings, load_config
from msgm.diffusion import ScoreModel
from msgm.errors import UserError
from msgm.objectives import Card, Objective, Unseen
from msgm.reading import read_json
from msgm.runs import Run
from msgm.training import Trainer, sharding, train, unlearn
from msgm.training.checkpoints import checkpoints
from tests.conftest import DIGITS, TINY
from tests.forks import launched
from tests.training.test_processes import HOOKS, agree, lines, weights

LAUNCH = {
    "ACCELERATE_USE_FSDP": "true",
    "FSDP_VERSION": "2",
    "FSDP_AUTO_WRAP_POLICY": "TRANSFORMER_BASED_WRAP",
    "FSDP_TRANSFORMER_CLS_TO_WRAP": "ResnetBlock2D",
}
PLAIN = [*TINY, "network.dropout=0", "training.steps=4"]


def sharded(config: Config, out, resume: bool = False, **launch: str) -> Run:
    """Train in two processes; each checks that the weights were sharded and that its model has the trained ones."""

    def one(rank: int) -> int:
        os.environ.update(LAUNCH | launch)
        seen, begin = [], Trainer.train

        def noted(self: Trainer) -> None:
            begin(self)
            seen.append(all(isinstance(weight, DTensor) for weight in self.update.weights.values()))
            seen.append(all(type(weight) is torch.nn.Parameter for weight in self.model.network.parameters()))

        Trainer.train = noted
        train(config, out, resume=resume, device="cpu")
        return 0 if seen and all(seen) else 1

    launched(one)
    return Run(out)


# The tolerance is that of processes without sharding, for the same reason: all weights together agree with those of one
# process to 1e-5 of their norm, and each to 1e-4, where four steps move it by 8e-3.
@pytest.mark.parametrize(
    ("overrides", "policy"),
    [
        ([f"objective={HOOKS}", "training.trainable=['*conv*', '*time*']"], "TRANSFORMER_BASED_WRAP"),
        (["objective={name: erasediff, multiplier: null}", "training.accumulate=2"], "NO_WRAP"),
        (["objective={name: sfr-on, mask: {by: fisher, items: 8}}", "network.classes=10"], "TRANSFORMER_BASED_WRAP"),
    ],
)
def test_two_processes_train_in_parts_what_one_trains(tmp_path, overrides, policy):
    config = load_config(DIGITS, [*PLAIN, *overrides])
    one = train(config, tmp_path / "one", device="cpu")
    two = sharded(config, tmp_path / "two", FSDP_AUTO_WRAP_POLICY=policy)
    for line, other in zip(lines(one), lines(two), strict=True):
        assert other == pytest.approx(line, rel=1e-4, abs=1e-7)
    agree(one, two)
    manifests = [read_json(run.manifest) for run in (one, two)]
    assert [found["status"] for found in manifests] == ["finished", "finished"]
    assert manifests[1].get("found") == manifests[0].get("found")


def test_an_edit_reaches_every_part_before_the_steps_that_follow(tmp_path):
    base = train(load_config(DIGITS, [*PLAIN, "training.steps=1"]), tmp_path / "base", device="cpu")
    edit = ["objective.name=unseen", "edit={name: prune, share: 0.1, choose: random}", "finetune.steps=1"]
    config = load_config(DIGITS, [*PLAIN, *edit])

    def two(rank: int) -> None:
        os.environ.update(LAUNCH)
        unlearn(config, base.path, tmp_path / "two", device="cpu")

    launched(two)
    agree(unlearn(config, base.path, tmp_path / "one", device="cpu"), Run(tmp_path / "two"))


def test_the_folder_holds_the_whole_model_and_a_resume_goes_on_with_every_part(tmp_path):
    more = ["training.gradient_checkpointing=true", "training.precision=bf16", "training.checkpoint_every=2"]
    config = load_config(DIGITS, [*PLAIN, "objective.name=redirect", "training.sample_every=4", *more])
    run = sharded(config, tmp_path / "run")
    model = ScoreModel.load(run.model)
    kept = torch.cat([weight.flatten() for weight in model.network.parameters()])
    averaged = checkpoints(run.checkpoints)[-1] / "ema.safetensors"
    from diffusers import UNet2DModel
    from safetensors.torch import load_file

    average = load_file(averaged)
    assert torch.equal(kept, torch.cat([average[name].flatten() for name, _ in model.network.named_parameters()]))
    assert UNet2DModel.from_pretrained(run.model / "unet").num_parameters() == len(kept)
    assert (run.samples / "step-00000004.png").is_file()
    before, logged = weights(run), lines(run)
    shutil.rmtree(checkpoints(run.checkpoints)[-1])
    run.manifest.unlink()
    again = sharded(config, run.path, resume=True)
    assert weights(again) == before
    assert lines(again) == logged


class Own(Unseen):
    """An objective with a penalty of its own."""

    name, card = "own", Card("a", "b", "c")

    def penalty(self, weights):
        return {"own": sum(weight.square().sum() for weight in weights.values())}


@pytest.mark.parametrize(
    ("version", "settings", "objective", "why"),
    [
        ("1", TrainingSettings(), Unseen(), "accelerate's FSDP: expected version 2, got version 1"),
        ("2", TrainingSettings(compile=True), Unseen(), "training.compile: a network that FSDP shards is not compiled"),
        ("2", TrainingSettings(adapter=AdapterSettings()), Unseen(), "training.adapter: an adapter is small enough"),
        ("2", TrainingSettings(), Unseen(matching="sliced"), "objective.matching: sliced takes a derivative of"),
        ("2", TrainingSettings(), Own(), "objective.name: own has a penalty of its own"),
    ],
)
def test_what_cannot_be_sharded_is_refused_by_name(monkeypatch, version, settings, objective: Objective, why):
    monkeypatch.setenv("FSDP_VERSION", version)
    with pytest.raises(UserError, match=why):
        sharding.refuse(settings, objective)


@pytest.mark.parametrize("option", ["FSDP_OFFLOAD_PARAMS", "FSDP_ACTIVATION_CHECKPOINTING"])
def test_options_of_the_launch_that_have_no_effect_are_refused(monkeypatch, option):
    monkeypatch.setenv("FSDP_VERSION", "2")
    monkeypatch.setenv(option, "true")
    with pytest.raises(UserError, match=f"--{option.lower()} is not read"):
        sharding.refuse(TrainingSettings(), Unseen())


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ({"FSDP_VERSION": "1"}, "launch with --fsdp_version 2"),
        (
            {"FSDP_TRANSFORMER_CLS_TO_WRAP": "Block"},
            "accelerate's FSDP: Could not find the transformer layer class Block",
        ),
        ({"FSDP_AUTO_WRAP_POLICY": "SIZE_BASED_WRAP"}, "SIZE_BASED_WRAP would shard lists of layers"),
    ],
)
def test_a_launch_that_cannot_be_is_refused_before_anything_is_written(tmp_path, given, said):
    config = load_config(DIGITS, PLAIN)

    def one(rank: int) -> int:
        os.environ.update(LAUNCH | given)
        with pytest.raises(UserError, match=said):
            train(config, tmp_path / "run", device="cpu")
        return 0

    launched(one)
    assert not (tmp_path / "run").exists()
