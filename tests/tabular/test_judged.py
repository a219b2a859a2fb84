import numpy as np
import pytest

from msgm.errors import UserError
from msgm.tabular import Column
from msgm.tabular.judged import are_dates, judged_ids, judged_numbers, judged_seconds

MANY = [
    ["a", "", "1.0"],
    np.array([1.0, 2.5, np.nan, 2.0**60, 7.0]),
    np.array([True]),
    np.array([3, None, 4, True], dtype=object),
    ["1", "x", "1e400", "16777217", "0.1", "1_0", ""],
    np.array([1.0, np.inf, 1e39]),
    ["0", "-1", "1e12", "noon", "5"],
    ["2024-05-31", "noon", "1969-12-31", "2024-05-31T10:00+02:00"],
    np.array(["2024-05-31", "NaT", "2300-01-01"], dtype="datetime64[s]"),
]


def one_by_one(cells, read):
    """The oracle: each cell as a column of its own, with the column's value or what it expects."""
    values, faults = {}, {}
    for at in range(len(cells)):
        try:
            values[at] = read(Column("c", cells[at : at + 1], lambda _: ""))[0]
        except UserError as error:
            faults[at] = str(error)
    return values, faults


@pytest.mark.parametrize("cells", MANY)
@pytest.mark.parametrize("judge", ["ids", "numbers", "seconds"])
def test_cells_are_judged_as_columns_judge_them_one_by_one(cells, judge):
    values, faults = one_by_one(cells, lambda column: getattr(column, judge)())
    dates = isinstance(cells, list) and any("-05-" in cell for cell in cells)
    judges = {"ids": judged_ids, "numbers": judged_numbers, "seconds": lambda c: judged_seconds(c, dates)}
    found = judges[judge](cells)
    assert set(found.faults) == set(faults)
    assert {at: found.values[at] for at in values} == values
    expected = {at: str(Column("c", cells, lambda _: "").unfit(at, what)) for at, what in found.faults.items()}
    if judge != "seconds":  # there a column of one cell that is no number is read as a date
        assert expected == faults


def test_a_column_of_text_holds_dates_where_its_first_cell_is_no_number():
    assert are_dates(["2024-05-31", "5"])
    assert not are_dates(["5", "2024-05-31"])
    assert not are_dates(np.array([5]))
