"""The training loop on tiny settings, in this process."""

import errno
import json
import os
import signal
from pathlib import Path

import pytest
import torch
from PIL import Image
from safetensors.torch import load_file

from msgm.chain import read_chain
from msgm.config import Config
from msgm.errors import Interrupted, RunError, UserError
from msgm.objectives import OBJECTIVES
from msgm.reading import read_json
from msgm.requests import ForgetRequest
from msgm.runs import Run
from msgm.training import EMA, Trainer, accelerating, train, unlearn
from msgm.training.checkpoints import checkpoints
from msgm.training.run import load_data, new_model
from tests.conftest import DIGITS, TINY, settings

STEPS = 9
OBJECTIVE_SETTINGS = {
    "standard": ["objective.name=standard"],
    "redirect": ["objective.name=redirect", "objective.every=4"],
    "orthogonal": ["objective.name=orthogonal", "objective.every=4"],
    "teacher": ["objective.name=orthogonal", "objective.variant=marginal", "objective.teacher_steps=3"],
    "bilevel": ["objective.name=erasediff", "objective.multiplier=0.1"],
    "adaptive": ["objective.name=erasediff", "objective.multiplier=null"],
    "weighted": ["objective.name=erasediff", "objective.variant=weighted", "objective.every=4"],
    "dropout and flip": ["objective.name=redirect", "objective.every=4", "network.dropout=0.3", "data.flip=true"],
    "conditional": ["objective.name=redirect", "objective.every=4", "network.classes=10", "request.means=both"],
    "conditional teacher": [
        "objective.name=orthogonal",
        "objective.variant=marginal",
        "objective.teacher_steps=3",
        "network.classes=10",
    ],
    "accumulated": ["objective.name=redirect", "objective.every=4", "training.accumulate=2"],
    "all and forget": ["objective.name=subtract"],
    "forget alone": ["objective={name: subtract, descent: nothing, weight: 1, ceiling: 1}"],
    "hooks": [
        "objective={name: obtuse, alpha: 0.5, every: 2, combine: pcgrad, replay: 24, mask: {by: fisher, items: 8}, "
        "anchor: {by: fisher, items: 8, levels: 3}}",
        "training.trainable=['*conv*']",
    ],
    "distilled": ["objective={name: obtuse, alpha: 0.5, every: 1, anchor: {by: base}}", "network.dropout=0.3"],
}


def stop_after(monkeypatch, updates: int, number: int = signal.SIGTERM) -> None:
    """Send this process a signal in the optimiser step after which the EMA has had ``updates`` updates."""
    update = EMA.update

    def counted(self):
        update(self)
        if self.updates == updates:
            os.kill(os.getpid(), number)

    monkeypatch.setattr(EMA, "update", counted)


def train_interrupted(config: Config, out: Path, monkeypatch, updates: int, resume: bool = False) -> None:
    with monkeypatch.context() as patch:
        stop_after(patch, updates)
        with pytest.raises(Interrupted):
            train(config, out, resume=resume, device="cpu")


def last_checkpoint(run: Run) -> dict[str, bytes]:
    newest = checkpoints(run.checkpoints)[-1]
    return {path.name: path.read_bytes() for path in sorted(newest.glob("*.safetensors"))}


def metrics(run: Run) -> list[dict[str, float]]:
    lines = [json.loads(line) for line in run.metrics.read_text().splitlines()]
    return [{key: value for key, value in line.items() if key != "images_per_second"} for line in lines]


def weights(run: Run) -> torch.Tensor:
    tensors = load_file(checkpoints(run.checkpoints)[-1] / "network.safetensors")
    return torch.cat([tensors[name].flatten() for name in sorted(tensors)])


@pytest.mark.parametrize("case", OBJECTIVE_SETTINGS)
def test_a_resumed_run_is_bitwise_the_uninterrupted_one(tiny, tmp_path, monkeypatch, case):
    """Stopped after 2 updates, and again after 6."""
    config = tiny(f"training.steps={STEPS}", *OBJECTIVE_SETTINGS[case])
    whole = train(config, tmp_path / "whole", device="cpu")
    train_interrupted(config, tmp_path / "parts", monkeypatch, 2)
    train_interrupted(config, tmp_path / "parts", monkeypatch, 6, resume=True)
    parts = train(config, tmp_path / "parts", resume=True, device="cpu")
    assert last_checkpoint(parts) == last_checkpoint(whole)
    assert metrics(parts) == metrics(whole)
    # The chain has a date, and digests under the run's own key.
    for file in (path for path in whole.model.rglob("*") if path.is_file() and path.name != "chain.json"):
        assert (parts.model / file.relative_to(whole.model)).read_bytes() == file.read_bytes()


def test_what_is_compared_in_a_resume_tells_two_runs_apart(tiny, tmp_path):
    one, other = (train(tiny(f"seed={seed}"), tmp_path / str(seed), device="cpu") for seed in (0, 1))
    files = last_checkpoint(one)
    assert set(files) == {"network.safetensors", "ema.safetensors", "optimiser.safetensors"}
    assert all(files[name] != content for name, content in last_checkpoint(other).items())


def test_a_run_goes_on_from_an_older_checkpoint_and_drops_what_was_logged_after_it(tiny, tmp_path):
    config = tiny("training.checkpoint_every=2", "objective.name=redirect", "objective.every=4")
    whole = train(config, tmp_path / "run", device="cpu")
    before, lines = last_checkpoint(whole), metrics(whole)
    for file in sorted(checkpoints(whole.checkpoints)[-1].iterdir()):
        file.unlink()
    checkpoints(whole.checkpoints)[-1].rmdir()
    whole.manifest.unlink()
    again = train(config, tmp_path / "run", resume=True, device="cpu")
    assert last_checkpoint(again) == before
    assert metrics(again) == lines
    assert [line["step"] for line in metrics(again)] == [1, 2, 3, 4, 5, 6]


def test_a_line_cut_off_by_a_crash_does_not_stop_a_resume(tiny, tmp_path, monkeypatch):
    train_interrupted(tiny(), tmp_path, monkeypatch, 3)
    with Run(tmp_path).metrics.open("a") as file:
        file.write('{"step": 4, "al')
    run = train(tiny(), tmp_path, resume=True, device="cpu")
    assert [line["step"] for line in metrics(run)] == [1, 2, 3, 4, 5, 6]


@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_a_signal_saves_first_and_sets_the_exit_code(cli, tmp_path, monkeypatch, number, code):
    stop_after(monkeypatch, 3, number)
    outcome = cli("train", DIGITS, *settings(TINY), "--device", "cpu", "--out", tmp_path)
    assert outcome.code == code
    assert [path.name for path in checkpoints(tmp_path / "checkpoints")] == ["step-00000003"]
    assert outcome.err.count("\n") == 1
    assert "--resume" in outcome.err
    assert read_json(tmp_path / "manifest.json")["status"] == "running"


def test_handlers_of_signals_are_put_back(tiny, tmp_path):
    before = [signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)]
    train(tiny(), tmp_path, device="cpu")
    assert [signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)] == before


POISON = """
from dataclasses import dataclass

import torch

from msgm.objectives import OBJECTIVES, Card, Objective, Term, mean_square

calls = 0

@OBJECTIVES.register("poison")
@dataclass
class Poison(Objective):
    at: int = 5
    data = "retain"
    card = Card("the usual loss, and nothing from call `at` on", "this test", "none")

    def terms(self, predict, retain, forget):
        global calls
        calls += 1
        good = mean_square(predict(retain.x, retain.t) - retain.eps)
        venom = torch.full_like(good, float("VALUE") if calls >= self.at else 0.0)
        return {"good": Term(1.0, good), "venom": Term(1.0, venom)}
"""


@pytest.fixture
def poison(tmp_path):
    """Write a user's objective into a file of hers, and forget it afterwards."""
    known = dict(OBJECTIVES.entries)
    path = tmp_path / "poison.py"

    def write(value: str = "nan") -> Path:
        path.write_text(POISON.replace("VALUE", value))
        return path

    yield write
    OBJECTIVES.entries.clear()
    OBJECTIVES.entries.update(known)


@pytest.mark.parametrize("value", ["nan", "inf"])
@pytest.mark.parametrize("log_every", [1, 50])
def test_a_non_finite_loss_stops_with_step_and_term_and_keeps_good_checkpoints(cli, poison, tmp_path, value, log_every):
    overrides = [*TINY, f"plugins=[{poison(value)}]", "objective.name=poison", "training.steps=9"]
    overrides += ["training.checkpoint_every=2", f"training.log_every={log_every}"]
    outcome = cli("train", DIGITS, *settings(overrides), "--device", "cpu", "--out", tmp_path / "run")
    assert outcome.code == 1
    assert outcome.err.count("\n") == 1
    assert f"venom became {value} at step 5" in outcome.err
    kept = checkpoints(tmp_path / "run" / "checkpoints")
    assert [path.name for path in kept] == ["step-00000002", "step-00000004"]
    assert all(tensor.isfinite().all() for tensor in load_file(kept[-1] / "network.safetensors").values())
    assert not (tmp_path / "run" / "model").exists()


def test_a_users_objective_trains_and_logs_its_terms_by_name(cli, poison, tmp_path):
    overrides = [*TINY, f"plugins=[{poison()}]", "objective.name=poison", "objective.at=99"]
    outcome = cli("train", DIGITS, *settings(overrides), "--device", "cpu", "--out", tmp_path / "run")
    assert (outcome.code, outcome.err) == (0, "")
    assert metrics(Run(tmp_path / "run"))[0].keys() == {"step", "good", "venom", "gradient"}


@pytest.mark.parametrize("case", ["standard", "redirect", "adaptive", "weighted"])
def test_accumulated_parts_give_the_weights_of_the_whole_batch(tiny, tmp_path, case):
    runs = [
        train(
            tiny(f"training.accumulate={parts}", "training.lr=2e-4", *OBJECTIVE_SETTINGS[case]),
            tmp_path / str(parts),
            device="cpu",
        )
        for parts in (1, 2)
    ]
    one, two = (weights(run) for run in runs)
    assert (one - two).abs().max() < 1e-5
    for line, other in zip(*map(metrics, runs), strict=True):
        assert other == pytest.approx(line, abs=1e-5)


@pytest.mark.parametrize("flip", [False, True])
def test_the_bank_holds_mirror_images_when_training_sees_them(tiny, tmp_path, flip):
    config = tiny("objective.name=redirect", f"data.flip={flip}")
    dataset, split = load_data(config)
    objective = OBJECTIVES.build(config.objective)
    model = new_model(config, dataset)
    Trainer(model, objective, dataset, split.train, config.training, 0, Run(tmp_path), "cpu").train()
    n = len(split.train.retain)
    assert len(objective.density.items) == (2 * n if flip else n)
    if flip:
        assert torch.equal(objective.density.items[n:], objective.density.items[:n].flip(-1))


@pytest.mark.slow
def test_a_compiled_network_trains_as_the_plain_one(tiny, tmp_path):
    plain, compiled = (
        train(tiny("objective.name=redirect", f"training.compile={flag}"), tmp_path / flag, device="cpu")
        for flag in ("false", "true")
    )
    assert (weights(plain) - weights(compiled)).abs().max() < 1e-3
    assert metrics(compiled)[-1]["retain"] == pytest.approx(metrics(plain)[-1]["retain"], rel=1e-3)


def test_a_compiled_network_is_refused_a_second_derivative(tiny, tmp_path):
    with pytest.raises(UserError, match=r"training.compile: objective.matching sliced .* take finite-difference"):
        train(
            tiny("training.compile=true", "objective={name: unseen, matching: sliced}"), tmp_path / "run", device="cpu"
        )


def test_training_its_fine_tuning_and_the_teacher_draw_their_own_noise(tiny, tmp_path, monkeypatch):
    seeds, construct = [], Trainer.__init__

    def noting(self, model, objective, dataset, part, settings, seed, *more, **named):
        seeds.append(seed)
        construct(self, model, objective, dataset, part, settings, seed, *more, **named)

    monkeypatch.setattr(Trainer, "__init__", noting)
    config = tiny("objective.name=orthogonal", "objective.variant=marginal", "objective.teacher_steps=2")
    base = train(tiny(), tmp_path / "base", device="cpu")
    tuned = unlearn(config, base.path, tmp_path / "tuned", device="cpu")
    assert len(set(seeds)) == len(seeds) == 3
    assert (read_json(base.manifest)["start"], read_json(tuned.manifest)["start"]) == ("scratch", "finetune")


def test_a_batch_that_does_not_divide_is_refused(tiny, tmp_path):
    with pytest.raises(UserError, match="batch of 16 does not divide"):
        train(tiny("training.accumulate=3"), tmp_path / "run", device="cpu")
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize("case", ["standard", "redirect", "adaptive"])
def test_bf16_trains_float32_weights_close_to_those_of_fp32(tiny, tmp_path, monkeypatch, case):
    told = []
    monkeypatch.setattr("msgm.training.trainer.note_slow_bf16", lambda device: told.append(device.type))
    low, full = (
        train(tiny(f"training.precision={precision}", *OBJECTIVE_SETTINGS[case]), tmp_path / precision, device="cpu")
        for precision in ("bf16", "fp32")
    )
    assert told == ["cpu"]
    assert weights(low).dtype == torch.float32
    assert not torch.equal(weights(low), weights(full))
    assert metrics(low)[-1]["gradient"] == pytest.approx(metrics(full)[-1]["gradient"], rel=0.2)


@pytest.mark.parametrize("option", ["training.channels_last=true", "training.clip=null", "training.warmup=3"])
def test_the_options_of_a_run_train_it_to_the_end(tiny, tmp_path, option):
    run = train(tiny(option), tmp_path, device="cpu")
    assert len(metrics(run)) == 6


def test_warm_up_makes_the_first_step_smaller(tiny, tmp_path):
    start = train(tiny("training.steps=1", "training.lr=1e-12"), tmp_path / "start", device="cpu")
    moved = [
        (
            weights(train(tiny("training.steps=1", f"training.warmup={n}"), tmp_path / str(n), device="cpu"))
            - weights(start)
        )
        .abs()
        .max()
        .item()
        for n in (1, 4)
    ]
    assert moved[1] == pytest.approx(moved[0] / 4, rel=1e-2)


def test_sample_grids_are_written_as_pictures(tiny, tmp_path):
    run = train(tiny("training.sample_every=3"), tmp_path, device="cpu")
    grids = sorted(run.samples.iterdir())
    assert [path.name for path in grids] == ["step-00000003.png", "step-00000006.png"]
    assert Image.open(grids[0]).size == (4 * (8 * 9 + 1), 4 * (8 * 9 + 1))


def test_sampling_on_the_way_changes_no_weight(tiny, tmp_path):
    plain, sampled = (
        train(tiny(f"training.sample_every={every}", "network.dropout=0.3"), tmp_path / str(every), device="cpu")
        for every in (0, 2)
    )
    assert last_checkpoint(sampled) == last_checkpoint(plain)


@pytest.mark.parametrize(
    ("case", "first", "fourth"),
    [
        ("standard", {"all"}, {"all"}),
        ("orthogonal", {"retain"}, {"retain", "forget"}),
        ("bilevel", {"retain", "forget"}, {"retain", "forget"}),
    ],
)
def test_metrics_hold_the_terms_by_name(tiny, tmp_path, case, first, fourth):
    lines = metrics(train(tiny(*OBJECTIVE_SETTINGS[case]), tmp_path, device="cpu"))
    assert lines[0].keys() == first | {"step", "gradient"}
    assert lines[3].keys() == fourth | {"step", "gradient"}


def test_a_log_line_is_the_mean_since_the_last_one(tiny, tmp_path):
    each = metrics(train(tiny(), tmp_path / "each", device="cpu"))
    thirds = metrics(train(tiny("training.log_every=3"), tmp_path / "thirds", device="cpu"))
    assert [line["step"] for line in thirds] == [3, 6]
    assert thirds[1]["all"] == pytest.approx(sum(line["all"] for line in each[3:]) / 3)


def test_a_run_folder_holds_no_pickle(tiny, tmp_path):
    run = train(tiny("training.trackers=null", *OBJECTIVE_SETTINGS["teacher"]), tmp_path, device="cpu")
    suffixes = {path.suffix for path in run.path.rglob("*") if path.is_file()}
    assert ".safetensors" in suffixes
    assert not suffixes & {".pkl", ".pt", ".pth", ".bin", ".ckpt"}


def test_the_manifest_says_what_was_run(tiny, tmp_path):
    manifest = read_json(train(tiny("seed=4"), tmp_path, device="cpu").manifest)
    assert manifest["status"] == "finished"
    assert (manifest["seed"], manifest["device"], manifest["processes"], manifest["effective_batch"]) == (
        4,
        "cpu",
        1,
        16,
    )
    assert (manifest["objective"], manifest["weights"], manifest["source"]) == ("standard", "ema", None)
    assert manifest["request"] == "suppression of the concept given by labels 3, 7"
    assert manifest["items"]["forget"] > 0
    assert manifest["seconds"] > 0
    assert {"msgm", "torch", "diffusers"} <= manifest["versions"].keys()


def test_the_model_holds_the_averages_or_the_raw_weights_as_asked(tiny, tmp_path):
    for kind, file in (("ema", "ema"), ("raw", "network")):
        run = train(tiny(f"training.weights={kind}"), tmp_path / kind, device="cpu")
        saved = load_file(next((run.model / "unet").glob("*.safetensors")))
        expected = load_file(checkpoints(run.checkpoints)[-1] / f"{file}.safetensors")
        assert {f"unet.{name}" for name in saved} == expected.keys()
        assert all(torch.equal(tensor, expected[f"unet.{name}"]) for name, tensor in saved.items())


def test_training_leaves_the_callers_random_numbers_of_its_model_alone(tiny, tmp_path):
    one = train(tiny(), tmp_path / "one", device="cpu")
    torch.manual_seed(1234)
    assert last_checkpoint(train(tiny(), tmp_path / "other", device="cpu")) == last_checkpoint(one)


def test_a_finished_run_is_not_run_again(tiny, tmp_path, monkeypatch):
    run = train(tiny(), tmp_path, device="cpu")
    monkeypatch.setattr(Trainer, "train", lambda self: pytest.fail("it trained again"))
    assert train(tiny(), tmp_path, resume=True, device="cpu").path == run.path


def test_a_used_folder_is_refused_without_resume_and_with_other_settings(tiny, tmp_path):
    train(tiny(), tmp_path, device="cpu")
    with pytest.raises(UserError, match=r"already holds this run.*--resume"):
        train(tiny(), tmp_path, device="cpu")
    with pytest.raises(UserError, match=r"other settings.*training\.lr"):
        train(tiny("training.lr=0.5"), tmp_path, resume=True, device="cpu")
    (tmp_path / "rows").mkdir()
    with pytest.raises(UserError, match=r"holds a comparison; give another --out"):
        train(tiny(), tmp_path, resume=True, device="cpu")


def test_unlearning_starts_from_the_trained_weights_with_a_fresh_average(tiny, tmp_path):
    base = train(tiny(), tmp_path / "base", device="cpu")
    config = tiny("objective.name=unseen", "finetune.steps=1", "finetune.lr=1e-12", "training.ema=0.9999")
    tuned = unlearn(config, base.path, tmp_path / "tuned", device="cpu")
    saved = load_file(next((base.model / "unet").glob("*.safetensors")))
    found = load_file(checkpoints(tuned.checkpoints)[-1] / "network.safetensors")
    assert all(torch.allclose(found[f"unet.{name}"], tensor, atol=1e-9) for name, tensor in saved.items())
    assert read_json(checkpoints(tuned.checkpoints)[-1] / "state.json")["ema_updates"] == 1
    assert read_json(tuned.manifest)["source"] == str(base.model)


def test_a_full_disk_ends_the_run_in_one_line_and_leaves_no_half_written_file(cli, tmp_path, monkeypatch):
    import msgm.training.checkpoints as module

    def full(tensors, path):
        path.write_bytes(b"half")
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(path))

    monkeypatch.setattr(module, "save_file", full)
    outcome = cli("train", DIGITS, *settings(TINY), "--device", "cpu", "--out", tmp_path / "run")
    assert outcome.code == 1
    assert "No space left on device" in outcome.err
    assert outcome.err.count("\n") == 1
    left = {path.name for path in (tmp_path / "run").rglob("*") if path.is_file()}
    assert left == {"config.yaml", "key", "manifest.json", "metrics.jsonl", "traces.json"}


def test_a_full_disk_at_the_model_leaves_no_half_of_it(tiny, tmp_path, monkeypatch):
    from safetensors import SafetensorError

    from msgm.diffusion.networks import UNet

    def full(self, folder):
        (folder / "unet").mkdir()
        (folder / "unet" / "half.safetensors").write_bytes(b"half")
        raise SafetensorError("Error while serializing: I/O error: No space left on device (os error 28)")

    monkeypatch.setattr(UNet, "save", full)
    with pytest.raises(RunError, match=r"could not write the model.*No space left"):
        train(tiny(), tmp_path, device="cpu")
    assert not list(tmp_path.rglob("half*"))
    assert not (tmp_path / "model").exists()


def test_training_on_all_data_needs_no_request(tiny, tmp_path):
    config = tiny("training.steps=2")
    config.request = ForgetRequest()
    run = train(config, tmp_path / "run", device="cpu")
    manifest = read_json(run.manifest)
    assert manifest["request"] == "no request"
    assert (manifest["items"]["forget"], manifest["items"]["gone"]) == (0, 0)
    asked = train(tiny("training.steps=2"), tmp_path / "asked", device="cpu")
    assert manifest["items"]["retain"] == sum(read_json(asked.manifest)["items"].values())
    assert [line["all"] for line in metrics(run)] == [line["all"] for line in metrics(asked)]
    assert read_chain(run.model).requests == ()


@pytest.mark.parametrize("verb", [train, unlearn])
def test_training_on_a_part_of_the_data_needs_a_request(verb, tiny, tmp_path):
    source = train(tiny("training.steps=1"), tmp_path / "source", device="cpu").path
    config = tiny("objective={name: unseen}")
    config.request = ForgetRequest()
    with pytest.raises(UserError, match="a request needs exactly one of"):
        verb(config, *([source] if verb is unlearn else []), tmp_path / "run", device="cpu")
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize("name", ["wandb", "mlflow", "aim"])
def test_a_tracker_that_is_not_installed_is_said_before_training(name, tiny, tmp_path, monkeypatch):
    monkeypatch.setattr(accelerating, "get_available_trackers", lambda: ["tensorboard"])
    with pytest.raises(UserError, match=rf"training\.trackers: {name} is not installed.*those that are: tensorboard"):
        train(tiny(f"training.trackers=[{name}]"), tmp_path / "run", device="cpu")
    assert not (tmp_path / "run" / "config.yaml").exists()
