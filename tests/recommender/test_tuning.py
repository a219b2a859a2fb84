"""``msgm tune`` on recommenders and attributes: what a trial reads, and what a comparison takes from it."""

import json

import pytest
from scipy.sparse import csr_array

from msgm.recommender import tuning
from msgm.recommender.config import load_config, load_experiment
from msgm.recommender.data.base import Split
from msgm.recommender.data.splits import load_split
from msgm.recommender.erasure.config import AttributeConfig
from msgm.recommender.erasure.tuning import AttributeTuning
from msgm.recommender.tuning import RecommenderTuning
from msgm.runs import Run
from msgm.study.tuning import tune
from tests.conftest import settings

pytest.importorskip("optuna")

DATA = {"name": "synthetic", "users": 80, "items": 60, "interactions": 2400}
TREE = {
    "name": "small",
    "data": DATA,
    "models": {"als": {"factors": 4}, "ease": {}},
    "requests": {"random": {"random_users": 5}},
}
ATTRIBUTES = {
    "name": "small-attributes",
    "data": DATA,
    "attribute": "gender",
    "surfaces": ["embeddings"],
    "models": {"als": {"factors": 4}},
    "erasures": {"distribution": {"steps": 20}},
}
MADE = {
    "recommender": (lambda folder: RecommenderTuning(load_config(TREE), Run(folder)), "fisher"),
    "attributes": (
        lambda folder: AttributeTuning(load_experiment(AttributeConfig, ATTRIBUTES), Run(folder)),
        "distribution",
    ),
}


def search(domain, folder):
    make, row = MADE[domain]
    return tune(make(folder), Run(folder), "small", 0, 2, [row], "objective")


@pytest.fixture(scope="module", params=MADE)
def found(request, tmp_path_factory):
    folder = tmp_path_factory.mktemp("tune") / "run"
    return request.param, folder, search(request.param, folder)


def test_nothing_depends_on_the_test_cells(found, tmp_path, monkeypatch):
    domain, _, report = found

    def without_test_cells(given, data):
        split = load_split(given, data)
        return Split(split.train, split.validation, csr_array(split.test.shape), split.train_times)

    monkeypatch.setattr(tuning, "load_split", without_test_cells)
    again = search(domain, tmp_path / "run")
    for tree in (again, report):
        for row in tree["rows"].values():
            row["seconds"] = 0
    assert again == report


def test_quality_is_measured_on_the_validation_cells(found):
    domain, folder, _ = found
    tunable = MADE[domain][0](folder)
    _, split = tunable.data
    own = load_split(tunable.config.split, tunable.data[0])
    assert (split.test != own.validation).nnz == 0
    assert split.validation.nnz == 0
    assert own.validation.nnz > 0


def test_the_objective_is_the_sum_that_it_says(found):
    domain, _, report = found
    (row,) = report["rows"].values()
    first = "score_distance" if domain == "recommender" else "leak"
    assert row["best"] == pytest.approx(row["numbers"][first] + row["numbers"]["ndcg_lost"])
    assert row["best"] > 0


def test_a_comparison_takes_the_chosen_values_and_its_report_says_so(found, tmp_path, cli):
    import yaml

    domain, folder, report = found
    path, out = tmp_path / "small.yaml", tmp_path / "compared"
    path.write_text(yaml.safe_dump(TREE if domain == "recommender" else ATTRIBUTES))
    verb, row = ("compare", "fisher") if domain == "recommender" else ("attributes", "distribution")
    given = ("--tuned", folder, "--out", out, "--only", row, "--models", "als")
    outcome = cli("recommender", verb, path, *settings([] if verb == "attributes" else ["retrains=5"]), *given)
    assert outcome.code == 0, outcome.err
    written = json.loads((out / "report.json").read_text())
    chosen = report["rows"][row]["values"]
    assert written["protocol"]["tuning"].startswith("2 trials a row (the steps that the ")
    assert any(
        chosen.items() <= each["settings"].items()
        for each in written["rows"]
        if row in (each.get("method"), each.get("row"), each.get("erasure"))
    )


def test_methods_are_tuned_on_the_models_that_they_are_for(tmp_path):
    tunable = RecommenderTuning(load_config(TREE), Run(tmp_path))
    assert {model for model, _ in tunable._served("fisher")} == {"als"}
    assert "native" not in tunable.rows()
    only = load_config(TREE | {"models": {"ease": {}}})
    assert "fisher" not in RecommenderTuning(only, Run(tmp_path)).rows()
