"""A dry run builds every row, counts what a step takes, and writes nothing."""

import numpy as np
import pytest
import torch
from torch import nn

from msgm.config import load_config
from msgm.data import Dataset
from msgm.diffusion import ScoreModel
from msgm.errors import UserError
from msgm.generator.dry_run import HELD, dry_run, random_items, taken

POINTS = Dataset("points", torch.zeros(10, 2), (2,), None)
TINY = [
    "data={name: gaussians}",
    "network={name: mlp}",
    "request={labels: [1]}",
    "training={steps: 7, batch_size: 32}",
    "rows.redirect.training.steps=3",
]


def tiny(*more):
    return load_config({}, [*TINY, *more])


def test_the_operations_of_a_step_are_those_of_its_matrices():
    config = tiny()
    found = taken(config.for_row(config.rows["unseen"]), POINTS, "cpu")
    step = found.each[False]
    network = ScoreModel.new(config.network, config.process, (2,)).network
    layers = [module for module in network.modules() if isinstance(module, nn.Linear)]
    forward = sum(2 * 32 * layer.weight.numel() for layer in layers)
    # The backward pass takes as much for the weights, and as much for the inputs where these need a gradient.
    assert 2 * forward < step.flop <= 3 * forward
    assert found.weights == sum(weight.numel() for weight in network.parameters())
    assert (found.steps, found.flop) == ({True: 0, False: 7}, 7 * step.flop)
    assert step.allocated > 4 * found.weights
    assert step.allocated >= 32 * 4 * sum(layer.out_features for layer in layers[1:-1])
    assert step.seconds > 0


def test_a_forget_batch_doubles_a_step():
    config = tiny()
    alone, both = (taken(config.for_row(config.rows[name]), POINTS, "cpu") for name in ("unseen", "redirect"))
    assert both.each[True].flop == pytest.approx(2 * alone.each[False].flop, rel=0.1)
    assert both.weights == alone.weights


def test_steps_with_and_without_forget_items_are_counted_apart():
    config = tiny("rows.obtuse.objective.every=3", "rows.obtuse.training.steps=10")
    found = taken(config.for_row(config.rows["obtuse"]), POINTS, "cpu")
    assert found.steps == {True: 3, False: 7}
    assert found.each[True].flop == pytest.approx(2 * found.each[False].flop, rel=0.1)
    assert found.flop == 3 * found.each[True].flop + 7 * found.each[False].flop
    assert found.largest == found.each[True]


def test_gradient_checkpointing_takes_more_operations_and_less_memory():
    images = Dataset("x", torch.zeros(4, 1, 8, 8, dtype=torch.uint8), (1, 8, 8), 17)
    found = []
    for name, settings in (("unet", "channels: [8, 8], layers: 2"), ("dit", "heads: 2, head_dim: 8, layers: 4")):
        for on in (False, True):
            network = [f"network={{name: {name}, {settings}}}", f"training.gradient_checkpointing={str(on).lower()}"]
            config = load_config({}, [*network, "training={steps: 2, batch_size: 32}", "request={labels: [1]}"])
            found.append(taken(config.for_row(config.rows["unseen"]), images, "cpu").each[False])
        plain, less = found[-2:]
        assert 1.2 * plain.flop < less.flop < 1.4 * plain.flop
        assert less.allocated < (0.85 if name == "unet" else 0.5) * plain.allocated


def test_accumulated_parts_take_less_memory():
    whole, parts = (
        taken(config.for_row(config.rows["unseen"]), POINTS, "cpu").each[False]
        for config in (tiny("training.batch_size=512"), tiny("training.batch_size=512", "training.accumulate=8"))
    )
    assert parts.flop == whole.flop
    assert parts.allocated < 0.5 * whole.allocated


def test_two_optimisers_hold_four_moments():
    config = tiny()
    found = {name: taken(config.for_row(config.rows[name]), POINTS, "cpu").held for name in ("redirect", "sfr-on")}
    weights = ScoreModel.new(config.network, config.process, (2,)).parameter_count()
    assert found == {"redirect": (1 + HELD + 2) * weights, "sfr-on": (1 + HELD + 4) * weights}


def test_of_a_part_of_the_weights_or_an_adapter_only_that_part_has_moments_and_average():
    pytest.importorskip("peft")
    part = "rows.part={objective: {name: unseen}, training: {trainable: ['leave.*']}}"
    config = tiny(part, "rows.low={objective: {name: unseen}, training: {adapter: {rank: 2, targets: [leave]}}}")
    leave = ScoreModel.new(config.network, config.process, (2,)).network.leave.weight
    found = {name: taken(config.for_row(config.rows[name]), POINTS, "cpu") for name in ("part", "low")}
    weights, low = found["part"].weights, 2 * sum(leave.shape)
    assert (found["part"].trained, found["part"].held) == (
        leave.numel() + 2,
        weights + (HELD + 2) * (leave.numel() + 2),
    )
    assert (found["low"].weights, found["low"].trained) == (weights, low)
    assert found["low"].held == weights + low + (HELD + 2) * low


def test_edits_make_no_step_and_are_named():
    config = tiny("rows.vector={start: edit, edit: {name: task-vector}}")
    table = dry_run(config, ["vector"], POINTS, "cpu")
    assert [line[0] for line in table.rows] == ["do-nothing"]
    assert table.notes[-1] == "edits make no step and are left out: vector"


def test_every_trained_row_has_a_line_and_nothing_is_written(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    table = dry_run(tiny(), ["do-nothing", "redirect", "unseen-scratch", "random-network"], POINTS, "cpu")
    assert [line[0] for line in table.rows] == ["do-nothing", "redirect", "unseen-scratch"]
    steps = {line[0]: line[3] for line in table.rows}
    assert steps == {"do-nothing": "7", "redirect": "3", "unseen-scratch": "7"}
    held = {line[0]: (float(line[8]), int(line[4].replace(",", ""))) for line in table.rows}
    assert all(mib == pytest.approx(4 * (1 + HELD + 2) * weights / 2**20, abs=0.06) for mib, weights in held.values())
    assert not list(tmp_path.iterdir())


def test_random_items_are_shaped_as_the_data_and_have_its_levels_and_classes():
    images = Dataset("x", torch.zeros(4, 1, 8, 8, dtype=torch.uint8), (1, 8, 8), 17, np.arange(4), list("abcd"))
    items = random_items(images, 40)
    assert (items.items.shape, items.items.dtype, items.levels) == ((40, 1, 8, 8), torch.uint8, 17)
    assert items.items.max() == 16
    assert set(items.labels) == {0, 1, 2, 3}
    assert random_items(POINTS, 6).items.shape == (6, 2)


def test_on_the_command_line(cli, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    done = cli("compare", "digits/vp", "--dry-run", "--only", "unseen", "--set", "network.channels=[8]")
    assert done.code == 0, done.err
    assert "unseen" in done.out
    assert "redirect" not in done.out
    assert not list(tmp_path.iterdir())
    assert cli("compare", "classifier/digits", "--dry-run").err == (
        "msgm: --dry-run: a classifier experiment has none; it is for generators.\n"
    )
    assert "Did you mean 'unseen'" in cli("compare", "digits/vp", "--dry-run", "--only", "unsen").err


def test_a_row_that_cannot_be_built_is_refused():
    with pytest.raises(UserError, match="at least 8"):
        dry_run(tiny("rows.redirect.objective.bank=3"), ["redirect"], POINTS, "cpu")


def test_labels_that_the_network_does_not_know_are_refused():
    images = Dataset(
        "x", torch.zeros(40, 1, 8, 8, dtype=torch.uint8), (1, 8, 8), 17, np.arange(40) % 10, list("abcdefghij")
    )
    config = load_config("digits/vp", ["network={classes: 5}", "network.channels=[8]"])
    with pytest.raises(UserError, match="has 10 classes, got 5"):
        dry_run(config, ["unseen"], images, "cpu")


@pytest.mark.parametrize("option", [("--from", "x"), ("--start", "scratch"), ("--sweep", "objective.alpha=1")])
def test_options_that_a_dry_run_does_not_read_are_refused(cli, option):
    done = cli("compare", "digits/vp", "--dry-run", *option)
    assert (done.code, done.out) == (2, "")
    assert f"--dry-run: it does not read {option[0]}" in done.err
