"""Comparisons, sweeps and tuning of rows that are edits."""

import json

import pytest
import yaml

from msgm.config import load_config
from msgm.errors import UserError
from msgm.folders import write_json
from msgm.generator.facts import facts_of
from msgm.generator.tuning import GeneratorTuning
from msgm.runs import Run
from msgm.study.tuning import tune
from msgm.sweep import with_start, with_sweeps
from tests.conftest import DIGITS, settings
from tests.generator.test_tuning import SMALL

ROWS = [
    "rows.prune={start: edit, edit: {name: prune, items: 4}}",
    "rows.away={start: edit, edit: {name: task-vector, steps: 2}, training: {lr: 1.0e-3}}",
]
THEN = "rows.then={start: edit, edit: {name: prune, items: 4}, objective: {name: unseen}, training: {steps: 3}}"


def arguments(out, *more, only="do-nothing,prune,away"):
    given = ("--only", only, "--device", "cpu", "--out", out)
    return ["compare", DIGITS, *settings([*SMALL, *ROWS, *more]), *given]


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    from msgm.cli import main

    out = tmp_path_factory.mktemp("edits") / "run"
    assert main([str(argument) for argument in arguments(out, "seeds=2")]) == 0
    return out


def test_the_report_has_the_edits_among_its_rows(made):
    rows = {row["name"]: row for row in json.loads((made / "report.json").read_text())["rows"]}
    assert [rows[name]["start"] for name in ("do-nothing", "prune", "away")] == ["none", "edit", "edit"]
    prune, away = rows["prune"], rows["away"]
    assert (prune["objective"], prune["steps"], prune["lr"], prune["weights"]) == ("prune", 0, None, "edited")
    assert (away["objective"], away["steps"], away["lr"]) == ("task-vector", 0, 1e-3)
    assert prune["settings"] == {"share": 0.01, "choose": "ratio", "items": 4, "levels": 10}
    assert prune["edited"]["changed_share"] == pytest.approx(0.01, abs=1e-3)
    assert all(row["seconds"] > 0 and len(row["per_seed"]) == 2 for row in (prune, away))
    assert "| prune" in (made / "report.md").read_text()


def test_every_seed_is_edited_from_its_own_base(made):
    manifest = json.loads((made / "rows/prune/seed-1/manifest.json").read_text())
    assert manifest["source"] == str(made / "rows/do-nothing/seed-1/model")
    assert (manifest["start"], manifest["seed"]) == ("edit", 1)


def test_the_card_says_what_the_edit_touched(made):
    (file,) = (made / "rows" / "prune").glob("card.json")
    method = json.loads(file.read_text())["method"]
    assert (method["family"], method["steps"], method["objective"]) == ("edit", 0, "prune")
    assert method["touches"].endswith("% of the weights")
    assert method["formula"].startswith("theta_i = 0")
    assert method["edited"]["distance"] > 0
    assert method["needs_retain_data"]
    other = json.loads((made / "rows" / "away" / "card.json").read_text())["method"]
    assert not other["needs_retain_data"]


def test_the_steps_of_an_edits_objective_stand_beside_it_in_its_facts(tmp_path):
    config = load_config(DIGITS, [*SMALL, THEN])
    row = config.rows["then"]
    manifest = {"source": "base", "start": "edit", "weights": "ema", "seconds": 1.0, "edited": {"changed_share": 0.01}}
    write_json(Run(tmp_path).manifest, manifest)
    Run(tmp_path).config.write_text(config.for_row(row).to_yaml())
    found = facts_of("then", row, Run(tmp_path))
    assert (found["objective"], found["steps"], found["start"]) == ("prune+unseen", 3, "edit")
    assert found["settings"] == {"edit.share": 0.01, "edit.choose": "ratio", "edit.items": 4, "edit.levels": 10}
    assert "theta_i = 0" in found["card"]
    assert "mean (eps_theta - eps)^2 over the retain set" in found["card"]
    assert (found["edited"], found["weights"]) == (manifest["edited"], "ema")
    _, names = with_sweeps(config, ["training.steps=4,5"], ["then"])
    assert names[-2:] == ["then@steps=4", "then@steps=5"]
    tunable = GeneratorTuning(config, Run(tmp_path), None, "cpu")
    assert set(tunable.rows()["then"].space) == {"edit.share", "training.lr"}


def test_the_same_command_keeps_what_is_there(cli, made):
    outcome = cli(*arguments(made, "seeds=2"))
    assert outcome.code == 0, outcome.err
    assert "prune, seed 0: kept" in outcome.out


def test_an_edited_run_is_measured_and_reported_alone_too(cli, made, tmp_path):
    outcome = cli("evaluate", made / "rows" / "prune", "--metrics", "nll", "--out", tmp_path / "out", "--device", "cpu")
    assert outcome.code == 0, outcome.err
    (row,) = json.loads((tmp_path / "out" / "report.json").read_text())["rows"]
    assert (row["start"], row["objective"], row["steps"]) == ("edit", "prune", 0)


def test_a_configs_rows_survive_being_written():
    config = load_config(DIGITS, ROWS)
    again = load_config(yaml.safe_load(config.to_yaml()))
    assert again.to_dict() == config.to_dict()
    assert config.rows["prune"].objective == {}
    assert config.row_training(config.rows["away"]).batch_size == config.finetuning().batch_size


@pytest.mark.parametrize(
    ("override", "told"),
    [
        ("rows.mine={start: edit}", "rows.mine: start: edit needs the setting edit"),
        ("rows.mine={start: finetune, edit: {name: prune}, objective: {name: unseen}}", "no other start has one"),
        ("rows.mine={start: edit, edit: {name: prune}, objective: {name: standard}}", "standard trains on all data"),
        ("rows.mine={start: edit, edit: {name: prume}}", "did you mean 'prune'"),
        ("rows.mine={start: edit, edit: {name: prune, shar: 1}}", "edit.shar"),
        ("edit.name=prume", "unknown edit 'prume'"),
    ],
)
def test_a_faulty_edit_is_refused_in_one_sentence(override, told):
    with pytest.raises(UserError, match="(?i)" + told):
        load_config(DIGITS, [override])


def test_an_edits_setting_is_swept():
    config, names = with_sweeps(load_config(DIGITS, ROWS), ["edit.share=0.1,0.2"], None)
    assert names[-2:] == ["prune@share=0.1", "prune@share=0.2"]
    assert config.rows["prune@share=0.2"].edit["share"] == 0.2
    with pytest.raises(UserError, match="has no effect on row 'away'"):
        with_sweeps(load_config(DIGITS, ROWS), ["edit.share=0.1"], ["away"])
    _, names = with_sweeps(load_config(DIGITS, ROWS), ["training.lr=0.1"], ["away"])
    assert names[-1] == "away@lr=0.1"
    with pytest.raises(UserError, match="has no effect on row 'prune'"):
        with_sweeps(load_config(DIGITS, ROWS), ["training.lr=0.1"], ["prune"])


@pytest.mark.parametrize("start", ["scratch", "finetune"])
def test_edits_stay_edits_wherever_other_rows_start(start):
    assert with_start(load_config(DIGITS, ROWS), start).rows["prune"].start == "edit"


def test_an_edits_settings_are_tuned(tmp_path):
    pytest.importorskip("optuna")
    config = load_config(DIGITS, [*SMALL, *ROWS])
    tunable = GeneratorTuning(config, Run(tmp_path), None, "cpu")
    assert set(tunable.rows()["prune"].space) == {"edit.share"}
    assert tunable.rows()["away"].own == {"edit.coefficient": 1.0}
    found = tune(tunable, Run(tmp_path), config.name, 0, 2, ["prune"], "objective")
    assert found["budget"] == "4 steps; an edit makes none"
    share = found["rows"]["prune"]["values"]["edit.share"]
    chosen = load_config(yaml.safe_load((tmp_path / "tuned.yaml").read_text()) | {"tuned": {}}, ROWS)
    assert chosen.rows["prune"].edit["share"] == share
