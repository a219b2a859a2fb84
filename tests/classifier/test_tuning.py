"""``msgm tune`` on classifiers: what a trial reads, and what a comparison takes from it."""

import json
from dataclasses import replace

import pytest

from msgm.classifier import tuning
from msgm.classifier.config import load_config
from msgm.classifier.data import held_out
from msgm.classifier.tuning import ClassifierTuning
from msgm.data import load_dataset
from msgm.runs import Run
from msgm.study.tuning import tune
from tests.conftest import settings

pytest.importorskip("optuna")

SMALL = ["training.epochs=3", "network.hidden=[16]", "seeds=1", "methods.finetune.epochs=2"]
ROWS = ["scrub", "ssd"]


def search(folder, *overrides):
    config = load_config("classifier/digits", [*SMALL, *overrides])
    return tune(ClassifierTuning(config, Run(folder), None, "cpu"), Run(folder), config.name, 0, 2, ROWS, "objective")


@pytest.fixture(scope="module")
def found(tmp_path_factory):
    folder = tmp_path_factory.mktemp("tune") / "run"
    return folder, search(folder)


def test_the_objective_is_the_mean_of_the_four_gaps(found):
    for row in found[1]["rows"].values():
        gaps = [value for name, value in row["numbers"].items() if name.endswith("_gap")]
        assert len(gaps) == 4
        assert row["best"] == pytest.approx(sum(gaps) / 4)


def test_trials_read_the_tuning_part_alone_one_half_for_methods_and_one_to_measure_on(found):
    config = load_config("classifier/digits", SMALL)
    experiment = ClassifierTuning(config, Run(found[0]), None, "cpu").experiment
    parts = experiment.parts
    assert parts["test"].tolist() == parts["nonmembers"].tolist()
    assert not set(parts["test"]) & set(parts["tuning"])
    reported = held_out(experiment.dataset, config.shares, config.seed)
    assert sorted([*parts["test"], *parts["tuning"]]) == reported["tuning"].tolist()


def test_nothing_depends_on_the_test_items_or_on_the_non_members(found, tmp_path, monkeypatch):
    config = load_config("classifier/digits", SMALL)

    def changed(given):
        dataset = load_dataset(given)
        parts = held_out(dataset, config.shares, config.seed)
        items, labels = dataset.items.clone(), dataset.labels.copy()
        for name in ("test", "nonmembers"):
            items[parts[name]] = items[parts[name]].flip(-1, -2)
            labels[parts[name]] = labels[parts[name]][::-1]
        return replace(dataset, items=items, labels=labels)

    monkeypatch.setattr(tuning, "load_dataset", changed)
    again = search(tmp_path / "run")
    for tree in (again, found[1]):
        for row in tree["rows"].values():
            row["seconds"] = 0
    assert again == found[1]


def test_methods_that_train_in_epochs_have_those_of_finetune(found):
    config = load_config("classifier/digits", SMALL)
    tunable = ClassifierTuning(config, Run(found[0]), None, "cpu")
    assert tunable.chosen("scrub", {})["methods"]["scrub"]["epochs"] == 2
    assert "epochs" not in tunable.chosen("ssd", {})["methods"]["ssd"]


def test_a_rate_of_its_own_is_searched_in_the_place_of_a_share(tmp_path):
    config = load_config("classifier/digits", [*SMALL, "methods.scrub.lr=0.01"])
    space = ClassifierTuning(config, Run(tmp_path), None, "cpu").rows()["scrub"].space
    assert "lr" in space
    assert "lr_share" not in space


def test_a_comparison_takes_the_chosen_values_and_its_report_says_so(found, tmp_path, cli):
    folder, report = found
    out = tmp_path / "compared"
    small = settings([*SMALL, "metrics=[accuracy]"])
    given = ("--tuned", folder, "--out", out, "--only", "ssd", "--requests", "random", "--device", "cpu")
    outcome = cli("classifier", "compare", "classifier/digits", *small, *given)
    assert outcome.code == 0, outcome.err
    written = json.loads((out / "report.json").read_text())
    (row,) = (row for row in written["rows"] if row["method"] == "ssd")
    chosen = report["rows"]["ssd"]["values"]
    assert {key: row["settings"][key] for key in chosen} == chosen
    assert written["protocol"]["tuning"].startswith("2 trials a row (2 epochs for methods that train in epochs)")
