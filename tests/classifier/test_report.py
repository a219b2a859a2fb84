import numpy as np
import pytest
from matplotlib.figure import Figure

from msgm.classifier.figures import _points, distance, report_figures
from msgm.classifier.report import VIEWS
from msgm.solves import Solve
from msgm.study.records import plain, read_record, write_record
from tests.helpers import NASTY, as_name, blocks

pytestmark = pytest.mark.usefixtures("rendered")


def number(value, inside=True, low=0.4, high=0.6, seeds=2):
    band = {"mean": (low + high) / 2, "sd": 0.04, "low": low, "high": high, "count": 5}
    place = None if inside is None else "inside" if inside else "above"
    found = {"value": value, "low": None, "high": None, "seeds": seeds, "band": band, "inside": inside}
    return found | {"place": place, "noticed": 0.2}


def row(method, acc, inside, request="few"):
    judged = {"numbers": 1, "retrains": 5, "false_alarms": 0.05, "held_out_inside": 5}
    return {
        "method": method,
        "request": request,
        "metrics": {"acc": number(acc, inside), "same": number(0.9, None)},
        "judged": judged,
        "effect": None,
        "share_of_retraining": 0.5,
    }


def test_rows_stand_with_controls_first_then_by_their_share_inside():
    rows = [row("worst", 0.9, False), row("retrain", 0.5, True), row("best", 0.5, True), row("do-nothing", 0.9, False)]
    report = {"rows": [*rows, row("best", 0.5, True, request="other")]}
    assert [r["method"] for r in VIEWS.rows(report, "few")] == ["do-nothing", "retrain", "best", "worst"]


def table_of(**metrics):
    asked = {"text": "t", "n": 3, "scope": "class", "near_duplicates": None, "target": "observed"}
    found = row("a", 0.5, True) | {"metrics": metrics, "retrain_seconds": 1.0, "seconds": 0.5, "family": "edit"}
    return VIEWS.tables({"rows": [found], "requests": {"few": asked}, "left_out": []})["few"]


def test_test_accuracy_is_that_on_the_classes_to_retain_where_classes_are_forgotten():
    table = table_of(test_accuracy=number(0.7), test_accuracy_retained=number(0.9))
    assert table.head.count("TA %") == 1
    assert table.rows[1][table.head.index("TA %")] == "90.0"
    table = table_of(test_accuracy=number(0.7), test_accuracy_retained=number(None, None))
    assert table.rows[1][table.head.index("TA %")] == "70.0"


def test_a_band_is_shown_within_the_bounds_of_its_number_and_zero_without_a_sign():
    table = table_of(
        test_accuracy=number(-0.0001, True, -0.0001, 1.2) | {"bounds": [0, 1]}, tow=number(-1e-9, True, -1, 1.2)
    )
    assert table.rows[0][1:3] == ["0.0..100.0", "-1.000..1.200"]
    assert table.rows[1][1:3] == ["0.0", "0.000"]


@pytest.mark.parametrize(
    ("entry", "expected"),
    [
        (number(0.5), 0),
        (number(0.6), 1),
        (number(0.3, False), 2),
        (number(0.5, True, 0.5, 0.5), 0),
        (number(0.6, False, 0.5, 0.5), np.inf),
    ],
)
def test_distances_count_in_half_widths_of_the_band(entry, expected):
    assert distance(entry) == pytest.approx(expected)


def test_points_of_a_scatter_are_told_apart_by_a_legend_not_by_labels_that_overlap():
    axes = Figure().subplots()
    rows = [row(f"m{k}", 0.5, True) | {"family": "edit"} for k in range(20)] + [
        row("retrain", 0.5, True) | {"family": "exact"}
    ]
    _points(axes, rows, [[0.5, 0.5]] * len(rows))
    looks = [(line.get_color(), line.get_marker()) for line in axes.lines]
    assert len(set(looks)) == len(rows)
    assert [text.get_text() for text in axes.get_legend().get_texts()] == [r["method"] for r in rows]
    assert not axes.texts


def test_distance_without_a_band_is_not_a_number():
    assert np.isnan(distance(number(0.5, None) | {"band": None}))


def test_a_record_is_read_for_the_settings_it_was_made_with_alone(tmp_path):
    facts = {"seed": 1, "shape": (2, 3)}
    write_record(tmp_path / "r.json", facts, {"seconds": 2.0})
    assert read_record(tmp_path / "r.json", facts) == {"seconds": 2.0}
    assert read_record(tmp_path / "r.json", facts | {"seed": 2}) is None
    assert read_record(tmp_path / "none.json", facts) is None


def test_what_json_cannot_hold_becomes_plain():
    value = {"a": np.float64("nan"), 3: (np.int64(4), float("inf")), "b": np.array([1.5, np.nan]), "c": True}
    assert plain(value) == {"a": None, "3": [4, None], "b": [1.5, None], "c": True}


def named_report(text):
    """A report in which every text that a user may write is this one."""
    asked = {"text": text, "n": 3, "scope": text, "near_duplicates": None, "target": "observed"}
    name = as_name(text)
    rows = [row(method, 0.5, True, request=name) for method in ("do-nothing", f"m {name}")]
    for each in rows:
        each["metrics"] |= {"forget_accuracy": number(0.5), "test_accuracy": number(0.5)}
        for entry in each["metrics"].values():
            entry["section"] = "utility"
        each |= {"settings": {text: text}, "card": "formula: a", "family": "edit", "retrain_seconds": 1.0}
        each["seconds"] = 0.5
    left = {"request": name, "method": text, "status": text, "seeds": [0], "reason": text}
    return {
        "title": text,
        "requests": {name: asked},
        "rows": rows,
        "left_out": [left],
        "protocol": {text: text},
        "data": {"name": text, "digest": "0", "n": {"items": 3}},
        "network": {},
        "training": {},
        "seeds": [0],
        "environment": {"versions": {}},
    }


def test_items_without_controls_are_said():
    report = {"rows": [], "left_out": [], "requests": {"few": {"n": 9, "near_duplicates": None, "target": "observed"}}}
    assert not any("have no control" in note for note in VIEWS.notes(report, "few"))
    report["requests"]["few"]["without_controls"] = 4
    assert VIEWS.notes(report, "few")[0].startswith("4 of the 9 items to forget have no control")


def test_texts_of_users_change_nothing_around_them():
    assert blocks(VIEWS.markdown(named_report(NASTY))) == blocks(VIEWS.markdown(named_report("x")))


def test_figures_draw_any_name():
    assert len(report_figures(named_report(r"$\frac$ _x")["rows"])) == 2


def test_cells_outside_the_band_are_told_from_names_with_a_star():
    table = table_of(forget_accuracy=number(0.9, False), tow=number(0.9))
    cells = dict(zip(table.head, table.rows[1], strict=True))
    assert cells["FA %"] == "90.0*"
    assert [name for name, cell in cells.items() if getattr(cell, "outside", False)] == ["FA %"]


def test_a_solver_that_did_not_converge_is_said_in_the_table():
    report = named_report("x")
    assert "solver" not in next(iter(VIEWS.tables(report).values())).head
    report["rows"][1]["solve"] = Solve(2.7, 1e-3, 20).facts()
    table = next(iter(VIEWS.tables(report).values()))
    assert [line[table.head.index("solver")] for line in table.rows] == ["", "", "not converged"]
    assert any(note.startswith("m x is not converged: relative residual 2.7") for note in table.notes)
    assert "not converged" in VIEWS.markdown(report)
