from msgm.tables import Table, aligned

HEAD, ROWS = ["row", "value"], [["a", "1.5"], ["longer", "12345.5"]]


def test_aligned_tables_have_the_first_column_left_and_the_others_right():
    assert aligned(HEAD, ROWS) == ["row       value", "a           1.5", "longer  12345.5"]


def test_cells_of_several_lines_stand_in_one():
    assert aligned(["a"], [["x\ny"]]) == ["a  ", "x y"]


def test_a_table_is_a_section_with_its_notes():
    made = Table("T", HEAD, ROWS, ["n\n# o"])
    table = ["| row | value |", "| --- | ---: |", "| a | 1.5 |", "| longer | 12345.5 |"]
    assert made.markdown() == ["", "## T", "", *table, "", "- n \\# o"]
    assert made.text().splitlines() == ["T", *aligned(HEAD, ROWS), "n # o"]
