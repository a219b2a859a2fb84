import pytest

from msgm.errors import UserError
from msgm.tabular import read_ids, read_pairs


def refused(read, path, text):
    path.write_bytes(text)
    with pytest.raises(UserError) as caught:
        read(path, "--option")
    return str(caught.value)


def test_ids_are_read_with_their_lines(tmp_path):
    file = tmp_path / "ids"
    file.write_bytes(b'\xef\xbb\xbfu1\r\n\n"a,b"\n say "x" \n')
    assert read_ids(file) == (["u1", "a,b", 'say "x"'], [f"{file}, line {k}: " for k in (1, 3, 4)])


def test_pairs_are_read_with_tabs_or_commas(tmp_path):
    file = tmp_path / "pairs"
    file.write_bytes(b'\xef\xbb\xbfa,x\n\nb\ty,1\n"c,2", "z ""q"""\n')
    pairs, places = read_pairs(file)
    assert pairs == [["a", "x"], ["b", "y,1"], ["c,2", 'z "q"']]
    assert places[1] == f"{file}, line 3: "


def test_bad_files_are_one_sentence(tmp_path):
    file = tmp_path / "file"
    assert refused(read_pairs, file, b"a,b\na\n").startswith(f"{file}, line 2: expected user and item")
    assert "line 1: expected user and item" in refused(read_pairs, file, b"a,b,c")
    assert refused(read_pairs, file, b"\n") == f"--option: {file} holds no pair."
    assert refused(read_ids, file, b" \n") == f"--option: {file} holds no id."
    assert "line 1: expected one id" in refused(read_ids, file, b'"a","b"\n')
    assert "line 2: the quote that opens here is never closed" in refused(read_ids, file, b'u\n"a\n')
    assert refused(read_ids, file, b"\xff\xfe\x00") == (
        f"--option: {file}, line 1: this is no UTF-8 text; convert the file to UTF-8."
    )
    with pytest.raises(UserError, match=r"^--option: cannot read .*gone: No such file or directory\.$"):
        read_ids(tmp_path / "gone", "--option")


@pytest.mark.parametrize("end", ["\n", "\r\n", "\r"])
def test_quotes_hold_line_ends_and_lines_are_counted_through_them(tmp_path, end):
    file = tmp_path / "ids"
    file.write_bytes(end.join(['"a', "", 'b"', "", "c", 'd, "e', 'f" g']).encode())
    ids, places = read_ids(file)
    assert ids == [f"a{end}{end}b", "c", 'd, "e', 'f" g']
    assert [place.split()[-1] for place in places] == ["1:", "5:", "6:", "7:"]


def test_a_delimiter_in_quotes_parts_no_pair(tmp_path):
    file = tmp_path / "pairs"
    file.write_bytes(b'"a\tb",x\na,"b\tc"\n"a,b"\tx\n5" pipe\t7" pipe\n a , "x" \n')
    assert read_pairs(file)[0] == [["a\tb", "x"], ["a", "b\tc"], ["a,b", "x"], ['5" pipe', '7" pipe'], ["a", "x"]]


def test_a_quote_that_is_never_closed_is_found_at_once(tmp_path):
    file = tmp_path / "ids"
    assert "line 1: the quote that opens here is never closed" in refused(read_ids, file, b'"a\n' + b"u\n" * 200_000)
