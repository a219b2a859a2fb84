"""Runs as processes of their own: killed ones, signalled ones, and several on one run."""

import json
import signal
import time
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from msgm.cli import main
from msgm.config import load_config
from msgm.diffusion import ScoreModel
from msgm.diffusion.guidance import Negative
from msgm.reading import read_json
from msgm.runs import Run
from msgm.training import train, unlearn
from msgm.training.checkpoints import checkpoints
from msgm.training.guiding import Guider
from msgm.training.run import load_data, new_model
from tests.conftest import DIGITS, TINY, settings
from tests.forks import Forked, launched

LONG = [*TINY, "training.steps=60", "training.checkpoint_every=10", "objective.name=redirect", "objective.every=4"]


def start(overrides: list[str], out: Path) -> Forked:
    return Forked(lambda: main(["train", str(DIGITS), *settings(overrides), "--device", "cpu", "--out", str(out)]))


def wait_for_lines(running: Forked, metrics: Path, count: int) -> None:
    """Wait until the process has logged ``count`` steps."""
    end = time.monotonic() + 120
    while not metrics.is_file() or metrics.read_text().count("\n") < count:
        assert running.process.is_alive(), running.said("stderr")
        assert time.monotonic() < end, "the process logs nothing"
        time.sleep(0.002)


def weights(run: Run) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in checkpoints(run.checkpoints)[-1].glob("*.safetensors")}


def lines(run: Run) -> list[dict[str, float]]:
    found = [json.loads(line) for line in run.metrics.read_text().splitlines()]
    return [{key: value for key, value in line.items() if key != "images_per_second"} for line in found]


@pytest.fixture(scope="module")
def uninterrupted(tmp_path_factory) -> Run:
    return train(load_config(DIGITS, LONG), tmp_path_factory.mktemp("whole") / "run", device="cpu")


def test_a_killed_run_goes_on_to_what_it_would_have_been(uninterrupted, tmp_path):
    killed = Run(tmp_path / "run")
    running = start(LONG, killed.path)
    wait_for_lines(running, killed.metrics, 13)
    running.process.kill()
    assert running.ended() == -signal.SIGKILL
    assert not killed.model.exists()
    assert checkpoints(killed.checkpoints)
    resumed = train(load_config(DIGITS, LONG), killed.path, resume=True, device="cpu")
    assert weights(resumed) == weights(uninterrupted)
    assert lines(resumed) == lines(uninterrupted)


def test_a_process_told_to_terminate_saves_and_exits_with_143(uninterrupted, tmp_path):
    stopped = Run(tmp_path / "run")
    running = start(LONG, stopped.path)
    wait_for_lines(running, stopped.metrics, 7)
    running.process.terminate()
    assert running.ended() == 143
    complaint = running.said("stderr")
    step = lines(stopped)[-1]["step"]
    assert f"stopped after step {step}" in complaint
    assert "Traceback" not in complaint
    assert read_json(checkpoints(stopped.checkpoints)[-1] / "state.json")["step"] == step
    resumed = train(load_config(DIGITS, LONG), stopped.path, resume=True, device="cpu")
    assert weights(resumed) == weights(uninterrupted)


HOOKS = "{name: obtuse, every: 1, alpha: 0.5, combine: agem, replay: 32, mask: {items: 8}, anchor: {by: identity}}"


# Rounding alone tells two processes from one, as each averages half of the batch: losses differ by about 2e-7 of their
# size. Adam divides a gradient by its size, so that a weight whose gradient is near zero may differ by more: all
# weights together agree to 1e-5 of their norm, and each to 1e-4, where four steps move it by 8e-3.
@pytest.mark.parametrize(
    ("objective", "classes"),
    [
        ("{name: redirect}", 0),
        ("{name: redirect}", 10),
        ("{name: erasediff, multiplier: null}", 0),
        ("{name: unseen, matching: sliced}", 0),
        (HOOKS, 0),
        ("{name: sfr-on, mask: {by: fisher, items: 8}}", 10),
    ],
)
def test_two_processes_train_what_one_trains(tmp_path, objective, classes):
    overrides = [*TINY, "training.steps=4", f"objective={objective}"]
    overrides += ["network.dropout=0", f"network.classes={classes}"]
    config, two = load_config(DIGITS, overrides), Run(tmp_path / "two")
    launched(lambda rank: train(config, two.path, device="cpu") and 0)
    one = train(config, tmp_path / "one", device="cpu")
    for line, other in zip(lines(one), lines(two), strict=True):
        assert other == pytest.approx(line, rel=1e-4)
    agree(one, two)
    assert read_json(two.manifest)["processes"] == 2
    assert read_json(two.manifest)["status"] == "finished"


def agree(one: Run, two: Run) -> None:
    for name in ("network", "ema"):
        expected, found = (load_file(checkpoints(run.checkpoints)[-1] / f"{name}.safetensors") for run in (one, two))
        one_vector, two_vector = (torch.cat([w[key].flatten() for key in expected]) for w in (expected, found))
        assert (one_vector - two_vector).norm() < 1e-5 * one_vector.norm()
        assert (one_vector - two_vector).abs().max() < 1e-4


def test_two_processes_unlearn_with_a_teacher_as_one_does(tmp_path):
    base = train(load_config(DIGITS, TINY), tmp_path / "base", device="cpu")
    overrides = [*TINY, "objective.name=orthogonal", "objective.variant=marginal", "objective.teacher_steps=3"]
    overrides += ["finetune.steps=6", "training.accumulate=2"]
    config, two = load_config(DIGITS, overrides), Run(tmp_path / "two")
    launched(lambda rank: unlearn(config, base.path, two.path, device="cpu") and 0)
    agree(unlearn(config, base.path, tmp_path / "one", device="cpu"), two)


def test_two_processes_train_an_adapter_as_one_does(tmp_path):
    pytest.importorskip("peft")
    base = train(load_config(DIGITS, TINY), tmp_path / "base", device="cpu")
    overrides = [
        *TINY,
        f"objective={HOOKS.replace('mask: {items: 8}, ', '')}",
        "finetune={adapter: {rank: 4}, steps: 6}",
    ]
    config, two = load_config(DIGITS, overrides), Run(tmp_path / "two")
    launched(lambda rank: unlearn(config, base.path, two.path, device="cpu") and 0)
    agree(unlearn(config, base.path, tmp_path / "one", device="cpu"), two)


def test_a_slow_process_still_finds_the_copy_that_guidance_tuned(tmp_path):
    """The first process removes the copy's folder once the guidance holds its weights."""
    config, run = load_config(DIGITS, TINY), Run(tmp_path / "run")

    def guide(rank: int) -> None:
        dataset, split = load_data(config)
        read = ScoreModel.load
        ScoreModel.load = lambda folder: time.sleep(0.3 * rank) or read(folder)
        args = (dataset, split.train, config.training, 0, run, "cpu")
        made = Guider(new_model(config, dataset), Negative(steps=1), *args)
        made.train()
        made.save()

    launched(guide)
    assert sorted(path.name for path in run.path.iterdir() if path.is_dir()) == ["guidance", "model"]
