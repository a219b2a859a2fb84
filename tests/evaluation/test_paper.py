"""The paper's values appear beside a row if and only if its setting is the paper's."""

from dataclasses import replace

import pytest

from msgm.config import load_config
from msgm.evaluation.paper import paper_tables
from msgm.evaluation.published import ALPHA_VALUES, RESULTS
from msgm.evaluation.report import tables
from msgm.evaluation.sweeps import sweep_png, sweep_tables
from msgm.folders import write_json
from msgm.sweep import with_start, with_sweeps
from tests.conftest import ROOT

pytestmark = pytest.mark.usefixtures("rendered")

CLASSES = {"1": "automobile", "5": "dog"}
PUBLISHED = {
    "mnist/ve": {"Standard": "26.8", "Unseen": "4.1", "Ort": "1.2", "Obt": "5.1", "EraseDiff": "2.5"},
    "cifar10/vp": {"Standard": "24.6"},
    "cifar10/ddpm": {"Standard": "27.0", "Unseen": "7.2", "Ort": "8.7", "Obt": "5.2", "EraseDiff": "7.4"},
}


def experiment(name, *overrides, start=None):
    config = load_config(ROOT / "configs" / f"{name}.yaml", list(overrides))
    return with_start(config, start) if start else config


def measured(name, config):
    row = config.rows[name]
    training = config.row_training(row)
    part = {"mean": 3.125, "median": 3.0, "n": 10}
    return {
        "name": name,
        "objective": None if row.start == "none" else row.objective["name"],
        "start": row.start,
        "steps": training.steps,
        "lr": training.lr,
        "unlearning_ratio": {"value": 0.05},
        "unlearning_ratio_closed_set": {"value": 0.0625},
        "junk_rate": 0.1,
        "class_histogram": {"3": 1, "7": 3, "none": 6},
        "nll": {"retain": part, "forget": part | {"mean": 9.5}},
        "measured": {},
    }


def report_of(config, names=None, source=None):
    names = names or [name for name, row in config.rows.items() if not row.optional]
    forgotten = [CLASSES.get(label, label) for label in config.request.labels]
    return {
        "rows": [measured(name, config) for name in names],
        "judge": {"forgotten": forgotten},
        "base": {"source": source, "seconds": 1.0},
    }


def values(table, heading="closed-set UR %"):
    """The paper's values beside the column of that heading, by label; empty where there is no such column."""
    place = table["columns"].index(heading) + 1
    if table["columns"][place : place + 1] != ["paper"]:
        return {}
    return {cells[0]: cells[place] for cells in table["rows"] if cells[place]}


def shown(config, source=None):
    (table,) = paper_tables(config, report_of(config, source=source))
    return values(table)


@pytest.mark.parametrize(
    ("name", "start"), [("mnist/ve", None), ("cifar10/vp", "scratch"), ("cifar10/ddpm", "finetune")]
)
def test_the_papers_values_stand_beside_the_papers_settings(name, start):
    assert shown(experiment(name, start=start)) == PUBLISHED[name]


def test_cells_hold_our_numbers_and_the_papers():
    config = experiment("mnist/ve")
    (table,) = paper_tables(config, report_of(config))
    assert table["title"] == "The paper's Table 2: mnist, ve, from scratch, forget 3 and 7"
    assert table["columns"] == ["method", "row", "closed-set UR %", "paper", "NLL D_g", "paper", "NLL D_f", "paper"]
    rows = {cells[0]: cells[1:] for cells in table["rows"]}
    assert list(rows) == ["Standard", "Unseen", "Ort", "Obt", "EraseDiff"]
    assert rows["Ort"] == ["orthogonal", "6.2", "1.2", "3.12", "3.92", "9.50", "13.23"]
    assert rows["Standard"] == ["do-nothing", "6.2", "26.8", "3.12", "", "9.50", ""]
    assert rows["EraseDiff"][0] == "erasediff-weighted"
    assert any("13.23" in note and "14.75" in note for note in table["notes"])


def test_a_single_class_has_its_own_values():
    config = experiment("cifar10/vp", "request.labels=[1]", start="scratch")
    assert shown(config) == {"Standard": "11.2", "Unseen": "3.4", "Ort": "1.9", "Obt": "0.9", "EraseDiff": "9.7"}


@pytest.mark.parametrize(
    "override",
    [
        "request.labels=[3]",
        "evaluation.samples=9999",
        "data.size=32",
        "training.steps=99999",
    ],
)
def test_no_value_stands_where_a_setting_of_all_rows_differs(override):
    config = experiment("mnist/ve", override)
    (table,) = paper_tables(config, report_of(config))
    assert values(table) == {}
    key = "request" if "labels" in override else override.split("=")[0]
    assert any(key in note for note in table["notes"])


@pytest.mark.parametrize(
    ("override", "method"),
    [
        ("rows.orthogonal.objective.alpha=0.9", "Ort"),
        ("rows.orthogonal.objective.every=1", "Ort"),
        ("rows.orthogonal.objective.variant=inner", "Ort"),
        ("rows.orthogonal.start=finetune", "Ort"),
        ("rows.orthogonal.training.steps=10", "Ort"),
        ("rows.obtuse.objective.floor=1.0", "Obt"),
        ("rows.obtuse.objective.sign=released", "Obt"),
        ("rows.erasediff-weighted.objective.variant=bilevel", "EraseDiff"),
        ("rows.erasediff-weighted.objective.alpha=0.5", "EraseDiff"),
        ("rows.unseen-scratch.training.steps=10", "Unseen"),
    ],
)
def test_no_value_stands_beside_a_row_of_another_setting(override, method):
    config = experiment("mnist/ve", override)
    (table,) = paper_tables(config, report_of(config))
    assert values(table) == {key: value for key, value in PUBLISHED["mnist/ve"].items() if key != method}
    key = override.split("=")[0].split(".", 2)[2]
    assert any(note.startswith(f"{method}: ") and key in note for note in table["notes"])


@pytest.mark.parametrize(
    "override",
    [
        "training.steps=659999",
        "training.batch_size=399",
        "training.lr=1e-4",
        "training.ema=0.999",
        "training.warmup=0",
        "network.channels=[64,128,128,128]",
        "network.dropout=0",
        "data.flip=false",
        "process.beta_max=10",
        "evaluation.samples=5000",
    ],
)
def test_every_setting_of_the_released_configuration_counts(override):
    assert shown(experiment("cifar10/vp", "request.labels=[1]", override, start="scratch")) == {}


def test_fine_tuning_needs_the_papers_steps_and_a_trained_base():
    standard = {"Standard": "27.0"}
    assert shown(experiment("cifar10/ddpm", "finetune.steps=29999")) == standard
    assert shown(experiment("cifar10/ddpm", "training.steps=1000")) == {}


@pytest.mark.parametrize("name", ["mnist/ve_small", "cifar10/vp_small", "cifar10/ddpm_small"])
@pytest.mark.parametrize("start", ["scratch", "finetune"])
def test_the_small_configs_never_match(name, start):
    config = experiment(name, "evaluation.samples=10000", start=start)
    assert all(values(table) == {} for table in paper_tables(config, report_of(config)))


def test_a_given_base_model_counts_by_its_own_settings(tmp_path):
    config = experiment("cifar10/ddpm")
    assert shown(config, str(tmp_path / "foreign" / "model")) == {}
    (tmp_path / "run").mkdir()
    trained = replace(config, rows={}, finetune={})
    (tmp_path / "run" / "config.yaml").write_text(trained.to_yaml())
    write_json(tmp_path / "run" / "manifest.json", {"start": "scratch"})
    assert shown(config, str(tmp_path / "run" / "model")) == PUBLISHED["cifar10/ddpm"]
    short = replace(trained, training=replace(trained.training, steps=5))
    (tmp_path / "run" / "config.yaml").write_text(short.to_yaml())
    assert shown(config, str(tmp_path / "run" / "model")) == {}


def test_a_table_without_a_readable_value_has_its_layout_and_says_so():
    config = experiment("cifar10/vp")
    (table,) = paper_tables(config, report_of(config))
    assert "Table 5" in table["title"]
    assert table["columns"] == ["method", "row", "closed-set UR %", "NLL D_g", "NLL D_f"]
    assert any("could be read" in note for note in table["notes"])


def test_other_data_have_no_table_of_the_paper():
    config = experiment("digits/vp")
    assert paper_tables(config, report_of(config)) == []


def test_what_is_not_measured_stays_empty():
    config = experiment("mnist/ve")
    report = report_of(config)
    for row in report["rows"]:
        del row["nll"], row["unlearning_ratio_closed_set"]
    (table,) = paper_tables(config, report)
    assert {cell for cells in table["rows"] for cell in cells[2::2]} == {"-"}


def swept_report(config, text, *only):
    config, names = with_sweeps(config, [text], list(only))
    return config, report_of(config, names)


def test_table_7_has_the_papers_values_at_its_alphas_and_none_between():
    config, report = swept_report(experiment("mnist/ve"), "objective.alpha=0.7,0.8,0.9,0.99,1.0", "orthogonal")
    (table,) = sweep_tables(config, report)
    expected = {str(alpha): str(found["ur"]) for alpha, found in ALPHA_VALUES.items()}
    assert values(table) == expected
    assert values(table, "NLL D_f")["0.99"] == "14.75"
    assert [cells[0] for cells in table["rows"]] == ["0.7", "0.8", "0.9", "0.99", "1.0", "do-nothing"]
    assert table["rows"][4][1] == "unseen-scratch"


@pytest.mark.parametrize("override", ["rows.orthogonal.objective.every=1", "evaluation.samples=10", "process.name=vp"])
def test_table_7_has_no_value_at_another_setting(override):
    config, report = swept_report(experiment("mnist/ve", override), "objective.alpha=0.7,0.9", "orthogonal")
    (table,) = sweep_tables(config, report)
    assert not {"0.7", "0.9"} & values(table).keys()


def test_the_sweep_of_every_shows_each_forgotten_class():
    config, report = swept_report(experiment("mnist/ve"), "objective.every=4,1", "orthogonal")
    (table,) = sweep_tables(config, report)
    assert table["columns"][-2:] == ["3, no junk %", "7, no junk %"]
    assert [cells[0] for cells in table["rows"][:2]] == ["1 (simultaneous)", "4 (alternating)"]
    assert table["rows"][0][-2:] == ["10.0", "30.0"]


def test_sweeps_are_drawn_also_where_something_is_missing():
    config, report = swept_report(experiment("mnist/ve"), "objective.alpha=0.7,0.9", "orthogonal", "obtuse")
    del report["rows"][-1]["nll"]
    assert (sweep_png(report) or b"").startswith(b"\x89PNG")
    assert sweep_png(report_of(config, ["do-nothing"])) is None


def test_the_papers_tables_follow_the_others_in_a_report():
    config = experiment("mnist/ve")
    report = report_of(config)
    for row in report["rows"]:
        row |= {"seconds": 1.0, "card": None, "settings": {}}
    report |= {
        "seeds": [],
        "retrains": [],
        "failed": {},
        "requests": {"request": {}},
        "paper": paper_tables(config, report),
    }
    assert [table.title for table in tables(report)][-1] == report["paper"][0]["title"]
    assert tables(report)[-1].notes == report["paper"][0]["notes"]


def test_every_published_value_belongs_to_a_method_and_a_measure():
    for published in RESULTS:
        assert published.values.keys() <= {"Standard", "Unseen", "Ort", "Obt", "EraseDiff"}
        assert {key for found in published.values.values() for key in found} <= {"ur", "nll_retain", "nll_forget"}
