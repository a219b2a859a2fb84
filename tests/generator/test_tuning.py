"""``msgm tune`` on generators: what a trial reads, and what a comparison takes from it."""

import json
from dataclasses import replace

import pytest
import yaml

from msgm.config import load_config
from msgm.data import load_dataset
from msgm.errors import UserError
from msgm.fields import merged
from msgm.generator import tuning
from msgm.generator.tuning import GeneratorTuning
from msgm.runs import Run
from msgm.settings import dump_yaml, parse_settings, read_settings
from msgm.study.tuning import tune
from msgm.training.run import new_model, split_data
from tests.conftest import TINY, settings

pytest.importorskip("optuna")

SMALL = [
    *TINY,
    "training.steps=20",
    "finetune.steps=4",
    "sampling.steps=4",
    "evaluation.samples=24",
    "evaluation.nll_items=6",
    "evaluation.judge.epochs=1",
    "evaluation.judge.width=8",
    "evaluation.likelihood.steps=3",
    "evaluation.likelihood.error_items=0",
    "rows.obtuse.training.steps=9",
]


def search(folder, trials=2, only=("redirect",)):
    config = load_config("digits/vp", SMALL)
    return tune(
        GeneratorTuning(config, Run(folder), None, "cpu"), Run(folder), config.name, 0, trials, only, "objective"
    )


@pytest.fixture(scope="module")
def found(tmp_path_factory):
    folder = tmp_path_factory.mktemp("tune") / "run"
    return folder, search(folder, only=["redirect", "obtuse"])


def test_every_trial_of_every_row_has_the_steps_of_finetune(found):
    folder, report = found
    assert report["budget"] == "4 steps"
    assert {row["trials"] for row in report["rows"].values()} == {2}
    tree = load_config(json.loads(json.dumps(_tuned(folder) | {"tuned": {}})))
    assert {tree.rows[name].training["steps"] for name in ("redirect", "obtuse")} == {4}
    assert not (folder / "trial").exists()


def _tuned(folder):
    return yaml.safe_load((folder / "tuned.yaml").read_text())


def test_the_objective_is_the_sum_that_it_says(found):
    folder, report = found
    tunable = GeneratorTuning(load_config("digits/vp", SMALL), Run(folder), None, "cpu")
    for row in report["rows"].values():
        numbers = row["numbers"]
        rise = max(0, numbers["nll_retain"] - tunable.base_numbers["nll_retain"])
        assert row["best"] == pytest.approx(numbers["unlearning_ratio"] + numbers["junk_rate"] + rise)


def test_nothing_depends_on_the_test_part(found, tmp_path, monkeypatch):
    def changed(given):
        dataset = load_dataset(given)
        test = split_data(load_config("digits/vp", SMALL), dataset).test.all
        items, labels = dataset.items.clone(), dataset.labels.copy()
        items[test] = items[test].flip(-1, -2)
        labels[test] = labels[test][::-1]
        return replace(dataset, items=items, labels=labels)

    monkeypatch.setattr(tuning, "load_dataset", changed)
    dataset = changed(load_config("digits/vp", SMALL).data)
    assert dataset.digest() != load_dataset(load_config("digits/vp", SMALL).data).digest()
    again = search(tmp_path / "run", only=["redirect", "obtuse"])
    for tree in (again, found[1]):
        for row in tree["rows"].values():
            row["seconds"] = 0
    assert again == found[1]


def test_a_comparison_takes_the_chosen_values_and_its_report_says_so(found, tmp_path, cli):
    folder, report = found
    out = tmp_path / "compared"
    given = ("--tuned", folder, "--out", out, "--only", "redirect", "--device", "cpu")
    outcome = cli("compare", "digits/vp", *settings(SMALL), *given)
    assert outcome.code == 0, outcome.err
    written = json.loads((out / "report.json").read_text())
    chosen = report["rows"]["redirect"]["values"]
    (row,) = (row for row in written["rows"] if row["name"] == "redirect")
    assert row["settings"]["alpha"] == chosen["objective.alpha"]
    assert row["lr"] == chosen["training.lr"]
    assert written["protocol"]["tuning"].startswith("2 trials a row (4 steps) of digits-vp, on the validation part")
    assert f"objective.alpha {chosen['objective.alpha']:.4g}" in (out / "report.md").read_text()


def test_the_command_prints_a_table_and_what_to_do_next(found, cli):
    folder, _ = found
    rows = ("--rows", "redirect,obtuse", "--trials", 2, "--out", folder, "--device", "cpu")
    outcome = cli("tune", "digits/vp", *settings(SMALL), *rows)
    assert outcome.code == 0, outcome.err
    assert "objective on the validation part" in outcome.out
    assert f"msgm compare digits/vp --tuned {folder} takes these values" in outcome.out
    assert "trial 3" not in outcome.out


def test_rows_that_are_not_fine_tuned_cannot_be_tuned(tmp_path):
    with pytest.raises(UserError, match="'unseen-scratch' has nothing to tune; rows that have: unseen, erasediff"):
        search(tmp_path / "run", only=["unseen-scratch"])
    with pytest.raises(UserError, match="tune needs the row 'do-nothing'"):
        GeneratorTuning(replace(load_config("digits/vp", SMALL), rows={}), Run(tmp_path), None, "cpu")


def test_a_conditional_model_counts_by_the_worst_of_its_views(tmp_path, monkeypatch):
    config = load_config("digits/vp", [*SMALL, "network.classes=10"])
    tuning_ = GeneratorTuning(config, Run(tmp_path), None, "cpu")
    views = {"forgotten": (0.4, 0.1), "others": (0.1, 0.3), "none": (0.2, 0.2)}
    found = {
        "unlearning_ratio": {"value": 0.2},
        "unlearning_ratio_closed_set": {"value": 0.5},
        "junk_rate": 0.2,
        "copy_rate": 0.0,
        "nll": {part: {"mean": 2.0} for part in ("retain", "forget")},
        "conditions": {
            name: {"unlearning_ratio": {"value": ur}, "junk_rate": {"value": junk}}
            for name, (ur, junk) in views.items()
        },
    }
    monkeypatch.setattr(tuning, "measure", lambda subject: found)
    monkeypatch.setattr(tuning, "load_guided", lambda folder: new_model(config, tuning_.bench.dataset))
    numbers = tuning_._numbers("row", tmp_path)
    assert (numbers["unlearning_ratio"], numbers["junk_rate"]) == (0.4, 0.3)
    found["conditions"] = {"not_tested": "the model is unconditional"}
    assert tuning_._numbers("row", tmp_path)["unlearning_ratio"] == 0.2


def test_settings_of_masks_anchors_and_caps_are_searched_too(tmp_path):
    row = "rows.mine.objective={name: obtuse, mask: {keep: 0.3}, anchor: {by: identity}, combine: cap}"
    tuned = GeneratorTuning(load_config("digits/vp", [*SMALL, row]), Run(tmp_path), None, "cpu")
    searched = tuned.rows()["mine"]
    inner = {"objective.mask.keep": 0.3, "objective.anchor.weight": 0.01, "objective.combine.ratio": 1.0}
    assert inner.items() <= searched.own.items()
    chosen = tuned.chosen("mine", {"objective.mask.keep": 0.6, "objective.combine.ratio": 0.2, "training.lr": 1e-3})
    objective = chosen["rows"]["mine"]["objective"]
    assert (objective["mask"]["keep"], objective["combine"]["ratio"], objective["anchor"]["by"]) == (
        0.6,
        0.2,
        "identity",
    )
    made = tuned._experiment("mine", {"objective.mask.keep": 0.6, "objective.combine.ratio": 0.2}).objective
    assert (made["mask"]["keep"], made["mask"]["items"], made["anchor"]["by"]) == (0.6, 256, "identity")
    assert made["combine"] == {"name": "cap", "ratio": 0.2, "exactly": False}


def test_what_is_written_makes_the_tuned_row_again_whatever_else_the_search_was_told(tmp_path):
    told = ["finetune.adapter.rank=2", "rows.mine={objective: {name: obtuse, floor: 3}, training: {clip: null}}"]
    tuned = GeneratorTuning(load_config("digits/vp", [*SMALL, *told]), Run(tmp_path), None, "cpu")
    for row, values in (("mine", {"training.lr": 1e-3}), ("redirect", {"objective.alpha": 0.6})):
        written = dump_yaml(tuned.chosen(row, values))
        again = load_config(merged(read_settings("digits/vp", SMALL), parse_settings(written, "tuned.yaml")))
        made, trial = again.for_row(again.rows[row]), tuned._experiment(row, values)
        assert made.training == trial.training
        assert made.training.adapter.rank == 2
        assert (made.objective, again.rows[row].start) == (trial.objective, "finetune")


def test_edits_and_guidance_are_written_without_what_they_refuse(tmp_path):
    told = ["finetune.adapter.rank=2", "rows.edited={start: edit, edit: {name: task-vector}, training: {lr: 1e-3}}"]
    told.append("rows.guided={start: guide, guidance: {name: spell}}")
    tuned = GeneratorTuning(load_config("digits/vp", [*SMALL, *told]), Run(tmp_path), None, "cpu")
    assert tuned.chosen("edited", {})["rows"]["edited"]["training"] == {"lr": 1e-3}
    assert tuned.chosen("guided", {"guidance.radius": 2.0})["rows"]["guided"]["guidance"]["radius"] == 2.0
    for row in ("edited", "guided"):
        load_config(merged(read_settings("digits/vp", SMALL), tuned.chosen(row, {})))


def test_a_share_that_a_threshold_replaces_and_that_of_a_distilled_base_are_not_searched(tmp_path):
    row = "rows.mine.objective={name: obtuse, mask: {threshold: 1}, anchor: {by: base}, combine: pcgrad}"
    searched = GeneratorTuning(load_config("digits/vp", [*SMALL, row]), Run(tmp_path), None, "cpu").rows()["mine"]
    assert not any(key.count(".") == 2 for key in searched.space)


def test_a_weight_that_cancels_is_not_searched(tmp_path):
    searched = GeneratorTuning(load_config("digits/vp", SMALL), Run(tmp_path), None, "cpu").rows()
    for row in ("neggrad", "siss"):
        assert "objective.weight" not in searched[row].space
    assert "objective.strength" in searched["sfr-on"].space
    for row in ("graddiff", "ewc", "l2-sp"):
        assert "objective.weight" in searched[row].space


def test_a_calibrated_weight_is_not_searched_and_a_number_is(tmp_path):
    row = "rows.mine.objective={name: subtract, weight: 0.2, ceiling: 1}"
    searched = GeneratorTuning(load_config("digits/vp", [*SMALL, row]), Run(tmp_path), None, "cpu").rows()
    assert "objective.weight" in searched["mine"].space
    assert "objective.weight" not in searched["subtract"].space
