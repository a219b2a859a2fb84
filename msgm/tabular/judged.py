"""Distinct cells of a column as ids, numbers or moments, and what is wrong with those that are none.

A table is refused at its first unfit cell (``columns``). Of a log, unfit rows may be left out and are told, so here all
cells are judged, by the same rules.
"""

from dataclasses import dataclass, field
from typing import Any

import numpy as np

from msgm.tabular.columns import (
    END,
    FIRST,
    MOMENT,
    Cells,
    dated,
    held,
    is_number,
    narrow_cells,
    no_ids,
    parsed,
    within,
    written,
)


@dataclass(frozen=True, eq=False)
class Judged:
    """The values of (n,) cells.

    Attributes:
        values: texts, or an array; of an unfit cell it is any value.
        faults: place of an unfit cell to what was expected.
    """

    values: Any
    faults: dict[int, str] = field(default_factory=dict)


def judged_ids(cells: Cells) -> Judged:
    """Return ids as text."""
    fit = np.arange(len(cells))
    faults: dict[int, str] = {}
    while True:  # One kind of fault is found at a time.
        unfit, expected = no_ids([cells[at] for at in fit] if isinstance(cells, list) else cells[fit])
        if not len(unfit):
            return Judged(cells if isinstance(cells, list) else written(cells), faults)
        faults |= dict.fromkeys(fit[unfit].tolist(), expected)
        fit = np.delete(fit, unfit)


def judged_numbers(cells: Cells) -> Judged:
    """Return numbers in float32."""
    values = parsed(cells)
    narrow, lost = narrow_cells(values, cells)
    faults = dict.fromkeys(np.flatnonzero(~np.isfinite(values)).tolist(), "a number")
    return Judged(narrow, {at: held(float(narrow[at])) for at in np.flatnonzero(lost).tolist()} | faults)


def judged_seconds(cells: Cells, dates: bool) -> Judged:
    """Return whole seconds since 1970; ``dates`` says whether text holds dates as in ISO 8601, or numbers."""
    if not isinstance(cells, list) and cells.dtype.kind == "M":
        values = np.where(np.isnat(cells), np.nan, cells.astype("datetime64[s]").astype(np.float64))
        expected = "a date"
    elif isinstance(cells, list) and dates:
        values, expected = np.array([dated(cell) for cell in cells], dtype=np.float64), MOMENT
    else:
        values, expected = parsed(cells), "seconds since 1970"
    unfit = np.flatnonzero(~((values >= FIRST) & (values < END))).tolist()
    faults = {at: within(float(values[at])) if np.isfinite(values[at]) else expected for at in unfit}
    values[unfit] = 0
    return Judged(values.astype(np.int64), faults)


def are_dates(cells: Cells) -> bool:
    """Return whether a column whose first cell is the first of these holds dates, if it is text."""
    return isinstance(cells, list) and not is_number(cells[0])
