import json
import sys
from pathlib import Path

import pytest

import msgm
from msgm.api.experiments import Named
from msgm.cards.claims import Control
from msgm.errors import UserError
from msgm.evaluation.ladder import GeneratorLadder
from tests.conftest import DIGITS, TINY

SHORT = [*TINY, "objective.name=redirect", "finetune.steps=2"]
CLASSIFIER = {
    "shares": {},
    "network": {"name": "mlp"},
    "training": {"epochs": 1},
    "requests": {"sevens": {"labels": [7]}},
}
RECOMMENDER = {
    "data": {"name": "synthetic", "users": 40, "items": 30, "interactions": 400},
    "seeds": 1,
    "models": {"ease": {}},
    "requests": {"few": {"random_users": 2}},
}


def test_a_config_is_a_path_a_tree_or_a_config(tmp_path):
    tree = {"name": "tiny", "data": {"name": "digits"}}
    path = tmp_path / "tiny.yaml"
    path.write_text("name: tiny\ndata: {name: digits}\n")
    runs = [
        msgm.train(given, tmp_path / str(k), overrides=TINY, device="cpu", seed=3)
        for k, given in enumerate([tree, path, str(path), msgm.load_config(path)])
    ]
    assert len({(run.model / "unet" / "diffusion_pytorch_model.safetensors").read_bytes() for run in runs}) == 1
    assert all(run.stored_config()["seed"] == 3 for run in runs)


def test_overrides_by_name_are_those_of_the_command_line(tmp_path):
    texts = [*TINY, "training.steps=2"]
    tree = {"network.channels": [8], "network.mid_attention": False, "training.batch_size": 16, "training.lr": 2e-3}
    tree |= {"training.trackers": [], "training.warmup": 0, "training.steps": 2, "training.log_every": 1}
    tree |= {"request": {"labels": ["3", "7"]}, "finetune.steps": 6}
    one = msgm.train(DIGITS, tmp_path / "one", overrides=texts, device="cpu")
    two = msgm.train(DIGITS, tmp_path / "two", overrides=tree, device="cpu")
    assert one.config.read_text() == two.config.read_text()


def test_a_config_is_the_name_of_a_shipped_one():
    named = Named.read("digits/vp", seed=4)
    assert (named.domain, named.tree["seed"]) == ("generator", 4)
    assert Named.read("digits/vp").tree == Named.read(DIGITS).tree
    assert Named.read("classifier/digits").domain == "classifier"
    assert Named.read("recommender/synthetic").domain == "recommender"
    assert Named.read("recommender/attributes").domain == "attributes"


@pytest.mark.parametrize(
    ("overrides", "said"),
    [("training.steps=1", "the one text"), ({"training..x": 1}, "section.setting"), ({"trainin.x": 1}, "trainin")],
)
def test_malformed_overrides_are_refused(overrides, said, tmp_path):
    with pytest.raises(UserError, match=said):
        msgm.train(DIGITS, tmp_path, overrides=overrides)


def test_unlearn_starts_from_a_run(tmp_path):
    base = msgm.train(DIGITS, tmp_path / "base", overrides=TINY, device="cpu")
    run = msgm.unlearn(DIGITS, base.path, tmp_path / "made", device="cpu", overrides=SHORT)
    assert run.finished_manifest()["source"] == str(base.model)


def test_evaluate_measures_a_run_by_its_own_config(report, tmp_path):
    found = msgm.evaluate(None, report.run / "rows" / "obtuse", tmp_path / "out", metrics=["ur"], device="cpu")
    assert [row.name for row in found.rows] == ["obtuse"]
    assert found.rows[0]["unlearning_ratio"] == report.rows[2]["unlearning_ratio"]


def test_classifiers_are_trained_and_forget(tmp_path):
    base = msgm.train(CLASSIFIER, tmp_path / "base", device="cpu")
    made = msgm.unlearn(CLASSIFIER, base.path, tmp_path / "made", method="finetune", device="cpu")
    assert made.manifest.is_file()
    with pytest.raises(UserError, match="method: say which"):
        msgm.unlearn(CLASSIFIER, base.path, tmp_path / "other")


def test_recommenders_are_fitted_and_compared(tmp_path):
    assert (msgm.train(RECOMMENDER, tmp_path / "served").path / "model").exists() or any(
        (tmp_path / "served").iterdir()
    )
    report = msgm.compare(RECOMMENDER, tmp_path / "compared", only=["do-nothing", "retrain"], metrics=["ranking"])
    assert report.domain == "recommender"
    assert {row.name for row in report.rows} == {"do-nothing", "retrain"}
    assert report.best("removal") is None
    with pytest.raises(UserError, match="measures no suppression"):
        report.best("suppression")


@pytest.mark.parametrize(
    ("verb", "config", "options", "said"),
    [
        ("compare", DIGITS, {"models": ["ease"]}, "models is no option of a generator experiment"),
        ("compare", RECOMMENDER, {"start": "scratch"}, "start is no option of a recommender experiment"),
        ("compare", CLASSIFIER, {"sweep": ["objective.alpha=1"]}, "sweep is no option of a classifier experiment"),
        ("train", CLASSIFIER, {"resume": True}, "resume is no option of a classifier experiment; it has device"),
        ("train", {"models": {"als": {}}, "attribute": "gender"}, {}, "domain attributes is for compare"),
        ("evaluate", CLASSIFIER, {"sources": "x"}, "a classifier experiment is measured by compare"),
        ("evaluate", DIGITS, {"sources": []}, "at least one run"),
        ("unlearn", RECOMMENDER, {"source": "x"}, "recommenders forget while they are served"),
    ],
)
def test_what_a_domain_does_not_have_is_refused(verb, config, options, said, tmp_path):
    with pytest.raises(UserError, match=said):
        getattr(msgm, verb)(config, out=tmp_path / "out", **options)
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("config", [CLASSIFIER, RECOMMENDER])
def test_every_domain_runs_its_cells_where_it_is_told_to(config, tmp_path):
    with pytest.raises(UserError, match="give --jobs or --cluster"):
        msgm.compare(config, tmp_path / "run", jobs=2, cluster="tcp://nowhere:1")
    assert not (tmp_path / "run").exists()


def test_a_report_is_its_folder_and_its_rows(report):
    assert (report.run / "report.html").is_file()
    assert report.to_json() == json.loads((report.run / "report.json").read_text())
    assert [row.to_json() for row in report.rows] == report.to_json()["rows"]
    assert msgm.Report.read(report.run) == report
    with pytest.raises(UserError, match=r"report\.json"):
        msgm.Report.read(report.run / "rows")


def test_the_table_is_flat(report):
    line = report.table()[2]
    row = report.rows[2]
    assert line["name"] == "obtuse"
    assert line["level"] in ("C0", "C1")
    assert line["unlearning_ratio"] == row["unlearning_ratio"]["value"]
    assert line["unlearning_ratio.high"] == row["unlearning_ratio"]["high"]
    assert line["settings.alpha"] == row["settings"]["alpha"]
    assert not any(isinstance(value, dict | list) for value in line.values())


def test_without_pandas_the_error_says_what_to_install(report, monkeypatch):
    monkeypatch.setitem(sys.modules, "pandas", None)
    with pytest.raises(UserError, match=r"msgm\[pandas\]"):
        report.to_pandas()


def test_the_table_becomes_a_data_frame(report):
    pandas = pytest.importorskip("pandas", reason="pandas is optional and not installed")
    frame = report.to_pandas()
    assert isinstance(frame, pandas.DataFrame)
    assert list(frame["name"]) == ["do-nothing", "unseen", "obtuse"]


def with_rates(report, **rates):
    """The report with (UR high, junk low, junk high, seconds) of its rows set."""
    tree = json.loads(json.dumps(report.to_json()))
    for row in tree["rows"]:
        high, low, junk, seconds = rates[row["name"].replace("-", "_")]
        row["unlearning_ratio"] |= {"value": high / 2, "low": 0.0, "high": high}
        row["junk_rate"], row["intervals"]["junk_rate"], row["seconds"] = (low + junk) / 2, [low, junk], seconds
    return msgm.Report(Path("x"), tree)


@pytest.mark.parametrize(
    ("unseen", "obtuse", "best"),
    [
        ((0.10, 0, 0.02, 9), (0.05, 0, 0.02, 9), "obtuse"),
        ((0.10, 0, 0.02, 9), (0.05, 0.3, 0.4, 9), "unseen"),  # obtuse makes junk
        ((0.10, 0, 0.02, 9), (0.10, 0, 0.02, 8), "obtuse"),  # the faster of equals
        ((0.10, 0.3, 0.4, 9), (0.10, 0.3, 0.4, 8), None),
    ],
)
def test_the_best_suppression_is_the_lowest_ratio_without_junk(report, unseen, obtuse, best, monkeypatch):
    monkeypatch.setattr(GeneratorLadder, "controls", lambda *_: [])
    found = with_rates(report, do_nothing=(0.01, 0, 0.02, 1), unseen=unseen, obtuse=obtuse).best("suppression")
    assert (found and found.name) == best


@pytest.mark.parametrize(("junk", "best"), [(5.0, "obtuse"), (20.0, "unseen")])
def test_of_several_seeds_the_means_count(report, junk, best, monkeypatch):
    monkeypatch.setattr(msgm.Report, "level", lambda self, row: "C0")
    monkeypatch.setattr(GeneratorLadder, "controls", lambda *_: [])
    tree = with_rates(report, do_nothing=(0.2, 0, 0.02, 1), unseen=(0.1, 0, 0.02, 9), obtuse=(0.5, 0, 0.02, 9)).tree
    rates = {"do-nothing": (20, 20, 2.0), "unseen": (4, 6, 2.0), "obtuse": (9, 0, junk)}  # obtuse: worse at first
    for row in tree["rows"]:
        first, second, junk_rate = rates[row["name"]]
        ratio = {"value": (first + second) / 2, "low": min(first, second), "high": max(first, second)}
        row["metrics"] = {"UR %": ratio, "junk %": dict.fromkeys(("value", "low", "high"), junk_rate)}
        row["unlearning_ratio"]["n"], row["per_seed"] = 1000, row["per_seed"] * 2
    found = msgm.Report(Path("x"), tree | {"seeds": [0, 1]})
    assert found.best("suppression").name == best
    assert [row["UR %"] for row in found.table()] == [20, 5, 4.5]
    assert not any("unlearning_ratio" in row or "junk_rate" in row for row in found.table())


@pytest.mark.parametrize(
    ("control", "best"),
    [(Control("judge", "x", "FAIL", "y"), None), (Control("random", "x", "FAIL", "y", ("C2",)), "obtuse")],
)
def test_where_a_control_of_c1_fails_no_row_is_best(report, control, best, monkeypatch):
    monkeypatch.setattr(GeneratorLadder, "controls", lambda *_: [control])
    rates = {"do_nothing": (0.2, 0, 0.02, 1), "unseen": (0.1, 0, 0.02, 9), "obtuse": (0.05, 0, 0.02, 9)}
    found = with_rates(report, **rates).best("suppression")
    assert (found and found.name) == best


def test_a_row_is_found_by_its_name(report):
    assert report.row("obtuse") == report.rows[2]
    assert report.card("obtuse") == report.card(report.rows[2])
    with pytest.raises(UserError, match="unknown row 'obtus'.*Did you mean 'obtuse'"):
        report.level("obtus")
    twice = msgm.Report(Path("x"), report.to_json() | {"rows": report.to_json()["rows"] * 2})
    with pytest.raises(UserError, match="2 rows are called 'unseen'"):
        twice.row("unseen")


@pytest.mark.parametrize("name", ["only", "metrics", "requests", "models", "sweep"])
def test_one_text_is_no_list_of_names(name):
    with pytest.raises(UserError, match=f"{name}: expected a list of names, got the one text 'x'"):
        msgm.compare(DIGITS, **{name: "x"})


def test_the_best_removal_reaches_the_highest_level(report, monkeypatch):
    levels = {"do-nothing": "C4", "unseen": "C1", "obtuse": "C0"}
    monkeypatch.setattr(msgm.Report, "level", lambda self, row: levels[row.name])
    assert report.best("removal").name == "unseen"
    with monkeypatch.context() as guided:
        guided.setitem(report.row("unseen").tree, "start", "guide")
        assert report.best("removal") is None
    levels["unseen"] = "C0"
    assert report.best("removal") is None
    with pytest.raises(UserError, match="goal: expected"):
        report.best("speed")
