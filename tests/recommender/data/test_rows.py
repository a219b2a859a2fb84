import numpy as np
import pytest

from msgm.errors import UserError
from msgm.recommender.data import rows as module
from msgm.recommender.data.rows import read_rows, read_text


def written(tmp_path, content):
    path = tmp_path / "data.txt"
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    return path


def test_columns_are_read_and_numbers_parsed(tmp_path):
    rows = read_rows(written(tmp_path, "a::x::4.5\nb::y::-1\n"), "::", 3)
    assert len(rows) == 2
    assert rows.columns == [["a", "b"], ["x", "y"], ["4.5", "-1"]]
    assert rows.numbers(2).tolist() == [4.5, -1]


def test_a_header_is_no_row(tmp_path):
    rows = read_rows(written(tmp_path, "user,item\na,x"), ",", header=True)
    assert (rows.header, rows.columns) == (["user", "item"], [["a"], ["x"]])
    assert rows.where(0).endswith("data.txt, line 2")


@pytest.mark.parametrize("delimiter", ["\t", ",", "::", "|"])
@pytest.mark.parametrize("end", ["\n", "\r\n", "\n\n"])
def test_line_ends_and_blank_lines_count_for_nothing(tmp_path, delimiter, end):
    text = end.join(delimiter.join(row) for row in (["u", "i", "3"], ["v", "j", "4"])) + end
    rows = read_rows(written(tmp_path, text), delimiter, 3)
    assert rows.columns == [["u", "v"], ["i", "j"], ["3", "4"]]


def test_the_fast_way_reads_what_the_slow_way_reads(tmp_path, monkeypatch):
    draws = np.random.default_rng(0).integers(1000, size=(500, 4))
    path = written(tmp_path, "".join("::".join(map(str, row)) + "\n" for row in draws))
    fast = read_rows(path, "::").columns
    monkeypatch.setattr(module, "_split", lambda text, delimiter: None)
    assert read_rows(path, "::").columns == fast
    assert np.array(fast, dtype=int).T.tolist() == draws.tolist()


def test_quotes_hold_delimiters_and_line_ends_in_csv_alone(tmp_path):
    rows = read_rows(written(tmp_path, 'id,title\n1,"Crying, The"\n2,"two\nlines"\n3,x\n'), ",", header=True)
    assert rows.columns[1] == ["Crying, The", "two\nlines", "x"]
    assert rows.where(2).endswith("line 5")
    assert read_rows(written(tmp_path, '"1","x"\n"2","y"\n'), ",").columns == [["1", "2"], ["x", "y"]]
    assert read_rows(written(tmp_path, '1|"a\n2|b\n'), "|").columns[1] == ['"a', "b"]


def test_a_byte_order_mark_is_dropped(tmp_path):
    assert read_rows(written(tmp_path, b"\xef\xbb\xbfuser,item\na,x\n"), ",", header=True).header[0] == "user"


@pytest.mark.parametrize(
    ("content", "sentence"),
    [
        ("", "data.txt holds no rows"),
        ("\n\n", "data.txt holds no rows"),
        ("a\tb\tc\n\na\tb\n", "data.txt, line 3: expected 3 columns, found 2"),
        ("a\tb\nc\td\te\n", "data.txt, line 1: expected 3 columns, found 2"),
        ("a\tb\n", "data.txt, line 1: expected 3 columns, found 2"),
        ("a b c\n", "data.txt, line 1: expected 3 columns, found 1"),
        (b"a\tb\tc\nd\t\xe9\te\n", "data.txt, line 2: this is no UTF-8 text; convert the file to UTF-8"),
        ("a\rb\tc\td\n", "data.txt, line 1"),
    ],
)
def test_malformed_files_are_refused_by_line(tmp_path, content, sentence):
    with pytest.raises(UserError, match=sentence):
        read_rows(written(tmp_path, content), "\t", 3)


@pytest.mark.parametrize("text", ["four", "", "nan", "inf", "3,5"])
def test_what_is_no_number_is_named_with_its_line(tmp_path, text):
    rows = read_rows(written(tmp_path, f"a\t1\n\nb\t{text}\n"), "\t")
    with pytest.raises(UserError, match=f"data.txt, line 3: expected a number in column 2, got {text!r}"):
        rows.numbers(1)


def test_a_missing_file_is_named(tmp_path):
    with pytest.raises(UserError, match=r"cannot read .*gone\.txt: No such file"):
        read_text(tmp_path / "gone.txt")
