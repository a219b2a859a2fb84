from msgm.tables import aligned, markdown_table

HEAD, ROWS = ["row", "value"], [["a", "1.5"], ["longer", "12345.5"]]


def test_aligned_tables_have_the_first_column_left_and_the_others_right():
    assert aligned(HEAD, ROWS) == ["row       value", "a           1.5", "longer  12345.5"]


def test_markdown_tables():
    assert markdown_table(HEAD, ROWS) == ["| row | value |", "| --- | ---: |", "| a | 1.5 |", "| longer | 12345.5 |"]
