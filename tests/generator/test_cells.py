"""A comparison of several seeds with retrained models, at two rows and a handful of steps."""

import json
import os
import re
import shutil
from pathlib import Path
from types import SimpleNamespace

import pytest

from msgm.config import load_config
from msgm.generator import cells
from msgm.generator.cells import Cell, Workshop, models, retrained_models, row_models
from msgm.objectives.denoising import Unseen
from msgm.objectives.redirect import Redirect
from msgm.runs import Run
from tests.conftest import DIGITS, settings
from tests.test_cli import COMPARISON

SMALL = [*COMPARISON, "seeds=2", "retrains=2", "evaluation.metrics=[ur]", "training.steps=2", "evaluation.samples=8"]
ONLY = ["--only", "do-nothing,redirect"]
NAMES = ("do-nothing", "seed-1", "retrained-1")
CELLS = ["rows/do-nothing", "rows/redirect", "rows/do-nothing/seed-1", "rows/redirect/seed-1"]
CELLS += ["retrains/retrained-1", "retrains/retrained-2"]


def arguments(out: Path, *more: str) -> list[object]:
    return ["compare", DIGITS, *settings([*SMALL, *more]), *ONLY, "--device", "cpu", "--out", out]


def report_of(folder: Path) -> dict:
    return json.loads((folder / "report.json").read_text())


def seeds_in(folder: Path) -> list[int]:
    return [json.loads((folder / cell / "manifest.json").read_text())["seed"] for cell in CELLS]


@pytest.fixture(scope="module")
def made(tmp_path_factory) -> Path:
    from msgm.cli import main

    out = tmp_path_factory.mktemp("seeds") / "run"
    assert main([str(argument) for argument in arguments(out)]) == 0
    return out


@pytest.fixture
def copied(made, tmp_path) -> Path:
    return Path(shutil.copytree(made, tmp_path / "copy"))


def test_one_seed_lies_where_it_always_did_and_has_no_band():
    config = load_config(DIGITS)
    assert [str(cell.folder) for cell in models(config, ["redirect"])] == ["rows/do-nothing", "rows/redirect"]
    assert retrained_models(config) == []


def test_retrained_models_have_seeds_that_no_row_and_no_neighbouring_run_has():
    seeds = [cell.seed for k in range(3) for cell in retrained_models(load_config(DIGITS, [f"seed={k}", "retrains=5"]))]
    assert len({*seeds, *range(1000)}) == 15 + 1000


def test_retrained_models_are_trained_as_the_row_is_but_never_on_the_request():
    config = load_config(DIGITS, ["retrains=2", "rows.unseen-scratch.training.steps=7"])
    assert {config.row_training(cell.row).steps for cell in retrained_models(config)} == {7}
    other = load_config(DIGITS, ["retrains=2", "rows.unseen-scratch.objective.name=redirect"])
    assert {cell.row.objective["name"] for cell in retrained_models(other)} == {"unseen"}


def test_every_cell_is_a_run_of_its_own_seed(made):
    expected = [cell.seed for cell in retrained_models(load_config(DIGITS, SMALL))]
    assert seeds_in(made) == [0, 0, 1, 1, *expected]
    weights = [next((made / cell / "model").rglob("*.safetensors")).read_bytes() for cell in CELLS]
    assert len(set(weights)) == len(CELLS)


def test_each_seed_starts_from_its_own_base_model(made):
    manifest = json.loads((made / "rows/redirect/seed-1/manifest.json").read_text())
    assert manifest["source"] == str(made / "rows/do-nothing/seed-1/model")


def test_the_report_holds_every_seed_and_every_retrained_model(made):
    report = report_of(made)
    assert (report["seeds"], report["failed"]) == ([0, 1], {})
    assert [[seed["seed"] for seed in row["per_seed"]] for row in report["rows"]] == [[0, 1], [0, 1]]
    assert [row["name"] for row in report["retrains"]] == ["retrained-1", "retrained-2"]
    for row in (*report["rows"], *report["retrains"]):
        assert row["per_seed"][0]["metrics"]["UR %"] == 100 * row["unlearning_ratio"]["value"]
        assert {"UR %", "closed-set UR %", "junk %", "copy %", "class distance %"} == {*row["per_seed"][0]["metrics"]}


def test_a_row_that_is_evaluated_alone_says_where_its_band_is(cli, made, tmp_path):
    rows = [made / "rows" / "do-nothing", made / "rows" / "redirect" / "seed-1", made / "retrains" / "retrained-1"]
    found = cli("evaluate", *rows, "--config", made / "config.yaml", "--device", "cpu", "--out", tmp_path / "out")
    assert found.code == 0, found.err
    report, text = report_of(tmp_path / "out"), (tmp_path / "out" / "report.md").read_text()
    assert report["comparisons"] == dict.fromkeys(["do-nothing", "seed-1"], os.path.relpath(made, tmp_path / "out"))
    assert text.count("No band: how do-nothing, seed-1 lies to the retrained models of ") == 1
    cards = {name: json.loads(next((tmp_path / "out").rglob(f"*{name}*card.json")).read_text()) for name in NAMES}
    said = [sum(line.startswith("No band: how") for line in card["cannot_say"]) for card in cards.values()]
    assert said == [1, 1, 0]


def test_seeds_may_be_added_and_what_is_there_is_kept(cli, copied):
    before = [(copied / cell / "report.json").read_bytes() for cell in CELLS]
    shutil.rmtree(copied / "rows" / "redirect" / "seed-1")
    again = cli(*arguments(copied, "seeds=3"))
    assert again.code == 0, again.err
    assert "redirect, seed 0: kept" in again.out
    after = [(copied / cell / "report.json").read_bytes() for cell in CELLS]
    assert [one == other for one, other in zip(before, after, strict=True)].count(False) <= 1  # its seconds
    assert [seed["seed"] for seed in report_of(copied)["rows"][1]["per_seed"]] == [0, 1, 2]


def test_a_cell_that_fails_stands_in_the_table_and_the_others_are_run(cli, copied, monkeypatch):
    whole = (copied / "report.md").read_text()
    shutil.rmtree(copied / "rows" / "redirect" / "seed-1")
    shutil.rmtree(copied / "retrains" / "retrained-2")
    with monkeypatch.context() as patched:
        patched.setattr(Redirect, "terms", lambda *_, **__: 1 / 0)
        outcome = cli(*arguments(copied))
    assert outcome.code == 1
    assert (
        "msgm: one model failed, and the same command tries again: redirect, seed 1: ZeroDivisionError" in outcome.err
    )
    assert report_of(copied)["failed"] == {"redirect, seed 1": "ZeroDivisionError: division by zero."}
    assert (copied / "retrains" / "retrained-2" / "report.json").is_file()
    assert "| redirect, seed 1 | failed |" in (copied / "report.md").read_text()
    assert "redirect, seed 1 failed: ZeroDivisionError" in outcome.out
    only_base = cli(*arguments(copied)[:-6], "--only", "do-nothing", "--device", "cpu", "--out", copied)
    assert "redirect, seed 1" in report_of(copied)["failed"], only_base.err
    assert cli(*arguments(copied)).code == 0
    assert report_of(copied)["failed"] == {}
    assert "failed" not in whole


def test_rows_of_a_seed_whose_base_model_failed_say_so(cli, copied, monkeypatch):
    shutil.rmtree(copied / "rows" / "do-nothing" / "seed-1")
    shutil.rmtree(copied / "rows" / "redirect" / "seed-1")
    from msgm.objectives.denoising import Standard

    monkeypatch.setattr(Standard, "terms", lambda *_, **__: 1 / 0)
    assert cli(*arguments(copied)).code == 1
    failed = report_of(copied)["failed"]
    assert failed["redirect, seed 1"] == "ZeroDivisionError: division by zero."
    assert failed.keys() == {"do-nothing, seed 1", "redirect, seed 1"}


def test_nothing_measured_is_no_report(cli, tmp_path, monkeypatch):
    from msgm.objectives.denoising import Standard

    monkeypatch.setattr(Standard, "terms", lambda *_, **__: 1 / 0)
    outcome = cli(*arguments(tmp_path / "run", "seeds=1", "retrains=1"))
    assert outcome.code == 1
    assert "msgm: nothing could be measured: do-nothing: ZeroDivisionError: division by zero; redirect" in outcome.err
    assert not (tmp_path / "run" / "report.json").exists()


def test_one_given_base_model_is_the_start_at_every_seed(cli, made, tmp_path):
    out = tmp_path / "run"
    given = cli(*arguments(out, "retrains=1"), "--from", made / "rows" / "do-nothing")
    assert given.code == 0, given.err
    manifests = [json.loads((out / folder / "manifest.json").read_text()) for folder in (CELLS[1], CELLS[3])]
    assert {manifest["source"] for manifest in manifests} == {str(out / "rows/do-nothing/model")}
    assert not (out / CELLS[2]).exists()
    assert [len(row["per_seed"]) for row in report_of(out)["rows"]] == [1, 2]


@pytest.mark.parametrize("key", ["seeds", "retrains"])
def test_none_of_them_is_refused(cli, tmp_path, key):
    refused = cli(*arguments(tmp_path / "run", f"{key}=0"))
    assert (refused.code, key in refused.err) == (2, True)


def test_rows_name_their_seed_only_where_there_are_several():
    assert [cell.label for cell in row_models(load_config(DIGITS), "redirect")] == ["redirect"]
    assert [cell.label for cell in row_models(load_config(DIGITS, ["seeds=2"]), "redirect")][1] == "redirect, seed 1"


# The band


def test_fewer_than_five_retrained_models_give_numbers_without_verdicts(made):
    report = report_of(made)
    assert report["rows"][1]["judged"]["numbers"] == 0
    numbers = report["rows"][1]["metrics"]["UR %"]
    assert (numbers["seeds"], numbers["band"], numbers["place"]) == (2, None, None)
    assert numbers["low"] <= numbers["value"] <= numbers["high"]
    text = (made / "report.md").read_text()
    assert "Over 2 seeds, beside 2 retrained models" in text
    assert "2 of at least 5 retrained models: numbers stand here without verdicts." in text


def test_a_band_of_five_is_in_the_report_its_views_and_its_cards(cli, copied):
    outcome = cli(*arguments(copied, "retrains=5"))
    assert outcome.code == 0, outcome.err
    report = report_of(copied)
    row = report["rows"][1]
    judged = {name for name, entry in row["metrics"].items() if entry["place"] in ("inside", "above", "below")}
    assert (row["judged"]["retrains"], row["judged"]["numbers"]) == (5, len(judged))
    assert judged  # numbers that are the same for all of these tiny models are not
    for view in (outcome.out, (copied / "report.md").read_text(), (copied / "report.html").read_text()):
        assert "Over 2 seeds, beside 5 retrained models" in view
        assert re.search(r"[0-5]\s+of\s+5\s+have\s+all\s+inside", view)
    card = json.loads((copied / "rows" / "redirect" / "card.json").read_text())
    lines = {line["number"]: line for lines in card["numbers"].values() for line in lines}
    assert all(lines[name]["inside"] in ("yes", "no: above", "no: below") for name in judged)
    assert lines["copy %"]["inside"] in ("not judged", "yes", "no: above", "no: below")


def test_the_config_with_the_band_runs_all_default_rows_and_every_attack():
    from msgm.evaluation.ladder import ATTACKS

    config = load_config(DIGITS.with_name("vp_band.yaml"))
    assert (config.seeds, config.retrains, config.request.target) == (3, 5, "observed")
    assert {*ATTACKS} <= {*config.evaluation.metrics}
    chosen = [name for name, row in config.rows.items() if not row.optional]
    assert len(list(models(config, chosen))) == 3 * 8 + 5


def test_retrained_models_are_made_before_what_is_compared_with_them(cli, copied):
    again = cli(*arguments(copied, "evaluation.metrics=[ur,sample-distance]"))
    assert again.code == 0, again.err
    assert "kept" not in again.out
    for row in (*report_of(copied)["rows"], *report_of(copied)["retrains"]):
        number = row["sample_distance"]["compared"]["KID to retrained"]
        assert {*number["by_model"]} == {"retrained-1", "retrained-2"} - {row["name"]}


def test_what_was_measured_beside_fewer_retrained_models_is_measured_again(cli, copied):
    first = ["evaluation.metrics=[ur,sample-distance]"]
    assert cli(*arguments(copied, *first)).code == 0
    again = cli(*arguments(copied, *first, "retrains=3"))
    assert again.code == 0, again.err
    for row in (*report_of(copied)["rows"], *report_of(copied)["retrains"]):
        compared = {*row["sample_distance"]["compared"]["KID to retrained"]["by_model"]}
        assert compared == {f"retrained-{k}" for k in (1, 2, 3)} - {row["name"]}
    assert "measuring ur" not in again.out.replace("retrained-3: measuring ur", "")


def test_a_model_that_is_made_anew_is_measured_anew(copied, monkeypatch):
    config = load_config(DIGITS, SMALL)
    bench = SimpleNamespace(config=config, at=lambda seed: SimpleNamespace(config=config))
    cell = Cell(Workshop(Run(copied), bench, None, "cpu", None), row_models(config, "redirect")[0], True)
    given = []
    monkeypatch.setattr(cells, "load_guided", lambda folder: SimpleNamespace(to=lambda device: None))
    monkeypatch.setattr(cells, "placed", lambda subject, row, *_: given.append(row) or row)
    monkeypatch.setattr(cells, "measure", lambda subject, row, keep: row)
    monkeypatch.setattr(Cell, "_make", lambda *_: None)
    cell.run()
    shutil.rmtree(copied / "rows" / "redirect" / "model")
    cell.run()
    assert ["measured" in row for row in given] == [True, False]


@pytest.mark.parametrize("told", [{"kind": "classifier"}, {"kind": "tune"}, {"status": "finished"}])
def test_a_folder_that_holds_another_kind_of_run_is_left_as_it_is(cli, tmp_path, told):
    (tmp_path / "manifest.json").write_text(json.dumps(told))
    if "status" in told:
        (tmp_path / "config.yaml").write_text(load_config(DIGITS, [*SMALL, "name=run"]).to_yaml())
    else:
        (tmp_path / "config.yaml").write_text("name: run\nmethods: {}\n")
    outcome = cli(*arguments(tmp_path, "name=run"))
    assert (outcome.code, "holds a run of another kind; give another --out" in outcome.err) == (2, True)
    assert json.loads((tmp_path / "manifest.json").read_text()) == told


def test_a_retrained_model_that_fails_fails_what_is_compared_with_it(cli, copied, monkeypatch):
    shutil.rmtree(copied / "retrains" / "retrained-2")
    monkeypatch.setattr(Unseen, "terms", lambda *_, **__: 1 / 0)
    outcome = cli(*arguments(copied, "evaluation.metrics=[ur,sample-distance]"))
    assert outcome.code == 1
    assert "retrained-2, to compare with: ZeroDivisionError" in outcome.err
    assert "redirect, seed 0: ZeroDivisionError" in outcome.out
