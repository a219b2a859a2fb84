"""What standard writers wrote, a log and a request name alike."""

import csv
import io

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from msgm.tabular import read_ids, read_pairs, read_table

# A null byte is no text, and spaces around an id are no part of it.
LETTERS = st.characters(codec="utf-8", exclude_characters="\0")
PLAIN = st.text(LETTERS | st.sampled_from('",\t;|\n\r 019.-'), min_size=1, max_size=8)
IDS = (PLAIN | st.sampled_from(["010", "10", "1.0", "nan", "None", "NULL", "1e3", "yes", '"'])).filter(
    lambda name: name == name.strip()
)
LISTS = st.lists(IDS, min_size=1, max_size=8)
EASY = settings(max_examples=80, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])


def written(rows, delimiter, **options):
    file = io.StringIO(newline="")
    csv.writer(file, delimiter=delimiter, **options).writerows(rows)
    return file.getvalue().encode()


@EASY
@given(ids=LISTS, ending=st.sampled_from(["csv", "TSV"]), quoting=st.sampled_from([csv.QUOTE_MINIMAL, csv.QUOTE_ALL]))
def test_ids_of_a_text_table(tmp_path, ids, ending, quoting):
    file = tmp_path / f"t.{ending}"
    rows = [["user", "n"], *([name, 1] for name in ids)]
    file.write_bytes(written(rows, "," if ending == "csv" else "\t", quoting=quoting))
    assert read_table(file)["user"].ids() == ids


@EASY
@given(ids=LISTS)
def test_ids_of_parquet(tmp_path, ids):
    pa = pytest.importorskip("pyarrow", reason="Parquet is read by pyarrow, which is not installed")
    from pyarrow import parquet

    parquet.write_table(pa.table({"user": ids}), tmp_path / "t.parquet")
    assert read_table(tmp_path / "t.parquet")["user"].ids() == ids


@EASY
@given(ids=LISTS, quoting=st.sampled_from([csv.QUOTE_MINIMAL, csv.QUOTE_ALL]))
def test_ids_of_a_request_file(tmp_path, ids, quoting):
    (tmp_path / "ids").write_bytes(written([[name] for name in ids], ",", quoting=quoting))
    assert read_ids(tmp_path / "ids")[0] == ids


@EASY
@given(pairs=st.lists(st.tuples(IDS, IDS).map(list), min_size=1, max_size=8), delimiter=st.sampled_from(",\t"))
def test_pairs_of_a_request_file(tmp_path, pairs, delimiter):
    (tmp_path / "pairs").write_bytes(written(pairs, delimiter, quoting=csv.QUOTE_ALL))
    assert read_pairs(tmp_path / "pairs")[0] == pairs


@EASY
@given(numbers=st.lists(st.integers(-(2**63), 2**63 - 1), min_size=1, max_size=8))
def test_whole_numbers_of_parquet_are_the_ids_of_the_same_csv(tmp_path, numbers):
    pa = pytest.importorskip("pyarrow", reason="Parquet is read by pyarrow, which is not installed")
    from pyarrow import parquet

    table = pa.table({"user": pa.array(numbers, pa.int64()), "n": [1] * len(numbers)})
    parquet.write_table(table, tmp_path / "t.parquet")
    (tmp_path / "t.csv").write_bytes(written([["user", "n"], *([number, 1] for number in numbers)], ","))
    assert read_table(tmp_path / "t.parquet")["user"].ids() == read_table(tmp_path / "t.csv")["user"].ids()
