"""Masks, the numbers of restored items, and the commands inpaint and reconstruct."""

import json
import math
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from msgm.cli import main
from msgm.config import load_config
from msgm.data import dequantise
from msgm.diffusion import PROCESSES, SamplingSettings, ScoreModel
from msgm.diffusion.restoration import reconstruct, sdedit
from msgm.errors import UserError
from msgm.evaluation import Bench
from msgm.evaluation.restored import InpaintingTask, ReconstructionTask, items_to_restore, restoration_numbers
from msgm.generator.restore import Work
from msgm.masks import parse_mask
from msgm.reading import read_json
from msgm.runs import Run
from msgm.training.run import load_data, train
from tests.conftest import DIGITS, TINY, settings

pytestmark = pytest.mark.usefixtures("rendered")

JUDGE = ["evaluation.judge.epochs=1", "evaluation.judge.width=8"]
VECTORS = ["data.name=gaussians", "data.count=400", "network.name=mlp", "network.width=16", "request.labels=[1]"]
FEW = ["--steps", "3", "--device", "cpu"]
SHAPE = (1, 8, 8)


# Masks


def removed(text, shape=SHAPE):
    return (~parse_mask(text, shape)).nonzero().tolist()


def block(rows, columns):
    return [[row, column] for row in rows for column in columns]


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("upper", block(range(4), range(8))),
        ("lower", block(range(4, 8), range(8))),
        ("left", block(range(8), range(4))),
        ("right", block(range(8), range(4, 8))),
        ("rows:2-3", block((2, 3), range(8))),
        ("rows:7-7", block((7,), range(8))),
        ("box:1,2,3,4", block(range(1, 4), range(2, 6))),
    ],
)
def test_masks_say_what_is_removed(text, expected):
    assert removed(text) == expected


def test_the_papers_celeba_mask_is_a_quarter():
    known = parse_mask("rows:32-47", (3, 64, 64))
    assert (~known).double().mean() == 0.25
    assert not known[32:48].any()


def test_dims_are_for_vectors():
    assert removed("dims:0,2", (4,)) == [[0], [2]]


def test_white_pixels_of_a_picture_are_removed(tmp_path):
    pixels = np.zeros((8, 8, 3), np.uint8)
    pixels[:2, 5:] = 255
    Image.fromarray(pixels).save(tmp_path / "mask.png")
    assert removed(str(tmp_path / "mask.png")) == block(range(2), range(5, 8))


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("uper", "is no file and no mask; expected upper, lower"),
        ("rows:3-9", "rows from 0 to 7"),
        ("rows:5-3", "rows from 0 to 7"),
        ("rows:5", "expected upper, lower"),
        ("rows:a-b", "expected upper, lower"),
        ("box:1,2,3", "expected upper, lower"),
        ("box:6,0,3,3", "does not lie within the 8x8 image"),
        ("box:0,0,0,3", "does not lie within the 8x8 image"),
        ("box:0,0,8,8", "removes everything"),
        ("dims:0", "the data are images"),
    ],
)
def test_a_bad_mask_is_one_sentence(text, words):
    with pytest.raises(UserError, match=words):
        parse_mask(text, SHAPE)


def test_a_mask_picture_of_the_wrong_size_names_both_sizes(tmp_path):
    Image.fromarray(np.zeros((6, 4), np.uint8)).save(tmp_path / "mask.png")
    with pytest.raises(UserError, match=r"mask.png: the mask has size 6x4, but the items have 8x8\."):
        parse_mask(str(tmp_path / "mask.png"), SHAPE)


def test_a_black_mask_or_a_broken_one_is_refused(tmp_path):
    Image.fromarray(np.zeros((8, 8), np.uint8)).save(tmp_path / "black.png")
    (tmp_path / "broken.png").write_bytes(b"no picture")
    for name, words in (("black.png", "removes nothing"), ("broken.png", "no picture of a known format")):
        with pytest.raises(UserError, match=words):
            parse_mask(str(tmp_path / name), SHAPE)


@pytest.mark.parametrize(("text", "words"), [("upper", "vectors of 4 numbers"), ("dims:4", "coordinates from 0 to 3")])
def test_a_bad_mask_of_vectors_is_one_sentence(text, words):
    with pytest.raises(UserError, match=words):
        parse_mask(text, (4,))


# Numbers


@pytest.fixture(scope="module")
def base(tmp_path_factory) -> Path:
    """A run of a few steps on digits, with a small judge."""
    out = tmp_path_factory.mktemp("base") / "run"
    assert main(["train", str(DIGITS), *settings([*TINY, *JUDGE]), "--device", "cpu", "--out", str(out)]) == 0
    return out


@pytest.fixture(scope="module")
def bench(base, tmp_path_factory):
    config = load_config(base / "config.yaml")
    return Bench.make(config, Run(tmp_path_factory.mktemp("bench")), *load_data(config), torch.device("cpu"))


def originals(bench, indices):
    return dequantise(bench.dataset.take(indices), 17)


def test_items_restored_to_themselves_score_best(bench):
    indices = items_to_restore(bench.dataset, bench.split, 40)["forget"]
    numbers = restoration_numbers(bench, indices, originals(bench, indices), torch.ones(SHAPE, dtype=torch.bool))
    assert numbers["n"] == 40
    assert numbers["accuracy"]["value"] == 1
    assert numbers["label_accuracy"] == numbers["originals"]["label_accuracy"]
    assert numbers["psnr"] is None
    assert numbers["psnr_removed"] is None
    assert numbers["ssim"] == pytest.approx(1)
    assert json.dumps(numbers, allow_nan=False)


def test_psnr_is_that_of_all_pixels_in_a_range_of_one(bench):
    indices = items_to_restore(bench.dataset, bench.split, 30)["retain"]
    x, hole = originals(bench, indices), torch.zeros(SHAPE, dtype=torch.bool)
    hole[:, :4] = True
    restored = torch.where(hole, x * 0.5, x)
    numbers = restoration_numbers(bench, indices, restored, hole)
    error = ((restored - x) / 2).square()
    assert numbers["psnr"] == pytest.approx(-10 * math.log10(error.mean()), abs=1e-3)
    # The hole is half the image and holds the whole error.
    assert numbers["psnr_removed"] == pytest.approx(numbers["psnr"] - 10 * math.log10(2), abs=1e-3)
    assert numbers["ssim_removed"] < numbers["ssim"] < 1


def test_noise_is_wrong_and_junk(bench):
    indices = items_to_restore(bench.dataset, bench.split, 60)["retain"]
    noise = torch.randn(60, *SHAPE, generator=torch.Generator().manual_seed(0))
    numbers = restoration_numbers(bench, indices, noise)
    assert numbers["accuracy"]["value"] < 0.5
    assert numbers["junk_rate"] > 0.9
    assert numbers["psnr"] < 12
    assert "psnr_removed" not in numbers


def test_what_diverged_has_no_fidelity(bench):
    indices = items_to_restore(bench.dataset, bench.split, 3)["retain"]
    restored = originals(bench, indices)
    restored[1, 0, 0, 0] = float("nan")
    numbers = restoration_numbers(bench, indices, restored)
    assert numbers["psnr"] is None
    assert numbers["ssim"] is None
    assert numbers["non_finite_samples"] == 1


def test_restored_items_come_with_their_places_and_do_not_depend_on_how_many(base, bench):
    model = ScoreModel.load(base / "model")
    known, task = parse_mask("upper", SHAPE), InpaintingTask(SamplingSettings("euler-maruyama", 3), "upper", 2)
    many, two = (task.measured(model, bench, count) for count in (5, 2))
    for kind in ("retain", "forget"):
        part = many[kind]
        torch.testing.assert_close(part.originals, originals(bench, part.indices))
        torch.testing.assert_close(part.restored[:, :, known], part.originals[:, :, known], rtol=0, atol=0)
        assert not part.given[:, :, ~known].any()
        torch.testing.assert_close(part.restored[:2], two[kind].restored, rtol=1e-4, atol=1e-5)
        assert part.numbers["n"] == 5
        assert part.numbers["part"] == "test"
    assert set(many["forget"].indices) <= set(bench.split.test.forget)


@pytest.mark.parametrize("method", ["encode", "sdedit"])
def test_reconstruction_is_that_of_the_diffusion_package(base, bench, method):
    model, few = ScoreModel.load(base / "model"), SamplingSettings(steps=5)
    for part in ReconstructionTask(few, method, 0.1).measured(model, bench, 3).values():
        numbers, x = part.indices.tolist(), part.originals
        if method == "encode":
            expected = reconstruct(model, x, 0.1, 5, numbers=numbers)
        else:
            expected = sdedit(model, x, 0.1, few, numbers=numbers)
        torch.testing.assert_close(part.restored, expected)
        assert part.given.shape == x.shape


@pytest.mark.parametrize(("method", "t"), [("encode", 0.02), ("sdedit", 0.3)])
def test_each_method_has_a_time_of_its_own_by_default(method, t):
    few, process = SamplingSettings(steps=5), PROCESSES.build({"name": "vp"})
    default, given = (ReconstructionTask(few, method, time) for time in (None, t))
    assert default.options == given.options == {"method": method, "t": t}
    assert default.describe(SHAPE, process) == given.describe(SHAPE, process)
    assert f"noise of t = {t}" in default.describe(SHAPE, process)


def test_where_the_request_names_no_test_item_training_items_are_restored():
    train, held = 5, 1700
    config = load_config(None, [f"request.indices=[{train},{held}]"])
    dataset, split = load_data(config)
    numbers = set(split.train.forget) | set(split.validation.forget) | set(split.test.forget)
    assert numbers == {train, held}
    chosen = items_to_restore(dataset, split, 10)["forget"]
    assert list(chosen) == list(split.test.forget if len(split.test.forget) else split.train.forget)


# Commands


def files(folder):
    return sorted(str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file())


def check(cli, out, *arguments):
    """Run a command and return its numbers and arrays."""
    outcome = cli(*arguments, "--out", out)
    assert outcome.code == 0, outcome.err
    assert f"wrote {out / 'triptychs.png'}" in outcome.out
    assert Image.open(out / "triptychs.png").size[0] > 100
    with np.load(out / "restored.npz") as arrays:
        return read_json(out / "numbers.json"), dict(arrays), outcome.out


def test_inpaint_writes_pictures_arrays_and_numbers(cli, base, tmp_path):
    arguments = ["inpaint", base, "--mask", "rows:2-4", "-n", "6", "--resamples", "2", *FEW]
    numbers, arrays, text = check(cli, tmp_path / "out", *arguments)
    assert arrays["retain_originals"].shape == arrays["forget_restored"].shape == (6, 8, 8, 1)
    assert arrays["removed"].sum() == 24
    kept = ~arrays["removed"]
    assert (arrays["forget_restored"][:, kept] == arrays["forget_originals"][:, kept]).all()
    assert numbers["retain"]["accuracy"]["n"] == 6
    assert numbers["forget"]["psnr_removed"] < numbers["forget"]["psnr"]
    assert "rows:2-4 masked, 24 of 64 places" in numbers["protocol"]["inpainting"]
    assert "3 steps taken 2 times, 5 network evaluations" in numbers["protocol"]["inpainting"]
    assert numbers["judge"]["heldout"]["n"] > 200
    assert "accuracy % [95% CI]" in text
    assert "PSNR hole" in text


@pytest.mark.parametrize("method", ["encode", "sdedit"])
def test_reconstruct_writes_pictures_arrays_and_numbers(cli, base, tmp_path, method):
    numbers, arrays, text = check(
        cli, tmp_path / "out", "reconstruct", base, "-n", "4", "--method", method, "--t", "0.1", *FEW
    )
    assert arrays["retain_restored"].shape == (4, 8, 8, 1)
    assert "removed" not in arrays
    assert (numbers["method"], numbers["t"]) == (method, 0.1)
    assert "t = 0.1" in numbers["protocol"]["reconstruction"]
    assert "PSNR hole" not in text


def test_restoring_writes_into_the_run_and_the_seed_is_the_noises_alone(cli, base, tmp_path):
    run = tmp_path / "run"
    shutil.copytree(base, run)
    made = []
    for seed in (0, 1):
        outcome = cli("inpaint", run, "--mask", "left", "-n", 2, "--resamples", 1, *FEW, "--seed", seed)
        made.append(np.load(run / "inpaint" / "restored.npz")["retain_restored"])
    assert (made[0] != made[1]).any()
    assert "judge: already trained" in outcome.out
    assert not (run / "judge").exists()


def test_a_conditional_model_restores_under_the_classes_that_are_asked_for(cli, tiny, tmp_path):
    train(tiny(*JUDGE, "network.classes=10", "training.steps=2"), tmp_path / "run", device="cpu")
    given = ("inpaint", tmp_path / "run", "--mask", "left", "-n", 4, "--resamples", 1, *FEW)
    own, _, _ = check(cli, tmp_path / "own", *given)
    asked, arrays, _ = check(cli, tmp_path / "asked", *given, "--ask", "3,7")
    assert (own.get("asked"), asked["asked"]) == (None, [3, 7])
    with np.load(tmp_path / "own" / "restored.npz") as before:
        assert (before["retain_restored"] != arrays["retain_restored"]).any()
    back = ("reconstruct", tmp_path / "run", "-n", 4, "--ask", "3", *FEW)
    _, plain, _ = check(cli, tmp_path / "back", *back)
    told, guided, _ = check(cli, tmp_path / "guided", *back, "--set", "sampling.guidance=3")
    assert told["protocol"]["reconstruction"].endswith("classifier-free guidance of scale 3 where asked")
    assert (plain["retain_restored"] != guided["retain_restored"]).any()
    told, guided, _ = check(cli, tmp_path / "filled", *given, "--ask", "3,7", "--set", "sampling.guidance=3")
    assert told["protocol"]["inpainting"].endswith("classifier-free guidance of scale 3 where asked")
    assert (arrays["retain_restored"] != guided["retain_restored"]).any()
    refused = cli(*given, "--ask", "10", "--out", tmp_path / "other")
    assert "knows labels 0 to 9" in refused.err
    assert not (tmp_path / "other").exists()


@pytest.mark.parametrize("model", ["one", "one/seed-1"])
def test_the_judge_of_the_comparison_is_taken_over_and_left_alone(cli, base, bench, tmp_path, model):
    row = tmp_path / "compared" / "rows" / model
    shutil.copytree(base, row)
    shutil.copytree(bench.folder.parent / "judge", tmp_path / "compared" / "judge")
    before = (tmp_path / "compared" / "judge" / "judge.json").read_bytes()
    assert "judge: already trained" in cli("reconstruct", row, "-n", 2, *FEW).out
    other = ["--set", "evaluation.judge.width=4", "--out", tmp_path / "other"]
    assert "judge: training" in cli("reconstruct", row, "-n", 2, *FEW, *other).out
    assert (tmp_path / "compared" / "judge" / "judge.json").read_bytes() == before


def test_a_judge_is_taken_over_whole_or_not_at_all(base, bench, tmp_path, monkeypatch):
    source, out = tmp_path / "run", tmp_path / "out"
    shutil.copytree(bench.folder.parent / "judge", source / "judge")
    work = Work.prepare(base, load_config(base / "config.yaml"), 2, "cpu")

    def killed(source, new, **_):
        Path(new).mkdir(exist_ok=True)
        shutil.copy(Path(source) / "judge.json", new)
        raise KeyboardInterrupt

    with monkeypatch.context() as patched, pytest.raises(KeyboardInterrupt):
        patched.setattr("msgm.generator.restore.shutil.copytree", killed)
        work.bench(out, source)
    assert not (out / "judge").exists()


def test_a_diffusers_folder_is_restored_with_a_config(cli, base, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    shutil.copytree(base / "model", tmp_path / "foreign")
    outcome = cli("reconstruct", "foreign", "-n", 2, *FEW, "--config", base / "config.yaml")
    assert outcome.code == 0, outcome.err
    assert files(tmp_path / "foreign") == files(base / "model")
    assert (tmp_path / "runs" / "foreign-reconstruct" / "numbers.json").is_file()
    assert "say with --config" in cli("reconstruct", "foreign").err


def test_vectors_are_restored_into_a_scatter_plot(cli, tmp_path):
    config = [*VECTORS, *JUDGE, "training.steps=4", "training.trackers=[]"]
    small = [part for part in settings(config) if part]
    file = tmp_path / "toy.yaml"
    file.write_text("name: toy\n")
    assert cli("train", file, *small, "--device", "cpu", "--out", tmp_path / "run").code == 0
    arguments = ["inpaint", tmp_path / "run", "--mask", "dims:1", "-n", "5", "--resamples", "1", *FEW]
    numbers, arrays, _ = check(cli, tmp_path / "out", *arguments)
    assert arrays["retain_restored"].shape == (5, 2)
    assert (arrays["retain_restored"][:, 0] == arrays["retain_originals"][:, 0]).all()
    assert numbers["retain"]["psnr"] is None
    check(cli, tmp_path / "back", "reconstruct", tmp_path / "run", "-n", "5", *FEW)


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["inpaint", "RUN", "--mask", "rows:0-99"], "expected rows from 0 to 7"),
        (["inpaint", "RUN", "--mask", "MASK"], "the mask has size 4x4, but the items have 8x8"),
        (["inpaint", "RUN", "--mask", "missing.png"], "is no file and no mask"),
        (["inpaint", "RUN", "--mask", "upper", "-n", "100000"], "-n 100000: the test part has 1 to "),
        (["inpaint", "RUN", "--mask", "upper", "-n", "0"], "-n 0: the test part has 1 to "),
        (["inpaint", "RUN", "--mask", "upper", "--resamples", "0"], "resamples must be at least 1"),
        (["inpaint", "RUN", "--mask", "upper", "--steps", "1"], "sampling.steps must be at least 2"),
        (["inpaint", "RUN", "--mask", "upper", "--sampler", "huen"], "unknown sampler 'huen'"),
        (["inpaint", "nowhere", "--mask", "upper"], "cannot read nowhere/config.yaml"),
        (["reconstruct", "RUN", "--t", "0"], "t must lie in (0, 1], got 0"),
        (["reconstruct", "RUN", "--method", "sdedit", "--t", "2"], "t must lie in (0.001, 1], got 2"),
        (["reconstruct", "RUN", "--set", "sampling.steps=3"], "own options are --sampler and --steps"),
        (["reconstruct", "RUN", "--set", "data.name=gaussians"], "request.labels: unknown label '3'"),
        (["reconstruct", "RUN", "--set", "evaluation.judge.kind=owm"], "unknown judge 'owm'"),
    ],
)
def test_bad_input_is_one_sentence_and_writes_nothing(cli, base, tmp_path, arguments, words):
    Image.fromarray(np.full((4, 4), 255, np.uint8)).save(tmp_path / "mask.png")
    names = {"RUN": base, "MASK": tmp_path / "mask.png"}
    outcome = cli(*(names.get(argument, argument) for argument in arguments), "--out", tmp_path / "out")
    assert outcome.code == 2
    assert outcome.err.count("\n") == 1
    assert words in outcome.err
    assert not (tmp_path / "out").exists()


def test_a_model_of_another_shape_than_the_data_is_refused(cli, base, tmp_path):
    file = tmp_path / "toy.yaml"
    file.write_text("data: {name: gaussians}\nnetwork: {name: mlp}\nrequest: {labels: [1]}\n")
    outcome = cli("reconstruct", base, "--config", file, "--out", tmp_path / "out")
    assert outcome.code == 2
    assert "makes items of shape (1, 8, 8), but the data has (2,)" in outcome.err


@pytest.mark.parametrize("command", ["inpaint", "reconstruct"])
def test_help_loads_no_torch(command):
    program = f"""
import sys, msgm.cli
try:
    msgm.cli.main(["{command}", "--help"])
except SystemExit as end:
    assert end.code == 0
assert "torch" not in sys.modules
"""
    subprocess.run([sys.executable, "-c", program], check=True, capture_output=True)
