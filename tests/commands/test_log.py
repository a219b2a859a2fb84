"""``msgm data LOG``: the account of an interaction log."""

import re

import pytest

from msgm.recommender.data import load_interactions
from msgm.settings import parse_settings

pytest.importorskip("pyarrow", reason="logs are read by pyarrow, which is not installed")

LINES = ["customer,sku,stars,at", "ann,tea,5,2024-05-31", "bob,tea,4,2024-06-01", "", "ann,tea,2,2024-06-02", "eve,mug"]
NAMES = ["--set", "data.user=customer", "--set", "data.item=sku", "--set", "data.time=at"]


@pytest.fixture
def log(tmp_path):
    (tmp_path / "events.csv").write_text("\n".join(LINES))
    return tmp_path / "events.csv"


def test_a_log_is_told_by_columns_rows_and_first_lines(cli, log):
    shown = cli("data", log, *NAMES)
    assert shown.code == 0, shown.err
    lines = [" ".join(line.split()) for line in shown.out.splitlines()]
    assert lines[:9] == [
        f"{log}: ',' between columns, named by line 1",
        "column customer: user",
        "column sku: item",
        "column stars: not read",
        "column at: time",
        "rows 4",
        "malformed 1",
        "repeated 1",
        "interactions left 2",
    ]
    assert f"{log}, line 6: expected 4 columns, found 2" in lines
    assert lines[lines.index("rows that a later one of the same user and item replaces, all of 1:") + 1].endswith(
        "line 2"
    )
    assert "2 users, 1 items, 2 interactions, from 2024-06-01 to 2024-06-02" in lines


def test_the_section_that_is_printed_reads_the_same_data(cli, log):
    printed = cli("data", log, *NAMES, "--set", "data.rating=stars", "--set", "data.threshold=4").out
    assert "rated below 4.0    1" in printed
    section = parse_settings(printed.partition("the same in a config:\n")[2], "printed")
    assert load_interactions(section["data"]).users.ids == ["bob"]


def test_ratings_that_are_kept_are_told_by_their_range(cli, log):
    shown = cli("data", log, *NAMES, "--set", "data.rating=stars", "--set", "data.feedback=explicit")
    assert "ratings from 2 to 4" in shown.out


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        ([], "data.user: .*events.csv has no column 'user'"),
        (["--set", "models.ease={}"], "--set: models is no setting of a log"),
        (["--seed", "3"], "--set: seed is no setting of a log"),
        (["--set", "data.name=table"], "data.name: .* is read as log; give no other name"),
        (["--requests", "few"], "--requests: .* is a log, which has no requests"),
        ([*NAMES, "--set", "data.malformed=error"], "line 6: expected 4 columns, found 2; set data.malformed to drop"),
    ],
)
def test_what_is_no_setting_of_a_log_is_refused(cli, log, arguments, sentence):
    refused = cli("data", log, *arguments)
    assert refused.code == 2
    assert re.search(sentence, refused.err), refused.err
