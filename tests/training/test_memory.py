"""Gradient checkpointing: the same run in less memory."""

import json

import pytest
import torch

from msgm.config import load_config
from msgm.errors import UserError
from msgm.objectives import Obtuse
from msgm.runs import Run
from msgm.training import Trainer, train, unlearn
from msgm.training.checkpoints import checkpoints
from msgm.training.run import load_data, new_model
from tests.conftest import TINY

ON = "training.gradient_checkpointing=true"
BARE = [setting for setting in TINY if not setting.startswith("network.")]
UNET = "network={name: unet, channels: [8], dropout: 0.3}"
DIT = "network={name: dit, heads: 2, head_dim: 4, layers: 2, dropout: 0.1, classes: 10}"
MERGED = (
    "objective={name: obtuse, every: 1, alpha: 0.5, combine: pcgrad, mask: {items: 4, levels: 2}, "
    "anchor: {by: fisher, items: 4, levels: 2}}"
)
CASES = {
    "dropout": [UNET],
    "attention": ["network={name: unet, channels: [8], attention: [8]}"],
    "transformer": [DIT],
    "bf16": [UNET, "training.precision=bf16"],
    "merged, masked and anchored": [UNET, MERGED],
    "merged in parts": [DIT, "objective={name: erasediff, multiplier: null}", "training.accumulate=2"],
    "two updates a step": [DIT, "objective={name: sfr-on, mask: {by: fisher, items: 4, levels: 2}}"],
    "differentiated twice": [DIT, "objective={name: obtuse, every: 1, matching: sliced}"],
    "differences": [DIT, "objective={name: unseen, matching: finite-difference}"],
}


def outcome(run: Run) -> tuple[list[dict[str, float]], dict[str, bytes]]:
    lines = [json.loads(line) for line in run.metrics.read_text().splitlines()]
    lines = [{name: value for name, value in line.items() if name != "images_per_second"} for line in lines]
    return lines, {path.name: path.read_bytes() for path in checkpoints(run.checkpoints)[-1].glob("*.safetensors")}


@pytest.mark.parametrize("case", CASES)
def test_losses_and_weights_are_those_of_a_run_without(tmp_path, case):
    given = [*BARE, "training.steps=2", "training.batch_size=8", *CASES[case]]
    plain = train(load_config(None, given), tmp_path / "plain", device="cpu")
    assert outcome(train(load_config(None, [*given, ON]), tmp_path / "less", device="cpu")) == outcome(plain)


def test_blocks_are_computed_twice_while_training_and_once_afterwards(tiny, tmp_path):
    config = tiny(ON, "training.steps=1")
    dataset, split = load_data(config)
    model, passes = new_model(config, dataset), []
    block = model.network.body.down_blocks[0].resnets[0]
    block.conv1.register_forward_hook(lambda *_: passes.append(torch.is_grad_enabled()))
    Trainer(model, Obtuse(), dataset, split.train, config.training, 0, Run(tmp_path), "cpu").train()
    assert passes == [True, True]
    model.eps(torch.zeros(2, 1, 8, 8), torch.full((2,), 0.5)).sum().backward()
    assert passes == [True, True, True]


def test_an_edit_computes_nothing_anew(tiny, tmp_path):
    base = train(tiny("training.steps=1"), tmp_path / "base", device="cpu")
    edit = "edit={name: influence, items: 8, iterations: 1}"
    for name, more in (("plain", []), ("less", [ON])):
        unlearn(tiny(edit, *more), base.path, tmp_path / name, device="cpu")
    files = [tmp_path / name / "model" / "unet" / "diffusion_pytorch_model.safetensors" for name in ("plain", "less")]
    assert files[0].read_bytes() == files[1].read_bytes()


def test_a_network_that_cannot_is_refused_before_anything_is_written(tmp_path):
    points = [*BARE, "data={name: gaussians}", "network={name: mlp}", "request={labels: [1]}"]
    with pytest.raises(UserError, match="training.gradient_checkpointing: network 'mlp' cannot compute its blocks"):
        train(load_config(None, [*points, ON]), tmp_path / "run", device="cpu")
    assert not (tmp_path / "run").exists()


@pytest.mark.slow
def test_a_compiled_network_computes_its_blocks_anew(tiny, tmp_path):
    plain, less = (
        train(tiny("training.compile=true", "training.steps=2", *more), tmp_path / name, device="cpu")
        for name, more in (("plain", []), ("less", [ON]))
    )
    for line, other in zip(outcome(plain)[0], outcome(less)[0], strict=True):
        assert other == pytest.approx(line, rel=1e-4)
