"""The command line, run in this process but for what must be a process of its own."""

import json
import re
import shutil
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from msgm.cli import main
from msgm.objectives import OBJECTIVES
from msgm.reading import read_json
from msgm.runs import Run
from msgm.training.checkpoints import checkpoints
from tests.conftest import DIGITS, ROOT, TINY, settings

HEAVY = ["torch", "diffusers", "torchvision", "torchmetrics"]
COMPARISON = [
    "objective.name=unseen",
    "network.channels=[8]",
    "training.steps=4",
    "training.warmup=0",
    "training.trackers=[]",
    "finetune.steps=2",
    "rows.obtuse.training.steps=2",
    "evaluation.samples=20",
    "evaluation.judge.epochs=1",
    "evaluation.judge.width=8",
    "evaluation.likelihood.steps=2",
    "evaluation.nll_items=4",
    "sampling.steps=3",
]
ROWS = ["do-nothing", "unseen-scratch", "unseen", "erasediff", "orthogonal", "obtuse", "redirect"]


@pytest.mark.parametrize(
    "arguments", ["", "['--help'],", "['compare', '--help'],", "['classifier', 'compare', '--help'],"]
)
def test_import_and_help_are_quick_and_load_nothing_heavy(arguments):
    program = f"""
import sys, msgm, msgm.cli
for arguments in [{arguments}]:
    try:
        msgm.cli.main(arguments)
    except SystemExit as end:
        assert end.code == 0
print("loaded:", [name for name in {HEAVY} if name in sys.modules])
"""
    began = time.perf_counter()
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert time.perf_counter() - began < 2
    assert done.stdout.endswith("loaded: []\n")


def test_the_installed_command_answers():
    command = Path(sys.executable).with_name("msgm")
    if not command.exists():
        pytest.skip("msgm is not installed as a command beside this Python")
    done = subprocess.run([command, "--version"], capture_output=True, text=True, check=True)
    assert re.fullmatch(r"msgm \d+\.\d+.*\n", done.stdout)


@pytest.fixture(scope="module")
def base(tmp_path_factory) -> Path:
    """A run of a few steps."""
    out = tmp_path_factory.mktemp("base") / "run"
    assert main(["train", str(DIGITS), *settings(TINY), "--device", "cpu", "--out", str(out)]) == 0
    return out


def files(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def refused(cli, out: Path, *arguments: object) -> str:
    """Run a command that must be refused as bad input and write nothing; return its complaint."""
    before = files(out) if out.exists() else None
    outcome = cli(*arguments)
    assert outcome.code == 2
    assert outcome.err.count("\n") == 1
    assert outcome.err.startswith("msgm: ")
    assert "Traceback" not in outcome.err
    assert (files(out) if out.exists() else None) == before
    return outcome.err


@pytest.mark.parametrize("command", ["train", "compare"])
@pytest.mark.parametrize(
    ("override", "parts"),
    [
        ("training.stepz=3", ["training.stepz", "Did you mean 'steps'?"]),
        ("training.steps=many", ["training.steps", "many"]),
        ("training.precision=fp16", ["training.precision", "fp16"]),
        ("data.name=digts", ["data.name", "Did you mean 'digits'?"]),
        ("request.labels=[3,12]", ["request.labels", "12"]),
        ("request.attribute=Bangs", ["request.labels and request.attribute"]),
        ("network.name=mlp", ["network.channels", "belongs to network 'text-unet' and 'unet'"]),
        ("network.channels=[8,9]", ["network.channels", "multiples"]),
        ("request={labels: [], indices: [1000000000000000000000000000000]}", ["request.indices", "out of range"]),
        ("data.validation=2", ["data.validation"]),
        ("plugins=[nowhere.py]", ["nowhere.py"]),
    ],
)
def test_a_bad_setting_is_refused_in_one_line_and_nothing_is_written(cli, tmp_path, command, override, parts):
    out = tmp_path / "run"
    message = refused(cli, out, command, DIGITS, *settings([*COMPARISON, override]), "--device", "cpu", "--out", out)
    for part in parts:
        assert part in message


@pytest.mark.parametrize("command", ["train", "compare"])
def test_a_network_that_does_not_fit_the_data_is_refused(cli, tmp_path, command):
    out, overrides = tmp_path / "run", settings([*COMPARISON, "data.name=gaussians", "request.labels=[1]"])
    assert "a unet needs images" in refused(cli, out, command, DIGITS, *overrides, "--device", "cpu", "--out", out)


@pytest.mark.parametrize(("module", "config"), [("classifier", "digits.yaml"), ("recommender", "attributes.yaml")])
def test_what_belongs_to_another_module_is_named_so(cli, tmp_path, module, config):
    file = ROOT / "configs" / module / config
    folder = tmp_path / "run"
    folder.mkdir()
    shutil.copy(file, folder / "config.yaml")
    for given in (["train", file], ["evaluate", folder], ["unlearn", DIGITS, "--from", folder]):
        message = refused(cli, tmp_path / "out", *given)
        assert f"is a {module}'s: use msgm {module} ..." in message


@pytest.mark.parametrize("command", ["train", "compare"])
def test_a_missing_config_is_refused(cli, tmp_path, command):
    assert "nowhere.yaml" in refused(cli, tmp_path / "run", command, "nowhere.yaml", "--out", tmp_path / "run")


@pytest.mark.parametrize("command", ["unlearn", "compare"])
def test_a_missing_source_is_refused(cli, tmp_path, command):
    out, source = tmp_path / "run", tmp_path / "missing"
    message = refused(cli, out, command, DIGITS, *settings(COMPARISON), "--from", source, "--out", out)
    assert f"{source} does not exist" in message


@pytest.mark.parametrize("command", ["unlearn", "compare"])
def test_a_source_of_another_process_is_refused(cli, tmp_path, base, command):
    out = tmp_path / "run"
    overrides = settings([*COMPARISON, "process.name=ve"])
    message = refused(cli, out, command, DIGITS, *overrides, "--from", base, "--out", out)
    assert "process 'vp'" in message
    assert "process.name is 've'" in message


@pytest.mark.parametrize("command", ["unlearn", "compare"])
def test_a_source_of_other_data_is_refused(cli, tmp_path, base, command):
    out = tmp_path / "run"
    overrides = settings([*COMPARISON, "data.name=gaussians", "request.labels=[1]"])
    assert "shape" in refused(cli, out, command, DIGITS, *overrides, "--from", base, "--out", out)


@pytest.mark.parametrize("damage", ["unet/diffusion_pytorch_model.safetensors", "process.json", "unet/config.json"])
@pytest.mark.parametrize("command", ["unlearn", "sample", "evaluate"])
def test_a_damaged_model_is_refused(cli, tmp_path, base, command, damage):
    source, out = tmp_path / "source", tmp_path / "run"
    shutil.copytree(base, source)
    content = (source / "model" / damage).read_bytes()
    (source / "model" / damage).write_bytes(content[: len(content) // 2])
    arguments = {
        "unlearn": ["unlearn", DIGITS, *settings(COMPARISON), "--from", source],
        "sample": ["sample", source, "-n", "2", "--steps", "2"],
        "evaluate": ["evaluate", source, "--config", DIGITS, *settings(COMPARISON)],
    }[command]
    assert str(source / "model") in refused(cli, out, *arguments, "--out", out)


def test_a_corrupt_checkpoint_is_refused(cli, tmp_path, base):
    out = tmp_path / "run"
    shutil.copytree(base, out)
    shutil.rmtree(out / "model")
    (checkpoints(out / "checkpoints")[-1] / "network.safetensors").write_bytes(b"nonsense")
    train = ["train", DIGITS, *settings(TINY), "--device", "cpu", "--resume", "--out", out]
    outcome = cli(*train)
    assert outcome.code == 2
    assert outcome.err.count("\n") == 1
    assert "step-00000006" in outcome.err


def test_a_used_folder_is_refused(cli, base):
    train = ["train", DIGITS, *settings(TINY), "--device", "cpu", "--out", base]
    assert "--resume" in refused(cli, base, *train)
    assert "training.lr" in refused(cli, base, *train, "--set", "training.lr=0.5", "--resume")


@pytest.mark.parametrize("content", [b"seed: [1", b"- 1\n", b"\xff\xfe\x00\x80"])
def test_a_used_folder_with_a_damaged_config_is_refused(cli, tmp_path, base, content):
    out = tmp_path / "run"
    shutil.copytree(base, out)
    (out / "config.yaml").write_bytes(content)
    train = ["train", DIGITS, *settings(TINY), "--device", "cpu", "--resume", "--out", out]
    assert "config.yaml" in refused(cli, out, *train)


def test_a_folder_used_by_a_run_from_another_model_is_refused(cli, tmp_path, base):
    other, out = tmp_path / "other", tmp_path / "run"
    shutil.copytree(base, other)
    unlearn = [
        "unlearn",
        DIGITS,
        *settings([*TINY, "objective.name=unseen", "finetune.steps=1"]),
        "--device",
        "cpu",
        "--out",
        out,
    ]
    assert cli(*unlearn, "--from", base).code == 0
    assert "started from" in refused(cli, out, *unlearn, "--from", other, "--resume")


def test_a_file_in_place_of_the_folder_is_refused(cli, tmp_path):
    (tmp_path / "file").write_text("mine")
    refused(cli, tmp_path, "train", DIGITS, *settings(TINY), "--device", "cpu", "--out", tmp_path / "file")


@pytest.mark.parametrize(
    ("command", "config", "domain"),
    [
        ("classifier", "digits/vp", "generator"),
        ("classifier", "recommender/attributes", "attributes"),
        ("recommender", "classifier/digits", "classifier"),
    ],
)
def test_a_modules_own_compare_refuses_the_configs_of_others(cli, tmp_path, command, config, domain):
    message = refused(cli, tmp_path / "out", command, "compare", config, "--out", tmp_path / "out")
    assert f"{config} is of the domain {domain}: use msgm compare {config}" in message


@pytest.mark.parametrize("command", ["sample", "evaluate", "report"])
def test_commands_on_a_missing_run_refuse_it(cli, tmp_path, command):
    assert "missing" in refused(cli, tmp_path, command, tmp_path / "missing")


@pytest.mark.parametrize(
    ("arguments", "part"),
    [
        (["-n", "0"], "--count"),
        (["--sampler", "heum"], "heun"),
        (["--steps", "0"], "steps"),
    ],
)
def test_bad_options_of_sample_are_refused(cli, tmp_path, base, arguments, part):
    assert part in refused(cli, tmp_path / "out", "sample", base, "--out", tmp_path / "out", *arguments)


@pytest.mark.skipif(shutil.which("nvidia-smi") is not None, reason="this machine may have a CUDA device")
@pytest.mark.parametrize("command", ["train", "compare", "sample"])
def test_cuda_is_refused_where_there_is_none(cli, tmp_path, base, command):
    out = tmp_path / "run"
    arguments = ["sample", base] if command == "sample" else [command, DIGITS, *settings(COMPARISON)]
    assert "--device cuda" in refused(cli, out, *arguments, "--device", "cuda", "--out", out)


@pytest.mark.parametrize("arguments", [[], ["trian"], ["unlearn", "x.yaml"], ["train", "x.yaml", "--device", "tpu"]])
def test_a_malformed_command_line_exits_with_2(arguments, capsys):
    with pytest.raises(SystemExit) as end:
        main(arguments)
    assert end.value.code == 2
    assert "Traceback" not in capsys.readouterr().err


@pytest.mark.parametrize(
    ("arguments", "key", "near"),
    [
        (["comapre", "digits/vp"], "COMMAND", "compare"),
        (["recommender", "recomend", "runs/shop"], "COMMAND", "recommend"),
        (["train", "digits/vp", "--device", "cdua"], "--device", "cuda"),
    ],
)
def test_the_nearest_choice_is_named(arguments, key, near, capsys):
    with pytest.raises(SystemExit) as end:
        main(arguments)
    message = capsys.readouterr().err
    assert (end.value.code, message.count("\n")) == (2, 1)
    assert message.startswith(f"msgm: {key}: unknown choice ")
    assert message.endswith(f"Did you mean {near!r}?\n")


def test_unlearning_with_an_objective_that_forgets_nothing_is_refused(cli, tmp_path, base):
    told = refused(cli, tmp_path / "out", "unlearn", DIGITS, "--from", base, "--set", "objective.name=standard")
    assert "trains on the forget set too" in told


def test_a_folder_made_elsewhere_needs_a_config_and_is_not_written_into(cli, tmp_path, base, monkeypatch):
    monkeypatch.chdir(tmp_path)
    foreign = Path(shutil.copytree(base / "model", tmp_path / "foreign"))
    before = files(foreign)
    assert "--config" in refused(cli, tmp_path / "out", "evaluate", foreign)
    assert cli("sample", foreign, "-n", "2", "--steps", "2").code == 0
    assert files(foreign) == before
    assert (tmp_path / "runs/foreign-samples/samples.png").is_file()


@pytest.mark.parametrize("command", [["inpaint", "--mask", "upper"], ["reconstruct"]])
def test_restoring_runs_in_one_process(cli, tmp_path, base, command, monkeypatch):
    monkeypatch.setenv("WORLD_SIZE", "2")
    told = refused(cli, tmp_path / "out", command[0], base, *command[1:])
    assert f"{command[0]} runs in one process" in told


# The comparison: one for all tests below, which leave it as it is or work on a copy.


@pytest.fixture(scope="module")
def comparison(tmp_path_factory) -> Path:
    out = tmp_path_factory.mktemp("compare") / "run"
    assert compare(out) == 0
    return out


def compare(out: Path, *more: str) -> int:
    return main(["compare", str(DIGITS), *settings(COMPARISON), "--device", "cpu", "--out", str(out), *more])


@pytest.fixture
def copied(comparison, tmp_path) -> Path:
    return Path(shutil.copytree(comparison, tmp_path / "copy"))


def report_of(folder: Path) -> dict:
    return json.loads((folder / "report.json").read_text())


def test_what_still_holds_forgotten_items_is_listed_and_deleted_by_name(cli, copied):
    listed = cli("forget-traces", copied)
    assert listed.code == 0, listed.err
    for path in ("rows/do-nothing/model", "rows/redirect/model", "rows/redirect/checkpoints", "judge", "report.html"):
        assert re.search(rf"^{path} \(.* MB\): .*; saw all items$", listed.out, re.MULTILINE), path
    assert "--delete: 'rows' is not on the list" in cli("forget-traces", copied, "--delete", "rows").err
    deleted = cli("forget-traces", copied, "--delete", "rows/redirect/checkpoints", "judge")
    assert deleted.code == 0, deleted.err
    assert not (copied / "judge").exists()
    assert "rows/redirect/checkpoints" not in cli("forget-traces", copied).out
    found = {line["path"] for line in report_of(copied)["artifacts"]}
    assert {"rows/do-nothing/model", "rows/redirect/model", "samples.png", "judge"} <= found
    assert {"report.html", "rows/redirect/card.html", "rows/redirect/figures"} <= found


def test_verify_says_which_file_is_not_as_it_was_written(cli, copied):
    whole = cli("verify", copied)
    assert (whole.code, "files are as they were written" in whole.out) == (0, True), whole.err
    assert re.search(
        r"^rows/redirect/model, request 1: .*labels 3, 7: 362 items, by redirect, ", whole.out, re.MULTILINE
    )
    assert "rows/do-nothing" not in whole.out
    weights = next((copied / "rows" / "do-nothing" / "model").rglob("*.safetensors"))
    content = weights.read_bytes()
    weights.write_bytes(content[:-1] + bytes([content[-1] ^ 1]))
    changed = cli("verify", copied)
    assert changed.code == 2
    assert f"{weights} is not as it was written" in changed.err
    weights.write_bytes(content)
    for name in ("report.json", "rows/do-nothing/card.json", "rows/redirect/model/chain.json"):
        kept = (copied / name).read_text()
        (copied / name).write_text(kept + " ")
        assert f"{name} is not as it was written" in cli("verify", copied).err
        (copied / name).write_text(kept)
    assert cli("verify", copied).code == 0


def test_views_made_again_from_an_edited_report_do_not_hide_that(cli, copied):
    report = report_of(copied)
    report["rows"][1]["unlearning_ratio"]["value"] = 0.5
    (copied / "report.json").write_text(json.dumps(report))
    assert cli("report", copied).code == 0
    assert "report.json is not as it was written" in cli("verify", copied).err


def test_a_comparison_writes_its_report_its_rows_and_its_judge(comparison):
    for name in ["config.yaml", "report.json", "report.md", "report.html", "samples.png", "judge/judge.safetensors"]:
        assert (comparison / name).is_file(), name
    assert sorted(path.name for path in (comparison / "rows").iterdir()) == sorted(ROWS)
    for name in ROWS:
        row = comparison / "rows" / name
        assert (row / "model" / "unet" / "config.json").is_file()
        assert {"config.yaml", "manifest.json", "report.json", "samples/final.png"} <= files(row).keys()


def test_the_report_lists_the_rows_in_order_with_all_their_numbers(comparison):
    report = report_of(comparison)
    assert [row["name"] for row in report["rows"]] == ROWS
    assert 0 <= report["judge"]["heldout_accuracy"] <= 1
    for row in report["rows"]:
        ratio = row["unlearning_ratio"]
        assert 0 <= ratio["low"] <= ratio["value"] <= ratio["high"] <= 1
        assert ratio["n"] == 20
        assert 0 <= row["junk_rate"] <= 1
        assert 0 <= row["copy_rate"] <= 1
        assert row["nll"]["unit"] == "bits/dim"
        for part in ("retain", "forget"):
            assert isinstance(row["nll"][part]["mean"], float)
            assert isinstance(row["nll"][part]["median"], float)
        assert row["seconds"] > 0 or row["name"] == "do-nothing"
        assert sum(row["class_histogram"].values()) == 20
        assert "none" in row["class_histogram"]


def test_the_report_says_what_each_row_is(comparison):
    rows = {row["name"]: row for row in report_of(comparison)["rows"]}
    assert {name: row["start"] for name, row in rows.items()} == {
        "do-nothing": "none",
        "unseen-scratch": "scratch",
        **dict.fromkeys(ROWS[2:], "finetune"),
    }
    assert rows["do-nothing"]["objective"] is None
    assert {name: rows[name]["objective"] for name in ROWS[2:]} == {name: name for name in ROWS[2:]}
    assert (rows["unseen-scratch"]["objective"], rows["unseen-scratch"]["steps"]) == ("unseen", 4)
    assert rows["redirect"]["steps"] == 2
    assert rows["redirect"]["settings"]["alpha"] == 0.5
    assert rows["erasediff"]["settings"] == {"variant": "bilevel", "multiplier": 0.1, "target": "uniform"}
    assert {row["weights"] for row in rows.values()} == {"ema"}
    assert "formula" in rows["redirect"]["card"]


def test_the_report_says_what_was_asked_of_which_data(comparison):
    report = report_of(comparison)
    assert report["requests"]["request"]["text"] == "suppression of the concept given by labels 3, 7"
    assert report["judge"]["forgotten"] == ["3", "7"]
    assert sum(part["retain"] + part["forget"] for part in report["data"]["items"].values()) == 1797
    assert report["base"]["source"] is None
    assert report["real"]["unlearning_ratio"]["n"] == report["data"]["items"]["test"]["retain"]
    assert report["protocol"]
    assert report["environment"]["versions"]["msgm"]


def test_comparing_the_config_of_a_row_is_refused(cli, tmp_path, comparison):
    told = refused(
        cli, tmp_path / "out", "compare", comparison / "rows/redirect/config.yaml", "--out", tmp_path / "out"
    )
    assert "do-nothing" in told


def test_rows_start_from_the_base_model(comparison):
    manifest = read_json(comparison / "rows" / "redirect" / "manifest.json")
    assert manifest["source"] == str(comparison / "rows" / "do-nothing" / "model")
    assert read_json(comparison / "rows" / "unseen-scratch" / "manifest.json")["source"] is None


def test_a_comparison_holds_no_pickle(comparison):
    assert not {Path(name).suffix for name in files(comparison)} & {".pkl", ".pt", ".pth", ".bin", ".ckpt"}


def test_a_second_call_runs_nothing_again(copied, capsys):
    before = report_of(copied)
    capsys.readouterr()
    assert compare(copied) == 0
    printed = capsys.readouterr().out
    assert [line for line in printed.split("\n") if line.endswith(": kept")] == [f"{name}: kept" for name in ROWS]
    assert "judge: already trained" in printed
    assert report_of(copied)["rows"] == before["rows"]


def without_times(row):
    requests = [{**request, "date": ""} for request in row["history"]["requests"]]
    seeds = [{**seed, "seconds": 0} for seed in row["per_seed"]]
    history = {**row["history"], "requests": requests}
    return {**row, "seconds": 0, "grid": "", "per_seed": seeds, "history": history}


def test_a_row_taken_away_is_run_again_to_the_same_numbers(copied):
    before = report_of(copied)["rows"]
    shutil.rmtree(copied / "rows" / "obtuse")
    assert compare(copied) == 0
    again = report_of(copied)["rows"]
    for one, other in zip(before, again, strict=True):
        assert without_times(one) == without_times(other)


def test_a_row_whose_samples_were_drawn_otherwise_is_measured_again(copied, capsys):
    path = copied / "rows" / "unseen" / "report.json"
    stored = json.loads(path.read_text())
    old = {key: value for key, value in stored.items() if key != "sampled"} | {"unlearning_ratio": None}
    path.write_text(json.dumps(old))
    capsys.readouterr()
    assert compare(copied) == 0
    assert "unseen: measuring ur" in capsys.readouterr().out
    assert json.loads(path.read_text())["unlearning_ratio"] == stored["unlearning_ratio"]


def test_a_metric_may_be_added_to_a_finished_comparison(copied):
    before = {row["name"]: row for row in report_of(copied)["rows"]}
    options = settings(["evaluation.options.quantisation.samples=5"])
    assert compare(copied, *options, "--metrics", "ur,quantisation", "--only", "do-nothing,redirect") == 0
    for row in report_of(copied)["rows"]:
        assert ("quantisation" in row) is (row["name"] in ("do-nothing", "redirect"))
        assert row["unlearning_ratio"] == before[row["name"]]["unlearning_ratio"]
        assert row["nll"] == before[row["name"]]["nll"]


def test_other_settings_are_refused_in_a_used_folder(cli, copied):
    arguments = ["compare", DIGITS, *settings([*COMPARISON, "finetune.steps=3"]), "--device", "cpu", "--out", copied]
    assert "finetune.steps: 2 -> 3" in refused(cli, copied, *arguments)


def test_another_base_model_is_refused_in_a_used_folder(cli, copied, base):
    arguments = ["compare", DIGITS, *settings(COMPARISON), "--from", base, "--out", copied]
    assert "source" in refused(cli, copied, *arguments)


def test_a_new_row_may_be_added(copied):
    added = ["--set", "rows.mine.objective.name=redirect", "--set", "rows.mine.objective.alpha=0.9", "--only", "mine"]
    assert compare(copied, *added) == 0
    assert [row["name"] for row in report_of(copied)["rows"]] == [*ROWS, "mine"]


def test_only_picks_rows_also_optional_ones(copied):
    assert compare(copied, "--only", "orthogonal-inner") == 0
    names = [row["name"] for row in report_of(copied)["rows"]]
    assert names == [*ROWS, "orthogonal-inner"]


def test_only_runs_the_named_rows_on_the_given_base_model(base, tmp_path):
    out = tmp_path / "run"
    assert compare(out, "--only", "do-nothing,unseen", "--from", str(base)) == 0
    report = report_of(out)
    assert [row["name"] for row in report["rows"]] == ["do-nothing", "unseen"]
    assert report["base"]["source"] == str(base / "model")
    name = "model/unet/diffusion_pytorch_model.safetensors"
    assert (out / "rows" / "do-nothing" / name).read_bytes() == (base / name).read_bytes()


def test_an_unknown_row_is_refused_with_the_nearest_name(cli, tmp_path):
    arguments = ["compare", DIGITS, "--only", "redirekt", "--out", tmp_path / "run"]
    assert "Did you mean 'redirect'?" in refused(cli, tmp_path / "run", *arguments)


def test_report_rebuilds_the_views(cli, copied):
    views = ["report.md", "report.html", "samples.png"]
    before = {view: (copied / view).read_bytes() for view in views}
    for view in views:
        (copied / view).unlink()
    outcome = cli("report", copied)
    assert outcome.code == 0
    assert "redirect" in outcome.out
    assert {view: (copied / view).read_bytes() for view in views} == before


def test_a_damaged_report_is_refused(cli, copied):
    (copied / "report.json").write_text('{"rows": [')
    assert "report.json is damaged" in refused(cli, copied, "report", copied)


@pytest.mark.parametrize("content", [None, "[]", "{}", '{"rows": []}'])
def test_a_report_of_no_comparison_is_refused(cli, copied, content):
    row = copied / "rows" / "redirect"
    if content is not None:
        (row / "report.json").write_text(content)
    assert re.search("report.json: .*expected .* rows?", refused(cli, copied, "report", row))


def test_sample_writes_a_picture_and_an_array(cli, base, tmp_path):
    outcome = cli("sample", base, "-n", "5", "--steps", "3", "--seed", "2", "--device", "cpu", "--out", tmp_path)
    assert outcome.code == 0
    samples = np.load(tmp_path / "samples.npz", allow_pickle=False)["samples"]
    assert (samples.shape, samples.dtype) == ((5, 8, 8, 1), np.uint8)
    assert Image.open(tmp_path / "samples.png").size[0] > 8
    assert f"wrote {tmp_path / 'samples.png'}" in outcome.out


def test_samples_depend_on_the_seed_and_not_on_their_number(cli, base, tmp_path):
    for name, count, seed in (("few", 2, 0), ("many", 4, 0), ("other", 2, 1)):
        arguments = ["--count", count, "--steps", "3", "--seed", seed, "--device", "cpu", "--out", tmp_path / name]
        assert cli("sample", base, *arguments).code == 0
    few, many, other = (np.load(tmp_path / name / "samples.npz")["samples"] for name in ("few", "many", "other"))
    assert (few == many[:2]).all()
    assert (few != other).any()


def test_evaluate_measures_models_as_compare_does(cli, comparison, tmp_path):
    rows = [comparison / "rows" / name for name in ("do-nothing", "redirect")]
    arguments = ["--config", DIGITS, *settings(COMPARISON), "--device", "cpu", "--out", tmp_path / "evaluation"]
    assert cli("evaluate", *rows, *arguments).code == 0
    expected = {row["name"]: row for row in report_of(comparison)["rows"]}
    found = report_of(tmp_path / "evaluation")["rows"]
    assert [row["name"] for row in found] == ["do-nothing", "redirect"]
    for row in found:
        for key in ("unlearning_ratio", "junk_rate", "copy_rate", "class_histogram", "nll"):
            assert row[key] == expected[row["name"]][key]
    assert (tmp_path / "evaluation" / "report.html").is_file()


def test_evaluate_takes_a_runs_own_config_and_writes_into_the_run(cli, base, tmp_path):
    run = Path(shutil.copytree(base, tmp_path / "run"))
    small = settings(["evaluation.samples=5", "evaluation.judge.epochs=1", "evaluation.nll_items=1"])
    for _ in range(2):
        assert cli("evaluate", run, *small, "--device", "cpu").code == 0
    assert [row["name"] for row in report_of(run)["rows"]] == ["run"]


def test_evaluate_reads_the_config_of_a_comparison(cli, comparison, tmp_path):
    assert cli("evaluate", comparison, "--device", "cpu", "--out", tmp_path / "out").code == 0


@pytest.mark.parametrize("part", ["", "rows/redirect"])
def test_evaluate_does_not_write_over_the_report_of_a_comparison(cli, copied, part):
    assert "--out" in refused(cli, copied, "evaluate", copied / part, "--config", DIGITS, *settings(COMPARISON))


def test_evaluate_refuses_two_folders_of_one_name(cli, comparison, tmp_path):
    rows = [comparison / "rows" / "unseen", tmp_path / "unseen"]
    assert "is there twice" in refused(cli, tmp_path, "evaluate", *rows, "--config", DIGITS, "--out", tmp_path / "out")


def test_objectives_prints_the_cards(cli):
    names = ("standard", "unseen", "erasediff", "orthogonal", "obtuse", "redirect")
    outcome = cli("objectives", *names)
    assert outcome.code == 0
    for name in names:
        assert f"{name}\n  formula: " in outcome.out
    assert "deviations: " in outcome.out
    assert cli("objectives", "obtuse").out.startswith("obtuse\n  formula: ")


def test_guidance_is_listed_and_its_cards_are_printed(cli):
    names = ("classifier-free", "negative", "dng", "classifier", "spell", "reject")
    listed = cli("guidance").out
    assert all(f"\n{name} " in f"\n{listed}" for name in names)
    cards = cli("guidance", *names).out
    assert all(f"{name}\n  formula: " in cards for name in names)


def test_an_unknown_objective_is_refused_with_the_nearest_name(cli, tmp_path):
    assert "Did you mean 'obtuse'?" in refused(cli, tmp_path, "objectives", "obtus")


MINE = """
from dataclasses import dataclass

from msgm.objectives import OBJECTIVES, Card, Mixed, mean_square


@OBJECTIVES.register("shrink")
@dataclass
class Shrink(Mixed):
    strength: float = 1.0
    card = Card("L_f = strength mean eps_theta^2", "a user", "none")

    def forget_loss(self, predicted, forget):
        return self.strength * mean_square(predicted)
"""


@pytest.fixture
def plugin(tmp_path):
    known = dict(OBJECTIVES.entries)
    (tmp_path / "shrink.py").write_text(MINE)
    yield tmp_path / "shrink.py"
    OBJECTIVES.entries.clear()
    OBJECTIVES.entries.update(known)


def test_an_objective_from_a_users_file_is_compared_like_the_others(plugin, base, tmp_path):
    out = tmp_path / "run"
    rows = [f"plugins=[{plugin}]", "rows.mine.objective={name: shrink, strength: 2.5, every: 1}"]
    assert compare(out, *settings(rows), "--only", "do-nothing,mine", "--from", str(base)) == 0
    row = report_of(out)["rows"][1]
    assert (row["name"], row["objective"], row["settings"]["strength"]) == ("mine", "shrink", 2.5)
    assert "L_f = strength mean eps_theta^2" in (out / "report.md").read_text()
    assert json.loads(Run(out / "rows" / "mine").metrics.read_text().split("\n")[0]).keys() >= {"retain", "forget"}


def test_a_run_of_a_users_objective_is_evaluated_without_her_file(plugin, base, tmp_path, cli):
    out, overrides = tmp_path / "run", [*TINY, f"plugins=[{plugin}]", "objective.name=shrink", "finetune.steps=1"]
    assert cli("unlearn", DIGITS, *settings(overrides), "--from", base, "--device", "cpu", "--out", out).code == 0
    del OBJECTIVES.entries["shrink"]
    arguments = ["--config", DIGITS, *settings(COMPARISON), "--device", "cpu", "--out", tmp_path / "evaluation"]
    assert cli("evaluate", out, *arguments).code == 0
    assert report_of(tmp_path / "evaluation")["rows"][0]["objective"] == "shrink"
