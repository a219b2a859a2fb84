import numpy as np
import pytest

from msgm.errors import UserError
from msgm.tabular import read_delimited
from msgm.tabular import text as module
from msgm.tabular.text import read_text, split_cells


def written(tmp_path, content):
    path = tmp_path / "data.txt"
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    return path


def columns(path, delimiter, width=None, header=False, quotes=True):
    return split_cells(path, read_text(path), delimiter, width, header, quotes).columns


def test_columns_are_read_and_numbers_parsed(tmp_path):
    table = read_delimited(written(tmp_path, "a::x::4.5\nb::y::-1\n"), "::", ["user", "item", "rating"])
    assert [table[name].texts() for name in table.names] == [["a", "b"], ["x", "y"], ["4.5", "-1"]]
    assert table["rating"].numbers().tolist() == [4.5, -1]


def test_a_header_is_no_row(tmp_path):
    table = read_delimited(written(tmp_path, "user,item\na,x"), ",")
    assert (table.names, table["user"].texts()) == (["user", "item"], ["a"])
    assert table.where(0).endswith("data.txt, line 2")


@pytest.mark.parametrize("delimiter", ["\t", ",", "::", "|"])
@pytest.mark.parametrize("end", ["\n", "\r\n", "\n\n", "\r", "\n   \n"])
def test_line_ends_and_blank_lines_count_for_nothing(tmp_path, delimiter, end):
    text = end.join(delimiter.join(row) for row in (["u", "i", "3"], ["v", "j", "4"])) + end
    assert columns(written(tmp_path, text), delimiter, 3) == [["u", "v"], ["i", "j"], ["3", "4"]]


def test_the_fast_way_reads_what_the_slow_way_reads(tmp_path, monkeypatch):
    draws = np.random.default_rng(0).integers(1000, size=(500, 4))
    path = written(tmp_path, "".join(" ::".join(map(str, row)) + "\r\n" for row in draws))
    fast = columns(path, "::")
    monkeypatch.setattr(module, "_split", lambda text, delimiter, quotes: None)
    assert columns(path, "::") == fast
    assert np.array(fast, dtype=int).T.tolist() == draws.tolist()


@pytest.mark.parametrize("delimiter", [",", "\t"])
def test_quotes_hold_delimiters_and_line_ends(tmp_path, delimiter):
    lines = ["id,title", '1,"Crying,The"', '2,"two\nlines"', "3,x"]
    content = "\n".join(lines).replace(",", delimiter) + "\n"
    table = read_delimited(written(tmp_path, content), delimiter)
    assert table["title"].texts() == [f"Crying{delimiter}The", "two\nlines", "x"]
    assert table.where(2).endswith("line 5")


def test_files_whose_format_has_no_quotes_keep_them(tmp_path):
    assert columns(written(tmp_path, '"1","x"\n"2","y"\n'), ",") == [["1", "2"], ["x", "y"]]
    assert columns(written(tmp_path, '1|"a\n2|b\n'), "|", quotes=False)[1] == ['"a', "b"]


@pytest.mark.parametrize("content", ['a, "x, y" \n', 'a,"x, y"\n', ' a , "x, y"\n', '"a "," x, y"\n'])
def test_spaces_around_cells_are_no_part_of_them(tmp_path, content):
    if content.endswith('" \n'):
        with pytest.raises(UserError, match="line 1: expected ',' or the end of the line after a closing quote"):
            columns(written(tmp_path, content), ",")
    else:
        assert columns(written(tmp_path, content), ",") == [["a"], ["x, y"]]


def test_spaces_around_names_in_the_header_are_no_part_of_them(tmp_path):
    table = read_delimited(written(tmp_path, "user , item\n a,x \n"), ",")
    assert (table.names, table["user"].ids(), table["item"].ids()) == (["user", "item"], ["a"], ["x"])


def test_an_empty_cell_of_the_only_column_is_a_row_when_it_is_quoted(tmp_path):
    assert columns(written(tmp_path, 'a\n""\n\nb\n'), ",") == [["a", "", "b"]]


def test_a_byte_order_mark_is_dropped(tmp_path):
    assert read_delimited(written(tmp_path, b"\xef\xbb\xbfuser,item\na,x\n"), ",").names[0] == "user"


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
        ("a\tb\tc\n".encode("utf-16"), "data.txt, line 1: this is no UTF-8 text"),
        ("a\tb\tc\nd\te\tf\n".encode("utf-16-le"), "data.txt, line 1: a null byte, which is no text"),
        ("a\rb\tc\td\n", "data.txt, line 1: expected 3 columns, found 1"),
        ('a\tb\tc\n"d\te\tf\ng\th\ti\n', "data.txt, line 2: the quote that opens here is never closed"),
        (
            '"a\nb"\tc\td\n"e"f\tg\th\n',
            r"line 3: expected '\\t' or the end of the line after a closing quote",
        ),
    ],
)
def test_malformed_files_are_refused_by_line(tmp_path, content, sentence):
    with pytest.raises(UserError, match=sentence):
        columns(written(tmp_path, content), "\t", 3)


def test_a_missing_file_is_named(tmp_path):
    with pytest.raises(UserError, match=r"cannot read .*gone\.txt: No such file"):
        read_text(tmp_path / "gone.txt")
