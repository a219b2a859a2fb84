import gzip

import numpy as np
import pytest

from msgm.errors import UserError
from msgm.recommender.data import load_interactions
from msgm.recommender.data.log import Log
from msgm.tabular import logs

pytest.importorskip("pyarrow", reason="logs are read by pyarrow, which is not installed")

NAMED = {"rating": "rating", "time": "time"}


def written(folder, *lines, name="log.csv"):
    content = "\n".join(lines).encode()
    (folder / name).write_bytes(gzip.compress(content) if name.endswith(".gz") else content)
    return {"path": str(folder / name)}


def read(settings, **more):
    return Log(**settings, **more).read()


@pytest.fixture
def drawn(tmp_path):
    """A thousand rows in random order, as CSV, as ``::`` without names in gzip, and as Parquet."""
    from pyarrow import parquet, table

    rng = np.random.default_rng(0)
    pairs = np.unique(rng.integers(0, 60, (1_000, 2)), axis=0)
    pairs = pairs[rng.permutation(len(pairs))]
    columns = {"user": pairs[:, 0], "item": 100 + pairs[:, 1]}
    columns |= {"rating": rng.integers(1, 6, len(pairs)), "time": rng.integers(10**9, 2 * 10**9, len(pairs))}
    rows = [",".join(map(str, row)) for row in zip(*columns.values(), strict=True)]
    parquet.write_table(table(columns), tmp_path / "log.parquet")
    return [
        written(tmp_path, ",".join(columns), *rows),
        written(tmp_path, *(row.replace(",", "::") for row in rows), name="log.dat.gz"),
        {"path": str(tmp_path / "log.parquet")},
    ]


@pytest.mark.parametrize("feedback", ["implicit", "explicit"])
def test_every_kind_of_log_gives_the_data_of_the_table_source(drawn, monkeypatch, feedback):
    monkeypatch.setattr(logs, "CHARACTERS", 1_000)
    monkeypatch.setattr(logs, "ROWS", 50)
    settings = NAMED | {"feedback": feedback, "min_count": 3}
    table = load_interactions({"name": "table"} | drawn[0] | settings)
    for path in drawn:
        data = load_interactions({"name": "log"} | path | settings)
        assert data.digest() == table.digest()
        assert (data.times == table.times).all()
        assert data.explicit == table.explicit


def test_only_named_columns_are_read(tmp_path):
    data, account = read(written(tmp_path, "user,item,rating", "a,x,?"))
    assert data.times is None
    assert account.columns == {"user": "user", "item": "item"}


def test_the_account_counts_every_row_once(tmp_path):
    malformed = ["b,x,4,?", "b,x", ",x,3,5"]
    fit = ["b,x,3,5", "b,y,4,6", "a,y,3,7", "a,z,2,8", "c,y,5,7"]  # z is rated below, and then c is rare
    settings = written(tmp_path, "user,item,rating,time", "a,x,1,10", "", "a,x,5,20", *malformed, *fit) | NAMED
    data, account = read(settings, malformed="drop", duplicates="last", threshold=3.0, min_count=2)
    assert (account.rows, account.refused, account.repeated, account.below, account.rare) == (10, 3, 1, 1, 1)
    assert (data.users.ids, data.items.ids, data.matrix.nnz) == (["a", "b"], ["x", "y"], 4)
    assert account.first_refused == [
        f"{tmp_path / 'log.csv'}, {fault}"
        for fault in (
            "line 5, column 'time': expected seconds since 1970, got '?'",
            "line 6: expected 4 columns, found 2",
            "line 7, column 'user': expected an id as text or as a whole number, got an empty cell",
        )
    ]
    assert account.first_repeated == [f"{tmp_path / 'log.csv'}, line 2"]


def test_an_id_of_malformed_rows_alone_is_no_user(tmp_path):
    data, _ = read(written(tmp_path, "user,item,rating", "a,x,1", "b,y,?") | {"rating": "rating"}, malformed="drop")
    assert (data.users.ids, data.items.ids) == (["a"], ["x"])


def test_only_the_first_malformed_rows_are_told_one_by_one(tmp_path):
    _, account = read(written(tmp_path, "user,item", *["a"] * 30, "a,x"), malformed="drop")
    assert (account.refused, len(account.first_refused)) == (30, 10)
    assert account.first_refused[-1].endswith("line 11: expected 2 columns, found 1")


def test_the_last_row_of_a_pair_is_that_of_the_latest_time_and_else_the_later_line(tmp_path):
    lines = ["user,item,rating,time", "a,x,1,9", "a,x,2,1", "b,x,3,5", "b,x,4,5"]
    settings = written(tmp_path, *lines) | {"feedback": "explicit", "duplicates": "last"}
    data, account = read(settings, **NAMED)
    assert data.matrix.toarray().tolist() == [[1], [4]]
    assert [place[-6:] for place in account.first_repeated] == ["line 3", "line 4"]
    assert read(settings, rating="rating")[0].matrix.toarray().tolist() == [[2], [4]]


@pytest.mark.parametrize(
    ("lines", "settings", "sentence"),
    [
        (["b,x", "b"], {}, r"log\.csv, line 3: expected 2 columns, found 1; set data\.malformed to drop"),
        (["b,x", "b, "], {}, r"line 3, column 'item': expected an id .*, got an empty cell; set data\.malformed"),
        (
            ["b,x", "a,x", "b,x"],
            {},
            r"log\.csv, line 4: user b and item x are given twice; set data\.duplicates to last",
        ),
        (
            ["b,1"],
            {"user": "usr"},
            r"data\.user: .* has no column 'usr'; its columns are user, item\. Did you mean 'user'",
        ),
        (["b,1"], {"rating": "stars"}, r"data\.rating: .* has no column 'stars'"),
        (["b,1"], {"rating": "item"}, r"data: two of user, item, rating name the same column"),
        (
            ["b,0"],
            {"item": "user", "user": "item"} | {"feedback": "explicit"},
            r"data\.feedback explicit needs ratings",
        ),
        (["b,1"], {"threshold": 3.0}, r"data\.threshold needs ratings; name their column with data\.rating"),
        (["b,1"], {"separator": "--"}, r"data\.separator must be :: or one character of ASCII, got '--'"),
        (["b", "c"], {"malformed": "drop"}, r"log\.csv holds no interaction; 2 rows are malformed"),
    ],
)
def test_what_does_not_fit_is_refused(tmp_path, lines, settings, sentence):
    with pytest.raises(UserError, match=sentence):
        read(written(tmp_path, "user,item", *lines), **settings)
    with pytest.raises(UserError, match=r"data\.path: say which log"):
        load_interactions("log")


def test_a_rating_of_0_is_malformed_where_ratings_are_kept(tmp_path):
    settings = written(tmp_path, "user,item,rating", "a,x,0", "b,x,2") | {"rating": "rating"}
    assert read(settings)[0].matrix.nnz == 2
    with pytest.raises(UserError, match="line 2, column 'rating': expected a rating other than 0"):
        read(settings, feedback="explicit")
    assert read(settings, feedback="explicit", malformed="drop")[0].users.ids == ["b"]


def test_nothing_in_parquet_is_malformed(tmp_path):
    from pyarrow import parquet, table

    parquet.write_table(table({"user": [1, None, 2], "item": ["x", "y", None]}), tmp_path / "log.parquet")
    data, account = read({"path": str(tmp_path / "log.parquet")}, malformed="drop")
    assert (data.users.ids, data.items.ids, account.refused) == (["1"], ["x"], 2)
    assert account.first_refused[0].endswith(
        "row 2, column 'user': expected an id as text or as a whole number, got nothing"
    )


def test_times_that_all_read_as_days_are_refused(tmp_path):
    with pytest.raises(UserError, match=r"line 2, column 'time': expected seconds .* write 2024-05-31\), got 20240531"):
        read(written(tmp_path, "user,item,time", "a,x,20240531", "b,x,20240601"), time="time")


def test_loading_says_how_many_rows_are_left_out(tmp_path, capsys):
    load_interactions({"name": "log", "malformed": "drop"} | written(tmp_path, "user,item", "a,x", "a"))
    assert "log.csv: 1 of 2 rows are malformed and left out" in capsys.readouterr().out
