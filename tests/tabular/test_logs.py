import datetime
import gzip
import sys
import uuid

import pytest

from msgm.errors import UserError
from msgm.tabular import logs as module

pa = pytest.importorskip("pyarrow", reason="logs are read by pyarrow, which is not installed")


def written(folder, content, name="log.csv"):
    path = folder / name
    content = content if isinstance(content, bytes) else content.encode()
    path.write_bytes(gzip.compress(content) if name.endswith(".gz") else content)
    return path


def parquet(folder, **columns):
    from pyarrow import parquet as files

    files.write_table(pa.table(columns), folder / "log.parquet")
    return folder / "log.parquet"


def rows(log, *names):
    """The rows of a log as (line, cells), and the refused lines."""
    found, refused = [], []
    for block in log.blocks(list(names or log.names)):
        cells = [[None if at < 0 else cells[at] for at in places] for cells, places in block.columns.values()]
        found += zip(block.numbers.tolist(), *cells, strict=True)
        refused += block.refused
    return found, refused


@pytest.mark.parametrize("name", ["log.csv", "log.csv.gz", "log.GZ", "log"])
@pytest.mark.parametrize("mark", module.SEPARATORS)
@pytest.mark.parametrize("end", ["\n", "\r\n", "\r"])
def test_every_separator_line_end_and_compression_gives_the_same_rows(tmp_path, name, mark, end):
    name = name.replace("GZ", "gz")
    lines = ["\ufeffuser:item".replace(":", mark), f" a {mark}x", "", f"b{mark} y z ", "  "]
    log = module.open_log(written(tmp_path, end.join(lines), name))
    assert log.names == ["user", "item"]
    assert rows(log) == ([(2, "a", "x"), (4, "b", "y z")], [])


def test_lines_keep_their_numbers_over_blocks_blank_lines_and_refused_ones(tmp_path, monkeypatch):
    lines = [
        "user,item",
        *("" if k % 7 == 0 else f"u{k},i,more" if k % 5 == 0 else f"u{k},i{k}" for k in range(2, 500)),
    ]
    path = written(tmp_path, "\n".join(lines))
    monkeypatch.setattr(module, "CHARACTERS", 100)
    log = module.open_log(path)
    assert len(list(log.blocks(["user"]))) > 30
    found, refused = rows(log)
    assert found == [(k, f"u{k}", f"i{k}") for k in range(2, 500) if k % 7 and k % 5]
    assert refused == [(k, "expected 2 columns, found 3") for k in range(2, 500) if k % 7 and k % 5 == 0]


def test_a_log_is_read_as_far_as_it_is_asked_for(tmp_path, monkeypatch):
    monkeypatch.setattr(module, "CHARACTERS", 10_000)
    path = written(tmp_path, b"user,item\n" + b"a,x\n" * 10_000 + b"\xff,y\n")
    blocks = module.open_log(path).blocks(["user"])
    assert len(next(blocks).numbers) < 3_000
    with pytest.raises(UserError, match=r"log\.csv, after line \d+: this is no UTF-8 text"):
        list(blocks)


def test_each_distinct_cell_of_a_block_is_read_once(tmp_path):
    (block,) = module.open_log(written(tmp_path, "user,item\nb,x\na,x\nb,y\n")).blocks(["item"])
    cells, places = block.columns["item"]
    assert (cells, places.tolist(), list(block.columns)) == (["x", "y"], [0, 0, 1], ["item"])


def test_the_first_line_names_the_columns_unless_it_holds_a_number(tmp_path):
    usual = ["user", "item", "rating", "time"]
    log = module.open_log(written(tmp_path, "1::1193::5\n1::661::3\n"), usual=usual)
    assert (log.names, rows(log, "item")[0]) == (["user", "item", "rating"], [(1, "1193"), (2, "661")])
    log = module.open_log(written(tmp_path, "1\t2\t3\t4\t5\n"), usual=usual)
    assert log.names == [*usual, "4"]
    named = module.open_log(written(tmp_path, "1,2\na,b\n"), header=True)
    assert (named.names, rows(named)[0]) == (["1", "2"], [(2, "a", "b")])
    unnamed = module.open_log(written(tmp_path, "a,b\n"), header=False, usual=usual)
    assert rows(unnamed)[0] == [(1, "a", "b")]


def test_quotes_hold_separators_but_are_cells_of_their_own_between_double_colons(tmp_path):
    log = module.open_log(written(tmp_path, 'user,item\n"a, b","say ""x"""\n'))
    assert rows(log)[0] == [(2, "a, b", 'say "x"')]
    log = module.open_log(written(tmp_path, 'user::item\n"a::b\n'))
    assert rows(log)[0] == [(2, '"a', "b")]


@pytest.mark.parametrize(
    ("content", "options", "sentence"),
    [
        ("", {}, r"log\.csv holds no rows"),
        (" \n\n", {}, r"log\.csv holds no rows"),
        ("\nuser\na\n", {}, r"log\.csv, line 2: expected one of '::', .* between columns, got 'user"),
        ("user,item\n", {"separator": ";"}, r"line 1: expected ';' between columns"),
        ("user,user\na,b\n", {}, r"two columns are named 'user'"),
    ],
)
def test_a_file_that_is_no_log_is_refused_when_it_is_opened(tmp_path, content, options, sentence):
    with pytest.raises(UserError, match=sentence):
        module.open_log(written(tmp_path, content), **options)


@pytest.mark.parametrize(
    ("content", "sentence"),
    [
        ('user,item\na,x\nb,"y\nc,z\n', r"log\.csv, line 3: a quote is not closed on its line"),
        ('user,item\na,"x\nb,"y\n', r"log\.csv, line 2: a quote is not closed on its line"),
        ("user,item\na,x\nb,\0\n", r"log\.csv, line 3: a null byte"),
    ],
)
def test_a_line_that_would_swallow_others_is_refused(tmp_path, content, sentence):
    with pytest.raises(UserError, match=sentence):
        rows(module.open_log(written(tmp_path, content)))


def test_a_file_that_cannot_be_read_is_one_sentence(tmp_path):
    with pytest.raises(UserError, match=r"cannot read .*nowhere: No such file"):
        module.open_log(tmp_path / "nowhere")
    cut = written(tmp_path, "user,item\n" + "".join(f"{k},{k * k}\n" for k in range(999)), "log.csv.gz")
    cut.write_bytes(cut.read_bytes()[:-1000])
    with pytest.raises(UserError, match=r"cannot read .*log\.csv\.gz: Compressed file ended"):
        rows(module.open_log(cut))
    cut.write_bytes(b"plain")
    with pytest.raises(UserError, match=r"cannot read .*log\.csv\.gz: Not a gzipped file"):
        module.open_log(cut)
    with pytest.raises(UserError, match=r"cannot read .*log\.parquet"):
        module.open_log(written(tmp_path, "no Parquet", "log.parquet"))


def test_parquet_is_read_some_rows_at_a_time_with_its_own_types(tmp_path, monkeypatch):
    monkeypatch.setattr(module, "ROWS", 2)
    days = [datetime.date(2024, 5, 31)] * 3
    log = module.open_log(parquet(tmp_path, **{" user ": [1, None, 1], "id": pa.array(["b", "a", "a"]), "day": days}))
    assert (log.names, log.unit, log.place(3)) == (["user", "id", "day"], "row", f"{tmp_path / 'log.parquet'}, row 3")
    assert len(list(log.blocks(["user"]))) == 2
    found, refused = rows(log, "user", "id")
    assert ([(number, user, name) for number, user, name in found], refused) == (
        [(1, 1, "b"), (2, None, "a"), (3, 1, "a")],
        [],
    )
    assert [str(day) for _, day in rows(log, "day")[0]] == ["2024-05-31"] * 3


def test_identifiers_of_parquet_are_text_and_lists_are_no_cells(tmp_path):
    if hasattr(pa, "uuid"):
        one = uuid.UUID(int=7)
        assert rows(module.open_log(parquet(tmp_path, user=pa.array([one.bytes], pa.uuid()))))[0] == [(1, str(one))]
    log = module.open_log(parquet(tmp_path, user=[[1], [2]]))
    with pytest.raises(UserError, match="column 'user': cells of type list.* are not read"):
        rows(log)


def test_without_pyarrow_one_sentence_says_how_to_get_it(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "pyarrow.csv", None)
    with pytest.raises(UserError, match="reading logs needs pyarrow; get it with pip install pyarrow"):
        module.open_log(written(tmp_path, "user,item\na,x\n"))
