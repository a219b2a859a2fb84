"""Records: what they hold, for which facts they are read again, and what they say where a cell has no numbers."""

import json

import numpy as np
import pytest

from msgm.errors import RunError, UserError
from msgm.study.records import (
    FAILED,
    SKIPPED,
    ModelCell,
    RecordCell,
    find_record,
    plain,
    read_record,
    reason,
    reason_record,
    write_record,
)


def test_json_can_hold_what_was_measured():
    value = {1: np.float64(0.5), "list": (1.0, float("nan"), [float("inf")]), "array": np.arange(2), "no": None}
    assert plain(value) == {"1": 0.5, "list": [1.0, None, [None]], "array": [0, 1], "no": None}
    assert type(plain(np.int64(1))) is int


def test_a_record_is_read_for_the_facts_that_it_was_made_with_and_for_no_others(tmp_path):
    path, facts = tmp_path / "row.json", {"seed": 0, "rates": (0.1, 0.2)}
    assert read_record(path, facts) is None
    write_record(path, facts, {"value": np.float32(0.5)})
    assert json.loads(path.read_text()) == {"made": {"seed": 0, "rates": [0.1, 0.2]}, "value": 0.5}
    assert read_record(path, facts) == {"value": 0.5}
    assert read_record(path, facts | {"seed": 1}) is None
    assert read_record(path, {"seed": 0}) is None


def test_a_record_is_found_by_some_of_its_facts(tmp_path):
    path = tmp_path / "row.json"
    assert find_record(path, {}) is None
    write_record(path, {"seed": 0, "rate": 0.1}, {"value": 1})
    assert find_record(path, {"seed": 0}) == {"made": {"seed": 0, "rate": 0.1}, "value": 1}
    assert find_record(path, {"seed": 1}) is None
    assert find_record(path, {"seed": 0, "epochs": 5}) is None


@pytest.mark.parametrize(
    ("record", "words"),
    [
        ({"seconds": 2.0}, "2.000 s"),
        ({"runs": [{"seconds": 1.0}, {"seconds": 2.0}]}, "1.500 s"),
        ({"runs": [{"seconds": 1.0}, {}]}, "done"),
        ({"value": 1.0}, "done"),
        ({"status": SKIPPED, "reason": "it does not fit."}, "it does not fit."),
    ],
)
def test_a_cell_keeps_its_record_and_says_how_it_went(record, words, tmp_path):
    cell = RecordCell("row", tmp_path / "row.json", {"seed": 0}, lambda: record)
    assert not cell.kept()
    assert cell.run() == words
    assert cell.record() == record
    assert cell.kept()


def test_what_failed_is_not_kept_and_what_does_not_fit_is(tmp_path):
    cell = RecordCell("row", tmp_path / "row.json", {}, dict)
    cell.fail({"status": FAILED, "reason": "no."})
    assert (cell.record(), cell.kept()) == ({"status": FAILED, "reason": "no."}, False)
    cell.fail({"status": SKIPPED, "reason": "no."})
    assert cell.kept()


def test_cells_share_a_process_where_they_say_so(tmp_path):
    alone = RecordCell("row", tmp_path, {}, dict)
    shared = RecordCell("row", tmp_path, {}, dict, shares="als", after=["model"])
    assert [(cell.group, list(cell.after), cell.wanted) for cell in (alone, shared)] == [
        ("row", [], True),
        ("als", ["model"], True),
    ]


def test_a_model_is_made_for_others_alone():
    cell = ModelCell("model", lambda: False, lambda: "1.500 s")
    assert (cell.group, list(cell.after), cell.wanted, cell.kept(), cell.run()) == (
        "model",
        [],
        False,
        False,
        "1.500 s",
    )


@pytest.mark.parametrize(
    ("error", "words", "status"),
    [
        (RunError("the loss is not finite."), "the loss is not finite.", FAILED),
        (UserError("it does not fit."), "it does not fit.", SKIPPED),
        (MemoryError(), "the machine has no memory left for this; take smaller batches or less data.", FAILED),
        (ValueError("bad shape.\nshape: 3"), "ValueError: bad shape.", FAILED),
        (ZeroDivisionError(), "ZeroDivisionError.", FAILED),
    ],
)
def test_a_foreseen_error_is_one_sentence(error, words, status, capsys):
    assert reason_record(error) == {"status": status, "reason": words}
    assert capsys.readouterr().err == ""


def test_an_error_that_nobody_foresaw_is_printed_in_full(capsys):
    assert reason(KeyError("a")) == "KeyError: 'a'."
    assert "KeyError: 'a'" in capsys.readouterr().err
