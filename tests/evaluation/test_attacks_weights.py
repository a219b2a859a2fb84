"""Raw and averaged weights, quantised ones, those of the course; random ones as a row."""

import shutil
from dataclasses import replace

import pytest
import torch
from safetensors.torch import load_file

from msgm.config import load_config
from msgm.diffusion import ScoreModel
from msgm.errors import UserError
from msgm.evaluation.attacks.base import with_weights
from msgm.evaluation.attacks.course import Course
from msgm.evaluation.attacks.quantisation import Quantisation, quantised, quantised_copy
from msgm.evaluation.attacks.weights import Weights
from msgm.generator.compare import GENERATORS
from msgm.generator.evaluate import evaluate
from msgm.reading import read_json
from msgm.runs import Run
from msgm.training import train
from msgm.training.checkpoints import checkpoints, raw_and_averaged
from msgm.training.run import load_data, new_model
from tests.conftest import TINY
from tests.evaluation.attacks import bench_of, fresh, same, subject_of, tensors


@pytest.fixture(scope="module")
def bench():
    return bench_of("sampling.steps=4", "evaluation.samples=10")


@pytest.fixture(scope="module")
def run(tmp_path_factory) -> Run:
    """A run of six steps, whose weights are kept after each second one."""
    config = load_config(None, [*TINY, "training.keep_every=2", "training.checkpoint_every=3", "training.ema=0.9"])
    return train(config, tmp_path_factory.mktemp("run") / "mine", device="cpu")


def test_the_weights_of_the_newest_checkpoint_are_sampled(bench, run):
    model = ScoreModel.load(run.model)
    before = tensors(model)
    found = Weights().measure(subject_of(bench, model, run=run))["weights_attack"]
    assert (found["checkpoint"], found["samples"]) == ("step-00000006", 10)
    assert {"raw", "averaged"} <= found.keys()
    assert same(tensors(model), before)


def test_averaged_weights_are_those_of_the_model_folder_and_raw_ones_are_not(run):
    model = ScoreModel.load(run.model)
    raw, averaged = raw_and_averaged(checkpoints(run.checkpoints)[-1])
    assert same(averaged, tensors(model))
    assert not same(raw, tensors(model))


def test_without_averaging_both_are_the_same(bench, tmp_path):
    config = load_config(None, [*TINY, "training.ema=0"])
    run = train(config, tmp_path / "run", device="cpu")
    found = Weights().measure(subject_of(bench, ScoreModel.load(run.model), run=run))["weights_attack"]
    assert found["raw"] == found["averaged"]
    assert same(*raw_and_averaged(checkpoints(run.checkpoints)[-1]))


def test_a_model_without_a_checkpoint_is_not_tested(bench, tmp_path):
    for run in (None, Run(tmp_path)):
        row = Weights().measure(subject_of(bench, run=run)) | Course().measure(subject_of(bench, run=run))
        assert "EMA weights" in row["weights_attack"]["not_tested"]
        assert "neither checkpoints nor course/" in row["course"]["not_tested"]
        assert Weights.columns[0].cell(row, {}) == "not tested"


def test_one_run_without_averaged_weights_is_refused_in_one_sentence(run, tmp_path):
    ScoreModel.load(run.model).save(tmp_path / "bare" / "model")
    config = load_config(None, [*TINY, "evaluation.metrics=[weights]"])
    with pytest.raises(UserError) as error:
        evaluate(config, [str(tmp_path / "bare")], tmp_path / "out", device="cpu")
    assert str(error.value) == (
        "--metrics weights: raw against averaged weights needs a checkpoint with both, and the run bare has none with "
        "EMA weights."
    )
    assert not (tmp_path / "out").exists()


def test_weights_of_another_network_are_refused(bench, run):
    with pytest.raises(UserError, match="different networks"):
        with_weights(fresh(bench_of("network.channels=[16]")), raw_and_averaged(checkpoints(run.checkpoints)[-1])[0])


def test_a_damaged_checkpoint_is_refused_in_one_sentence(run, tmp_path):
    copied = shutil.copytree(checkpoints(run.checkpoints)[-1], tmp_path / "step-00000006")
    (copied / "ema.safetensors").write_bytes(b"nothing")
    with pytest.raises(UserError, match="cannot read the weights of the checkpoint"):
        raw_and_averaged(copied)


def test_the_course_is_that_of_the_kept_weights(bench, run):
    assert sorted(path.name for path in run.course.iterdir()) == [f"step-0000000{n}.safetensors" for n in (2, 4, 6)]
    found = Course().measure(subject_of(bench, ScoreModel.load(run.model), run=run))["course"]
    assert [point["step"] for point in found["curve"]] == [2, 3, 4, 6]
    assert {point["weights"] for point in found["curve"]} == {"ema"}
    assert all(point["unlearning_ratio"]["n"] == 10 for point in found["curve"])


def test_the_last_weights_kept_are_the_models(run):
    assert same(load_file(run.course / "step-00000006.safetensors"), tensors(ScoreModel.load(run.model)))


def test_keeping_weights_does_not_change_the_training(run, tmp_path):
    config = load_config(None, [*TINY, "training.checkpoint_every=3", "training.ema=0.9"])
    plain = train(config, tmp_path / "run", device="cpu")
    assert not plain.course.exists()
    assert same(tensors(ScoreModel.load(plain.model)), tensors(ScoreModel.load(run.model)))


@pytest.mark.parametrize("bits", [2, 4, 8])
def test_a_rounded_weight_is_off_by_half_a_step_at_most(bits):
    weight = torch.randn(5, 3, 3, generator=torch.Generator().manual_seed(0)) * torch.logspace(-3, 3, 5)[:, None, None]
    rounded = quantised(weight, bits)
    step = weight.flatten(1).abs().amax(1) / (2 ** (bits - 1) - 1)
    assert ((rounded - weight).flatten(1).abs().amax(1) <= 0.5001 * step).all()
    levels = (rounded.flatten(1) / step[:, None]).round()
    assert torch.allclose(levels * step[:, None], rounded.flatten(1), rtol=1e-4)
    assert levels.abs().max() == 2 ** (bits - 1) - 1


def test_a_channel_of_zeros_stays_zero():
    assert torch.equal(quantised(torch.zeros(2, 4), 4), torch.zeros(2, 4))


def test_more_bits_are_closer_and_only_matrices_and_kernels_are_rounded(bench):
    model = fresh(bench)
    before = tensors(model)
    fine, coarse = (tensors(quantised_copy(model, bits)) for bits in (8, 3))
    assert same(tensors(model), before)
    for name, weight in before.items():
        gaps = [(found[name] - weight).norm() for found in (fine, coarse)]
        assert gaps[0] < gaps[1] if weight.dim() > 1 and weight.any() else gaps == [0, 0]


def test_every_width_is_sampled(bench):
    row = Quantisation(bits=[8, 2]).measure(subject_of(bench))
    assert [point["bits"] for point in row["quantisation"]["widths"]] == [8, 2]
    assert Quantisation.columns[0].cell(row, {}) == "8: 0.0 / 2: 0.0"


@pytest.mark.parametrize("bits", [[], [1], [8, 9]])
def test_widths_out_of_range_are_refused(bits):
    with pytest.raises(UserError, match=r"^evaluation.options.quantisation.bits must be widths from 2 to 8"):
        Quantisation(bits=bits)


def test_a_row_may_be_a_network_of_random_weights(tmp_path):
    overrides = ["evaluation.samples=10", "evaluation.metrics=[ur,weights]", "evaluation.judge.epochs=1"]
    config = load_config(None, [*TINY, "sampling.steps=3", *overrides])
    run = GENERATORS.compare(config, tmp_path / "out", only=["do-nothing", "random-network"], device="cpu")
    base, random = read_json(run.report)["rows"]
    assert (random["name"], random["start"], random["weights"], random["steps"]) == (
        "random-network",
        "random",
        "random",
        0,
    )
    assert "not_tested" in random["weights_attack"]
    assert "raw" in base["weights_attack"]
    expected = new_model(config, load_data(config)[0])
    assert same(tensors(ScoreModel.load(run.path / "rows" / "random-network" / "model")), tensors(expected))


def test_a_subject_of_raw_weights_has_a_raw_course(bench, run, monkeypatch):
    manifest = read_json(run.manifest) | {"weights": "raw"}
    monkeypatch.setattr("msgm.runs.read_json", lambda path, shape: manifest)
    found = Course().measure(subject_of(bench, ScoreModel.load(run.model), run=run))["course"]
    assert {point["weights"] for point in found["curve"]} == {"raw"}


def test_never_more_samples_than_the_rows_get(bench):
    small = replace(bench, config=replace(bench.config, evaluation=replace(bench.config.evaluation, samples=4)))
    found = Quantisation(bits=[8]).measure(subject_of(small))["quantisation"]
    assert found["samples"] == found["widths"][0]["junk_rate"]["n"] == 4
