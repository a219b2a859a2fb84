"""``msgm sample`` and ``msgm samplers``: what is written, resumed, refused, and spread over processes."""

import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from msgm.cli import main
from msgm.config import load_config
from msgm.diffusion import NETWORKS, SAMPLERS, VE, VP, SamplingSettings, ScoreModel, Sharded, sample
from msgm.errors import UserError
from msgm.generator.sample import sample_run, sampling_settings
from tests.conftest import DIGITS, ROOT, TINY, settings
from tests.forks import launched

SMALL = SamplingSettings("ancestral", 3, batch_size=4)


@pytest.fixture(scope="module")
def images(tmp_path_factory) -> Path:
    """An untrained model of 8x8 images, as a folder without a config."""
    torch.manual_seed(0)
    network = NETWORKS.build({"name": "unet", "channels": [8], "mid_attention": False}).build((1, 8, 8))
    folder = tmp_path_factory.mktemp("images") / "model"
    ScoreModel(network, VP(), (1, 8, 8)).save(folder)
    return folder


@pytest.fixture(scope="module")
def points(tmp_path_factory) -> Path:
    """An untrained model of points."""
    torch.manual_seed(0)
    folder = tmp_path_factory.mktemp("points") / "model"
    ScoreModel(NETWORKS.build({"name": "mlp", "width": 8}).build((2,)), VE(), (2,)).save(folder)
    return folder


def files(folder: Path) -> dict[str, bytes]:
    """Return what is in a folder, the register of what was written apart."""
    found = {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}
    return {name: content for name, content in found.items() if name != "traces.json"}


def array(folder: Path) -> np.ndarray:
    return np.load(folder / "samples.npz", allow_pickle=False)["samples"]


def test_every_format_holds_the_same_samples(images, tmp_path):
    written = sample_run(images, 10, SMALL, 2, tmp_path, "cpu", ["grid", "npz", "png"])
    assert written == [tmp_path / name for name in ("samples.png", "samples.npz", "png")]
    assert set(files(tmp_path)) == {"samples.png", "samples.npz", "samples.json"} | {
        f"png/{number:06d}.png" for number in range(10)
    }
    found = array(tmp_path)
    assert (found.shape, found.dtype) == ((10, 8, 8, 1), np.uint8)
    expected = sample(ScoreModel.load(images), 10, SMALL, seed=2)
    levels = ((expected.clamp(-1, 1) + 1) / 2 * 255).permute(0, 2, 3, 1).numpy()
    assert np.abs(found - levels).max() <= 1
    for number, image in enumerate(found):
        with Image.open(tmp_path / f"png/{number:06d}.png") as file:
            np.testing.assert_array_equal(np.asarray(file), image[..., 0])


def test_points_keep_their_digits(points, tmp_path):
    assert len(sample_run(points, 9, SMALL, 2, tmp_path, "cpu")) == 2
    torch.testing.assert_close(torch.from_numpy(array(tmp_path)), sample(ScoreModel.load(points), 9, SMALL, seed=2))


@pytest.mark.parametrize("done", [0, 1, 2])
def test_a_stopped_run_goes_on_to_what_it_would_have_been(images, tmp_path, monkeypatch, done):
    whole, stopped = tmp_path / "whole", tmp_path / "stopped"
    sample_run(images, 11, SMALL, 2, whole, "cpu", ["grid", "npz", "png"])
    calls = []

    def interrupted(*arguments, **asked):
        if len(calls) == done:
            raise KeyboardInterrupt
        calls.append(arguments[-1])
        return sample(*arguments, **asked)

    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr("msgm.generator.sample.sample", interrupted)
        sample_run(images, 11, SMALL, 2, stopped, "cpu", ["grid", "npz", "png"])
    assert not (stopped / "samples.npz").exists()
    with pytest.raises(UserError, match="--resume"):
        sample_run(images, 11, SMALL, 2, stopped, "cpu")
    before, seen = files(stopped), []
    monkeypatch.setattr(
        "msgm.generator.sample.sample",
        lambda *arguments, **asked: seen.append(arguments[-1]) or sample(*arguments, **asked),
    )
    for changed in ({"count": 12}, {"seed": 3}, {"settings": SamplingSettings("ancestral", 4, batch_size=4)}):
        given = {"count": 11, "settings": SMALL, "seed": 2} | changed
        with pytest.raises(UserError, match="holds other samples"):
            sample_run(images, **given, out=stopped, device="cpu", resume=True)
    assert files(stopped) == before
    sample_run(images, 11, SMALL, 2, stopped, "cpu", ["grid", "npz", "png"], resume=True)
    assert seen == [0, 4, 8][done:]
    assert files(stopped) == files(whole)


def test_samples_are_asked_for_classes_in_turn(cli, tmp_path):
    model = ScoreModel.new("unet", "vp", channels=[8], classes=10)
    torch.nn.init.normal_(model.network.unet.class_embedding.weight, std=20)
    model.save(tmp_path / "model")
    asked = [
        "sample",
        tmp_path / "model",
        "-n",
        "6",
        "--steps",
        "3",
        "--device",
        "cpu",
        "--set",
        "sampling.batch_size=4",
    ]
    assert cli(*asked, "--ask", "3,7", "--out", tmp_path / "asked").code == 0
    settings = sampling_settings(tmp_path / "model", steps=3)
    expected = sample(model, 6, settings, condition=[3, 7, 3, 7, 3, 7])
    levels = ((expected.clamp(-1, 1) + 1) / 2 * 255).permute(0, 2, 3, 1).numpy()
    assert np.abs(array(tmp_path / "asked") - levels).max() <= 1
    assert "holds other samples (asked: [3, 7] -> None)" in cli(*asked, "--out", tmp_path / "asked").err
    refused = cli(*asked, "--ask", "10", "--out", tmp_path / "other")
    assert (refused.code, "knows labels 0 to 9" in refused.err) == (2, True)
    assert not (tmp_path / "other").exists()


def test_samples_of_another_model_are_not_mixed_in(images, points, tmp_path):
    sample_run(images, 2, SMALL, 0, tmp_path, "cpu")
    with pytest.raises(UserError, match="model: "):
        sample_run(points, 2, SMALL, 0, tmp_path, "cpu")


def test_samples_of_another_mixture_of_the_same_shards_are_other_samples(points, tmp_path):
    models = [ScoreModel.load(points), ScoreModel.load(points)]
    for name, items, mixture in (("one", (3, 2), "equal"), ("two", (3, 2), "drawn"), ("three", (1, 4), "drawn")):
        Sharded.of(models, items, mixture).save(tmp_path / name)
    sample_run(tmp_path / "one", 2, SMALL, 0, tmp_path / "out", "cpu")
    with pytest.raises(UserError, match="holds other samples \\(model: "):
        sample_run(tmp_path / "two", 2, SMALL, 0, tmp_path / "out", "cpu")
    sample_run(tmp_path / "two", 2, SMALL, 0, tmp_path / "out", "cpu", overwrite=True)
    with pytest.raises(UserError, match="holds other samples \\(model: "):
        sample_run(tmp_path / "three", 2, SMALL, 0, tmp_path / "out", "cpu")


def test_finished_samples_are_kept_extended_by_format_and_replaced_on_demand(cli, images, tmp_path):
    command = ["sample", images, "-n", "3", "--steps", "2", "--device", "cpu", "--out", tmp_path]
    assert cli(*command).out.count("wrote") == 2
    first = files(tmp_path)
    outcome = cli(*command)
    assert (outcome.code, outcome.out) == (0, f"{tmp_path} holds these samples already\n")
    refused = cli(*command, "--seed", "1")
    assert refused.code == 2
    assert refused.err == (
        f"msgm: {tmp_path} holds other samples (seed: 0 -> 1); choose another --out, or --overwrite.\n"
    )
    assert files(tmp_path) == first
    assert cli(*command, "--format", "png").code == 0
    assert {name: content for name, content in files(tmp_path).items() if "png/" not in name} == first
    assert cli(*command, "--seed", "1", "--overwrite").code == 0
    assert files(tmp_path)["samples.npz"] != first["samples.npz"]


def test_samples_of_earlier_settings_do_not_stand_beside_those_that_replaced_them(images, tmp_path):
    sample_run(images, 3, SMALL, 0, tmp_path, "cpu", ["npz", "png"])
    sample_run(images, 2, SMALL, 1, tmp_path, "cpu", ["grid"], overwrite=True)
    assert {*files(tmp_path)} == {"samples.json", "samples.png"}
    assert sample_run(images, 2, SMALL, 1, tmp_path, "cpu", ["npz"]) == [tmp_path / "samples.npz"]
    assert len(array(tmp_path)) == 2


def test_every_process_computes_with_the_threads_that_the_samples_were_begun_with(images, tmp_path):
    sample_run(images, 2, SMALL, 0, tmp_path, "cpu", ["grid"])
    record = json.loads((tmp_path / "samples.json").read_text())
    (tmp_path / "samples.json").write_text(json.dumps(record | {"threads": 2}))

    def call(rank):
        sample_run(images, 2, SMALL, 0, tmp_path, "cpu", ["grid"])
        return torch.get_num_threads() - 2

    launched(call)


def test_samples_are_refused_in_every_process_of_a_launch(images, tmp_path):
    sample_run(images, 2, SMALL, 0, tmp_path, "cpu", ["grid"])

    def call(rank):
        with pytest.raises(UserError, match="holds other samples"):
            sample_run(images, 2, SMALL, 1, tmp_path, "cpu", ["grid"])

    launched(call)


def test_settings_are_the_runs_own_and_each_can_be_changed(tmp_path):
    overrides = ["sampling.sampler=heun", "sampling.steps=7", "sampling.options.churn=3", "sampling.schedule=log"]
    (tmp_path / "config.yaml").write_text(load_config(DIGITS, overrides).to_yaml())
    own = sampling_settings(tmp_path)
    assert (own.sampler, own.steps, own.schedule, own.options) == ("heun", 7, "log", {"churn": 3})
    assert sampling_settings(tmp_path, steps=9, overrides=["sampling.options.s_noise=1.1"]) == SamplingSettings(
        "heun", 9, "log", 1000, {"churn": 3, "s_noise": 1.1}
    )
    # Another sampler has other options and another grid.
    assert sampling_settings(tmp_path, "ddim") == SamplingSettings("ddim", 7, batch_size=1000)
    assert sampling_settings(tmp_path / "elsewhere") == SamplingSettings()


@pytest.mark.parametrize(
    ("arguments", "parts"),
    [
        (["--sampler", "heum"], ["sampling.sampler", "heun"]),
        (["--steps", "1"], ["sampling.steps"]),
        (["-n", "0"], ["--count"]),
        (["--format", "gif"], ["--format", "grid, npz, png"]),
        (["--format", "gird"], ["Did you mean 'grid'"]),
        (["--set", "sampling.stepz=3"], ["sampling.stepz", "steps"]),
        (["--set", "training.steps=3"], ["training.steps=3", "sampling.KEY=VALUE"]),
        (["--set", "sampling.steps"], ["sampling.KEY=VALUE"]),
        (["--set", "sampling.steps=[1"], ["sampling.steps=[1", "YAML"]),
        (["--sampler", "heun", "--set", "sampling.options.chrun=1"], ["sampling.options.chrun", "churn"]),
    ],
)
def test_bad_options_are_refused_in_one_line_and_nothing_is_written(cli, images, tmp_path, arguments, parts):
    outcome = cli("sample", images, "--out", tmp_path / "out", *arguments)
    assert outcome.code == 2
    assert outcome.err.count("\n") == 1
    for part in parts:
        assert part in outcome.err
    assert not (tmp_path / "out").exists()


def test_points_make_no_png_files(cli, points, tmp_path):
    outcome = cli("sample", points, "--format", "png", "--out", tmp_path / "out")
    assert outcome.code == 2
    assert "shape (2,)" in outcome.err


def by_torchrun(arguments: list[str]) -> str:
    launch = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc_per_node", "2"]
    command = [*launch, str(ROOT / "scripts" / "sample.py"), *arguments]
    environment = os.environ | {"OMP_NUM_THREADS": "1"}
    done = subprocess.run(command, capture_output=True, text=True, env=environment, timeout=200)
    assert done.returncode == 0, done.stderr
    return done.stdout


def by_forks(arguments: list[str]) -> str:
    return "".join(process.said("stdout") for process in launched(lambda rank: main(["sample", *arguments])))


@pytest.mark.parametrize("launch", [by_forks, pytest.param(by_torchrun, marks=pytest.mark.slow)])
def test_two_processes_write_what_one_writes(images, tmp_path, launch):
    arguments = [str(images), "-n", "11", "--sampler", "ancestral", "--steps", "3", "--set", "sampling.batch_size=4"]
    arguments += ["--format", "grid,npz,png", "--device", "cpu"]
    assert main(["sample", *arguments, "--out", str(tmp_path / "one")]) == 0
    assert launch([*arguments, "--out", str(tmp_path / "two")]).count("wrote") == 3
    assert files(tmp_path / "two") == files(tmp_path / "one")


def test_a_trained_run_is_sampled_into_itself(cli, tmp_path):
    run = tmp_path / "run"
    arguments = settings([*TINY, "training.steps=1", "sampling.steps=2", "sampling.sampler=ddim"])
    assert cli("train", DIGITS, *arguments, "--device", "cpu", "--out", run).code == 0
    assert cli("sample", run, "-n", "2", "--device", "cpu").code == 0
    record = json.loads((run / "samples" / "samples.json").read_text())
    assert record["protocol"].startswith("ddim, 2 network evaluations, grid even in t; walks start at sigma / a = ")
    assert record["finished"]


def test_the_listing_names_every_sampler(cli):
    outcome = cli("samplers", *SAMPLERS.entries)
    for name in SAMPLERS.entries:
        assert f"\n{name}\n  step: " in "\n" + outcome.out
    assert cli("samplers", "heun").out.startswith("heun\n  step: Heun's")
    assert "Did you mean 'heun'" in cli("samplers", "huen").err
