import sys

import pytest

from msgm.errors import UserError
from msgm.recommender.data import load_interactions
from msgm.tabular import read_ids

ROWS = {"user": ["b", "a", "b"], "item": ["x", "x", "y"], "rating": [1.5, 2.0, 5.0], "time": [30, 10, 20]}
NAMED = {"rating": "rating", "time": "time"}


def csv(folder, rows=ROWS, name="data.csv", delimiter=","):
    lines = [list(rows), *zip(*rows.values(), strict=True)]
    (folder / name).write_text("".join(delimiter.join(map(str, line)) + "\n" for line in lines))
    return {"name": "table", "path": str(folder / name)}


def parquet(folder, rows=ROWS):
    pytest.importorskip("pyarrow", reason="Parquet is read by pyarrow, which is not installed")
    from pyarrow import parquet, table

    parquet.write_table(table(rows), folder / "data.parquet")
    return {"name": "table", "path": str(folder / "data.parquet")}


@pytest.mark.parametrize("write", [csv, lambda f: csv(f, name="data.tsv", delimiter="\t"), parquet])
def test_named_columns_are_read_from_every_format(tmp_path, write):
    data = load_interactions(write(tmp_path) | NAMED | {"feedback": "explicit"})
    assert data.matrix.toarray().tolist() == [[2, 0], [1.5, 5]]
    assert data.times.tolist() == [10, 30, 20]


def test_dates_are_seconds_since_1970_in_utc(tmp_path):
    dates = ["1970-01-02", "1970-01-01T00:00:10Z", "1970-01-01 01:00:20+01:00"]
    data = load_interactions(csv(tmp_path, ROWS | {"time": dates}) | {"time": "time"})
    assert data.times.tolist() == [10, 86400, 20]


def test_a_csv_with_semicolons_is_named_so(tmp_path):
    with pytest.raises(UserError, match=r"data\.csv, line 1: the columns are separated by ';'; expected commas"):
        load_interactions(csv(tmp_path, delimiter=";"))


def test_columns_that_are_not_named_are_left_alone(tmp_path):
    data = load_interactions(
        csv(tmp_path, {"uid": [1, 2], "iid": [3, 3], "val": ["?", "?"]}) | {"user": "uid", "item": "iid"}
    )
    assert (data.users.ids, data.items.ids, data.times) == (["1", "2"], ["3"], None)


def test_numbers_in_parquet_are_the_same_ids_as_in_csv(tmp_path):
    rows = {"user": [1, 2, 10], "item": [7, 7, 8]}
    assert load_interactions(parquet(tmp_path, rows)).digest() == load_interactions(csv(tmp_path, rows)).digest()


def test_a_second_table_gives_attributes(tmp_path, capsys):
    users = csv(tmp_path, {"user": ["a", "b"], "group": ["red", "blue"]}, "users.csv")["path"]
    data = load_interactions(csv(tmp_path) | {"attributes": users})
    assert data.attributes["group"].tolist() == ["red", "blue"]
    assert not capsys.readouterr().out


def test_users_of_the_second_table_without_interactions_are_counted(tmp_path, capsys):
    users = csv(tmp_path, {"user": ["a", "b", "c"], "group": ["red", "blue", "red"]}, "users.csv")["path"]
    load_interactions(csv(tmp_path) | {"attributes": users})
    assert "users.csv: 1 of 3 users have no interaction in the data and are left out" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("changed", "settings", "sentence"),
    [
        ({"rating": [1, "x", 2]}, NAMED, "data.csv, line 3, column 'rating': expected a number, got 'x'"),
        ({"rating": [1, "nan", 2]}, NAMED, "data.csv, line 3, column 'rating': expected a number, got 'nan'"),
        ({"time": [1, "noon", 2]}, NAMED, "data.csv, line 3, column 'time': expected seconds since 1970, got 'noon'"),
        (
            {"time": ["2024-05-31", "noon", 2]},
            NAMED,
            "line 3, column 'time': expected seconds .* ISO 8601, got 'noon'",
        ),
        (
            {"user": ["b", "", "b"]},
            {},
            "data.csv, line 3, column 'user': expected an id .*, got an empty cell",
        ),
        ({"user": ["b", "b", "b"]}, {}, "data.csv, line 3: user b and item x are given twice; set data.duplicates"),
        ({"user": ["b", "a,c", "b"]}, {}, "data.csv, line 3: expected 4 columns, found 5"),
        ({}, {"user": "usr"}, "data.user: .*data.csv has no column 'usr'; its columns are .* Did you mean 'user'"),
        ({}, {"rating": "stars"}, "data.rating: .* has no column 'stars'"),
        ({}, {"feedback": "explicit"}, "data.feedback explicit needs ratings, and the data hold none"),
    ],
)
def test_malformed_tables_are_refused(tmp_path, changed, settings, sentence):
    with pytest.raises(UserError, match=sentence):
        load_interactions(csv(tmp_path, ROWS | changed) | settings)


def test_an_absent_value_in_parquet_is_named_by_row(tmp_path):
    with pytest.raises(UserError, match=r"data\.parquet, row 2, column 'item': expected an id .*, got an empty cell"):
        load_interactions(parquet(tmp_path, ROWS | {"item": ["x", None, "y"]}))
    with pytest.raises(UserError, match=r"data\.parquet, row 3, column 'rating': expected a number, got nan"):
        load_interactions(parquet(tmp_path, ROWS | {"rating": [1.0, 2.0, float("nan")]}) | NAMED)


def test_files_that_are_no_tables_are_refused(tmp_path):
    (tmp_path / "data.parquet").write_bytes(b"not parquet")
    pytest.importorskip("pyarrow", reason="Parquet is read by pyarrow, which is not installed")
    with pytest.raises(UserError, match=r"cannot read .*data\.parquet"):
        load_interactions({"name": "table", "path": str(tmp_path / "data.parquet")})
    with pytest.raises(UserError, match=r"data\.xls is of no known kind; expected a \.csv, \.tsv, \.parquet"):
        load_interactions({"name": "table", "path": "data.xls"})
    with pytest.raises(UserError, match="data.path: say which table"):
        load_interactions("table")


def test_without_pyarrow_one_sentence_says_how_to_get_it(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "pyarrow.parquet", None)
    with pytest.raises(UserError, match="reading Parquet needs pyarrow; get it with pip install pyarrow"):
        load_interactions({"name": "table", "path": "data.parquet"})


def test_attributes_follow_ids_however_they_are_stored(tmp_path):
    log = csv(tmp_path, {"user": [1, 2], "item": ["x", "y"]})
    users = parquet(tmp_path, {"user": [1.0, 2.0], "height": [1.8, float("nan")], "group": ["red", None]})["path"]
    data = load_interactions(log | {"attributes": users})
    assert {name: values.tolist() for name, values in data.attributes.items()} == {
        "height": ["1.8", ""],
        "group": ["red", ""],
    }


def test_the_text_nan_is_a_users_id_and_no_value_of_an_attribute(tmp_path):
    log = csv(tmp_path, {"user": ["nan", "NULL"], "item": ["x", "y"]})
    assert load_interactions(log).users.ids == ["NULL", "nan"]
    users = csv(tmp_path, {"user": ["nan", "NULL"], "group": ["red", "nan"]}, "users.csv")["path"]
    with pytest.raises(UserError, match=r"users\.csv, line 3, column 'group': expected an attribute, or an empty cell"):
        load_interactions(log | {"attributes": users})


def test_a_request_finds_what_the_log_holds(tmp_path):
    (tmp_path / "log.tsv").write_bytes(b'\xef\xbb\xbfuser\t item\r\n"u1"\tx\r\n u2 \t"y"\r\n\r\n"a\tb"\tx\r\n')
    data = load_interactions({"name": "table", "path": str(tmp_path / "log.tsv")})
    (tmp_path / "ids").write_bytes(b'\xef\xbb\xbf u1\r\n\r\n"u2"\r\n"a\tb"\r\n')
    assert sorted(read_ids(tmp_path / "ids")[0]) == sorted(data.users.ids) == ["a\tb", "u1", "u2"]
