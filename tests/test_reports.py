"""``msgm report`` and ``msgm compare`` on reports that are damaged, or that somebody else made."""

import json
import shutil

import pytest

from msgm.cli import main
from tests.conftest import DIGITS, TINY, settings

FAST = [
    *TINY,
    "evaluation={samples: 8, nll_items: 4, metrics: [ur, nll], likelihood: {steps: 2}, judge: {epochs: 1, width: 8}}",
    "sampling.steps=2",
]
COMPARE = ["compare", str(DIGITS), *settings(FAST), "--only", "do-nothing,unseen"]


@pytest.fixture(scope="module")
def compared(tmp_path_factory):
    out = tmp_path_factory.mktemp("compared") / "run"
    assert main([*COMPARE, "--out", str(out)]) == 0
    return out


@pytest.fixture
def copy(compared, tmp_path):
    shutil.copytree(compared, tmp_path / "run")
    return tmp_path / "run"


def changed(path, change):
    tree = json.loads(path.read_text())
    change(tree)
    path.write_text(json.dumps(tree))


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (lambda report: report.pop("rows"), "rows: expected a list of at least one row"),
        (lambda report: report.update(rows=[]), "rows: expected a list of at least one row"),
        (lambda report: report.update(rows=[1]), "rows[0]: expected an object"),
        (lambda report: report.update(kind="else"), "kind: expected the name of a domain"),
        (lambda report: report.pop("judge"), "it cannot be shown (it has no 'judge')"),
        (lambda report: report.update(protocol=3), "it cannot be shown"),
        (lambda report: report["rows"][0].update(nll="x"), "it cannot be shown"),
        (lambda report: report["rows"][0].update(grid=7), "rows[].grid of the report"),
    ],
)
def test_a_report_that_is_not_as_it_was_written_is_refused(change, said, copy, cli):
    changed(copy / "report.json", change)
    done = cli("report", copy)
    assert (done.code, done.err.count("\n")) == (2, 1)
    assert said in done.err


@pytest.mark.parametrize("content", [b"", b"\x89PNG", b"text", None])
def test_a_sample_grid_that_is_no_picture_is_named(content, copy, cli):
    grid = copy / "rows" / "unseen" / "samples" / "final.png"
    grid.write_bytes(grid.read_bytes()[:60] if content is None else content)
    done = cli("report", copy)
    assert (done.code, done.err.count("\n")) == (2, 1)
    assert f"{grid} is damaged or no PNG picture" in done.err


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (lambda row: row.update(name="other"), "name: expected 'unseen', got 'other'"),
        (lambda row: row.pop("measured"), "measured: expected an object of values by name, got nothing"),
        (lambda row: row["nll"].update(retain={}), "it cannot be shown (it has no 'mean')"),
    ],
)
def test_a_row_that_was_measured_before_and_is_damaged_is_named(change, said, copy, cli):
    row = copy / "rows" / "unseen" / "report.json"
    changed(row, change)
    done = cli(*COMPARE, "--out", copy)
    assert (done.code, done.err.count("\n")) == (2, 1)
    assert str(row) in done.err
    assert said in done.err
