import datetime
import decimal
import math
import uuid

import numpy as np
import pytest

from msgm.errors import UserError
from msgm.tabular import read_table

CELLS = ["a", "10", "010", "1.10", "nan", "None", "NULL", "yes", "1e3"]


def parquet(folder, **columns):
    pa = pytest.importorskip("pyarrow", reason="Parquet is read by pyarrow, which is not installed")
    from pyarrow import parquet as files

    files.write_table(pa.table(columns), folder / "t.parquet")
    return read_table(folder / "t.parquet")


def npz(folder, **columns):
    np.savez(folder / "t.npz", **{name: np.asarray(column) for name, column in columns.items()})
    return read_table(folder / "t.npz")


def text(folder, content, name="t.csv"):
    (folder / name).write_bytes(content if isinstance(content, bytes) else content.encode())
    return read_table(folder / name)


def refused(call, *parts):
    with pytest.raises(UserError) as error:
        call()
    assert "\n" not in str(error.value)
    assert all(part in str(error.value) for part in parts), str(error.value)


@pytest.mark.parametrize("name", ["t.csv", "t.CSV", "t.Csv", "t.tsv", "t.TSV"])
@pytest.mark.parametrize("end", ["\n", "\r\n"])
@pytest.mark.parametrize("mark", [b"", b"\xef\xbb\xbf"])
@pytest.mark.parametrize("quote", ["", '"'])
def test_ids_are_texts_as_written_in_every_kind_of_text(tmp_path, name, end, mark, quote):
    delimiter = "\t" if name.lower().endswith("tsv") else ","
    rows = [("user", "n"), *((cell, "1") for cell in CELLS)]
    lines = [delimiter.join(f"{quote}{cell}{quote}" for cell in row) for row in rows]
    table = text(tmp_path, mark + end.join([lines[0], "", *lines[1:], ""]).encode(), name)
    assert table["user"].ids() == CELLS
    assert table.where(0) == f"{tmp_path / name}, line 3"


@pytest.mark.parametrize("name", ["t.PARQUET", "t.Parquet"])
def test_endings_of_parquet_may_be_in_capitals(tmp_path, name):
    table = parquet(tmp_path, user=CELLS)
    (tmp_path / "t.parquet").rename(tmp_path / name)
    assert read_table(tmp_path / name)["user"].ids() == CELLS
    assert table.names == ["user"]


@pytest.mark.parametrize(
    "header", ["user,item,user", "user,item, user", '"user",item,user ', "\ufeffuser,item,user", "user,item,item"]
)
def test_equal_headers_are_refused(tmp_path, header):
    refused(lambda: text(tmp_path, f"{header}\na,x,b\n"), "t.csv: two columns are named ")


def test_equal_columns_of_parquet_are_refused(tmp_path):
    pa = pytest.importorskip("pyarrow", reason="Parquet is read by pyarrow, which is not installed")
    from pyarrow import parquet as files

    files.write_table(pa.table([pa.array(["a"]), pa.array(["b"])], ["user", "user "]), tmp_path / "t.parquet")
    refused(lambda: read_table(tmp_path / "t.parquet"), "two columns are named 'user'")


def test_another_delimiter_is_named(tmp_path):
    refused(lambda: text(tmp_path, "user;item\na;x\n"), "line 1: the columns are separated by ';'; expected commas")
    refused(lambda: text(tmp_path, "user,item\na,x\n", "t.tsv"), "separated by ','; expected tabs")


@pytest.mark.parametrize("content", ["n,user\n1,a\n\n1,\n", "n,user\n1,a\n\n1,  \n", 'n,user\n1,"a"\n\n1,""\n'])
def test_an_empty_cell_is_no_id(tmp_path, content):
    refused(text(tmp_path, content)["user"].ids, "t.csv, line 4, column 'user': expected an id", "got an empty cell")


@pytest.mark.parametrize("write", [parquet, npz])
@pytest.mark.parametrize(
    ("cells", "ids"),
    [
        ([10, 1, 7], ["10", "1", "7"]),
        (np.array([1.0, 2.0, 1e15]), ["1", "2", "1000000000000000"]),
        (np.array([1.0, 16777215], dtype=np.float32), ["1", "16777215"]),
        (np.array([-0.0, 3.0]), ["0", "3"]),
        (np.array([2**63, 2**64 - 1], dtype=np.uint64), ["9223372036854775808", "18446744073709551615"]),
        (["010", " a ", "None"], ["010", "a", "None"]),
        ([b"u1", b"caf\xc3\xa9"], ["u1", "café"]),
        (np.array(["2024-05-31", "1999-01-01"], dtype="M8[D]"), ["2024-05-31", "1999-01-01"]),
    ],
)
def test_ids_of_binary_files_are_the_texts_a_person_would_write(tmp_path, write, cells, ids):
    assert write(tmp_path, user=cells)["user"].ids() == ids


@pytest.mark.parametrize("write", [parquet, npz])
@pytest.mark.parametrize(
    ("cells", "row", "got"),
    [
        (np.array([1.0, math.nan]), 2, "an id as text or as a whole number, got nan"),
        (np.array([1.0, 1.5]), 2, "got 1.5"),
        (np.array([math.inf, 1.0]), 1, "got inf"),
        (np.array([1.0, 2.0**53]), 2, "an id that float64 does not round"),
        (np.array([16777216], dtype=np.float32), 1, "an id that float32 does not round"),
        ([True, False], 1, "got True"),
        (np.array(["2024-05-31", "NaT"], dtype="M8[s]"), 2, "got NaT"),
        (["a", ""], 2, "got an empty cell"),
    ],
)
def test_what_is_no_id_in_a_binary_file_is_refused_by_row_and_column(tmp_path, write, cells, row, got):
    refused(write(tmp_path, user=cells)["user"].ids, f", row {row}, column 'user': expected ", got)


@pytest.mark.parametrize("cells", [[1, None], ["a", None], [1.0, None], [True, None]])
def test_a_null_is_no_id(tmp_path, cells):
    table = parquet(tmp_path, user=cells)
    refused(table["user"].ids, f"row {1 if cells[0] is True else 2}, column 'user': expected an id")


def test_whole_numbers_beside_a_null_keep_their_digits(tmp_path):
    column = parquet(tmp_path, n=[2**53 + 1, None])["n"]
    assert column.texts() == ["9007199254740993", ""]


def test_other_types_of_parquet_are_texts(tmp_path):
    pa = pytest.importorskip("pyarrow", reason="Parquet is read by pyarrow, which is not installed")
    day, key = datetime.date(2024, 5, 31), uuid.UUID(int=7)
    table = parquet(
        tmp_path,
        category=pa.array(["b", "a"]).dictionary_encode(),
        whole=pa.array([decimal.Decimal("12.00"), decimal.Decimal("7.00")]),
        price=pa.array([decimal.Decimal("1.50"), None]),
        day=pa.array([day, None]),
        day64=pa.array([day, day], pa.date64()),
        nanoseconds=pa.array([1_717_149_600_000_000_001, None], pa.timestamp("ns")),
        seconds=pa.array([1_717_149_600, 0], pa.timestamp("s", tz="Europe/Berlin")),
        large=pa.array(["x", "y"], pa.large_string()),
        raw=pa.array([b"x", b"y"], pa.large_binary()),
        half=pa.array(np.array([1, 2.5], dtype=np.float16)),
        single=pa.array(np.array([1.8, np.nan], dtype=np.float32)),
        flag=pa.array([True, None]),
        nothing=pa.nulls(2),
        key=pa.array([key.bytes, None], pa.uuid()) if hasattr(pa, "uuid") else pa.array([str(key), None]),
    )
    assert {name: table[name].texts() for name in table.names} == {
        "category": ["b", "a"],
        "whole": ["12", "7"],
        "price": ["1.5", ""],
        "day": ["2024-05-31", ""],
        "day64": ["2024-05-31", "2024-05-31"],
        "nanoseconds": ["2024-05-31 10:00:00.000000001", ""],
        "seconds": ["2024-05-31 10:00:00", "1970-01-01 00:00:00"],
        "large": ["x", "y"],
        "raw": ["x", "y"],
        "half": ["1", "2.5"],
        "single": ["1.8", ""],
        "flag": ["True", ""],
        "nothing": ["", ""],
        "key": [str(key), ""],
    }
    assert table["whole"].ids() == ["12", "7"]
    refused(table["price"].ids, "row 1, column 'price': expected an id", "got 1.50")


@pytest.mark.parametrize("cells", [[[1], [2]], [{"a": 1}, {"a": 2}], [datetime.timedelta(1), None]])
def test_what_no_cell_can_be_is_refused_only_when_it_is_asked_for(tmp_path, cells):
    table = parquet(tmp_path, user=["a", "b"], other=cells)
    assert table["user"].ids() == ["a", "b"]
    refused(lambda: table["other"], "t.parquet, column 'other': cells of type", "expected text, numbers")


def test_bytes_that_are_no_text_are_refused_by_row(tmp_path):
    refused(lambda: parquet(tmp_path, user=[b"a", b"\xff"])["user"], "row 2, column 'user': expected text in UTF-8")


@pytest.mark.parametrize("value", ["nan", "NaN", "None", "NULL", "Null", "NA", "N/A", "n/a", "<NA>", "NaT", ""])
def test_what_stands_for_nothing_is_no_value_of_a_class_or_a_group(tmp_path, value):
    column = text(tmp_path, f"n,site\n1,a\n1,{value}\n")["site"]
    refused(lambda: column.values("a group's value"), "line 3, column 'site': expected a group's value, got ")
    if value:
        assert column.ids() == ["a", value]
        refused(lambda: column.values("an attribute", optional=True), "or an empty cell where it is not known")
    else:
        assert column.values("an attribute", optional=True) == ["a", ""]


def test_words_are_values(tmp_path):
    words = ["none", "nano", "Nan Madol", "nullable", "NAB"]
    assert text(tmp_path, "site,n\n" + "".join(f"{word},1\n" for word in words))["site"].values("a class") == words


@pytest.mark.parametrize("write", [parquet, npz])
def test_nan_is_no_value_and_infinity_neither(tmp_path, write):
    table = write(tmp_path, a=np.array([1.0, math.nan]), b=np.array([1.0, math.inf]), c=np.array([1.0, 2.5]))
    refused(lambda: table["a"].values("a class"), "row 2, column 'a': expected a class, got nan")
    assert table["a"].values("an attribute", optional=True) == ["1", ""]
    refused(lambda: table["b"].values("an attribute", optional=True), "row 2, column 'b'", "got inf")
    assert table["c"].values("a class") == ["1", "2.5"]


@pytest.mark.parametrize("cell", ["1_0", "٣", "one", "1 0", "0x1F", "nan", "inf", "1e999", "", "--1", "1,5"])
def test_what_is_no_number_is_refused_by_line(tmp_path, cell):
    column = text(tmp_path, f"n\tm\n1\t1\n\n{cell}\t1\n", "t.tsv")["n"]
    refused(column.numbers, "t.tsv, line 4, column 'n': expected a number, got")


@pytest.mark.parametrize("cell", ["16777217", "-16777217", "16777217.0", "9007199254740993", "1e39", "1e-50", "1" * 30])
def test_a_number_that_float32_does_not_hold_is_refused(tmp_path, cell):
    column = text(tmp_path, f"n,m\n1,1\n{cell},1\n")["n"]
    refused(column.numbers, f"line 3, column 'n': expected a number that float32 holds, {''}", f"got {cell!r}")


def test_numbers_that_float32_holds_are_read(tmp_path):
    cells = ["16777216", "0.1", "-2.5e-3", "1e30", "123456.789", " 7 ", "+3", ".5", "1e10"]
    column = text(tmp_path, "n,m\n" + "".join(f"{cell},1\n" for cell in cells))["n"]
    assert column.numbers().dtype == np.float32
    assert column.numbers().tolist() == np.array(list(map(float, cells)), dtype=np.float32).tolist()


@pytest.mark.parametrize("write", [parquet, npz])
def test_numbers_of_binary_files_are_checked_as_well(tmp_path, write):
    lost, big = np.array([0, 16777217]), np.array([0, 2**60 + 1])
    table = write(tmp_path, a=lost, b=lost.astype(float), c=big, d=np.array([0, 2**60]), e=np.array([True, False]))
    for name in "abc":
        refused(table[name].numbers, f"row 2, column '{name}': expected a number that float32 holds")
    assert table["d"].numbers().tolist() == [0, 2**60]
    assert table["e"].numbers().tolist() == [1, 0]


@pytest.mark.parametrize(
    ("cell", "guess"),
    [
        ("1000000000000", "in milliseconds it would be in 2001; divide by 1,000"),
        ("1e15", "in microseconds it would be in 2001"),
        ("1e18", "in nanoseconds it would be in 2001"),
        ("20240531101500", "it reads as a date; write 2024-05-31T10:15"),
        ("1e30", "before 2200, got"),
        ("-1", "before 2200, got '-1'"),
        ("7258118400", "before 2200, got"),
    ],
)
def test_times_outside_1970_to_2200_are_refused_with_a_guess(tmp_path, cell, guess):
    column = text(tmp_path, f"time,n\n1,1\n{cell},1\n")["time"]
    refused(column.seconds, "line 3, column 'time': expected seconds since 1970 and before 2200", guess)


@pytest.mark.parametrize("dates", [["1969-12-31"], ["2200-01-01"], ["2024-01-01", "0001-01-01"]])
def test_dates_outside_1970_to_2200_are_refused(tmp_path, dates):
    column = text(tmp_path, "time,n\n" + "".join(f"{date},1\n" for date in dates))["time"]
    refused(column.seconds, f"line {len(dates) + 1}, column 'time'", f"got '{dates[-1]}'")


def test_days_written_as_numbers_are_refused_when_all_are(tmp_path):
    column = text(tmp_path, "time,n\n20240531,1\n19991231,1\n")["time"]
    refused(column.seconds, "line 2, column 'time'", "every number reads as a day; write 2024-05-31", "'20240531'")
    assert text(tmp_path, "time,n\n20240531,1\n20240532,1\n")["time"].seconds().tolist() == [20240531, 20240532]


def test_days_with_hours_written_as_numbers_are_refused_when_all_are(tmp_path):
    column = text(tmp_path, "time,n\n2024053110,1\n2019123123,1\n")["time"]
    refused(column.seconds, "line 2, column 'time'", "reads as a day and an hour; write 2024-05-31T10:00")
    assert text(tmp_path, "time,n\n2024053110,1\n2024053124,1\n")["time"].seconds()[1] == 2024053124


def test_parquet_with_long_decimals_or_bytes_that_are_no_text(tmp_path):
    pa = pytest.importorskip("pyarrow", reason="Parquet is read by pyarrow, which is not installed")
    from pyarrow import parquet

    long = 10**29 + 1
    parquet.write_table(
        pa.table({"id": pa.array([decimal.Decimal(long)], pa.decimal128(38, 0))}), tmp_path / "a.parquet"
    )
    assert read_table(tmp_path / "a.parquet")["id"].ids() == [str(long)]
    broken = pa.StringArray.from_buffers(1, pa.array([0, 2], pa.int32()).buffers()[1], pa.py_buffer(b"\xff\xfe"))
    parquet.write_table(pa.table({"id": broken}), tmp_path / "b.parquet")
    with pytest.raises(UserError, match=r"b\.parquet, row 1, column 'id': expected text in UTF-8"):
        read_table(tmp_path / "b.parquet")["id"]


def test_times_of_parquet_are_seconds(tmp_path):
    pa = pytest.importorskip("pyarrow", reason="Parquet is read by pyarrow, which is not installed")
    moment = datetime.datetime(2024, 5, 31, 10, tzinfo=datetime.UTC)
    seconds = int(moment.timestamp())
    table = parquet(
        tmp_path,
        ns=pa.array([seconds * 10**9 + 1], pa.timestamp("ns")),
        us=pa.array([moment], pa.timestamp("us", tz="America/New_York")),
        s=pa.array([seconds], pa.timestamp("s")),
        day=pa.array([moment.date()]),
        whole=pa.array([seconds]),
        real=pa.array([seconds + 0.5]),
        ms=pa.array([seconds * 1000]),
        text=pa.array(["2024-05-31T12:00:00+02:00"]),
        missing=pa.array([None], pa.timestamp("ns")),
    )
    for name in ("ns", "us", "s", "whole", "real", "text"):
        assert table[name].seconds().tolist() == [seconds], name
    assert table["day"].seconds().tolist() == [seconds - 36_000]
    refused(table["ms"].seconds, "row 1, column 'ms'", "in milliseconds it would be in 2024")
    refused(table["missing"].seconds, "row 1, column 'missing': expected a date, got NaT")


def test_arrays_that_are_no_columns_are_refused(tmp_path):
    refused(lambda: npz(tmp_path, a=[1, 2], b=[1]), "its arrays differ in length")
    refused(lambda: npz(tmp_path, a=np.zeros((1, 1, 1))), "expected one or two dimensions")
    refused(lambda: npz(tmp_path, a=np.zeros(0)), "holds no rows")
    refused(lambda: npz(tmp_path, a=[1j])["a"], "column 'a': cells of type complex128 are not read")
