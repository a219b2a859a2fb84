"""A column of a table as ids, as values of a class or a group, as numbers, or as moments.

Cells are text, of which the empty one stands for nothing, or an array of numbers, booleans, dates or objects, in which
NaN, NaT and None stand for nothing. Numbers become text as a person writes them: 1.0 is "1".
"""

import math
import re
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime
from decimal import Decimal
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import ArrayLike, NDArray

from msgm.errors import UserError
from msgm.ids import shown

Cells: TypeAlias = list[str] | NDArray[Any]
Place: TypeAlias = Callable[[int], str]
Refusal: TypeAlias = Callable[[int, str], UserError]

FIRST, END = 0, int(datetime(2200, 1, 1, tzinfo=UTC).timestamp())
UNITS = {"milliseconds": 1e3, "microseconds": 1e6, "nanoseconds": 1e9}
YEAR = 365.25 * 86_400
EXACT = 2**53
"""Below it every whole number is exact in float64."""
MOMENT = "seconds since 1970, or a date as in ISO 8601"
ABSENT = {"nan", "null", "na", "n/a", "#n/a", "#na", "<na>", "nat", "-nan"}
"""Texts, in small letters, that programs write for a value that is not known; ``None`` is another, ``none`` a word."""


@dataclass(frozen=True, eq=False)
class Column:
    """One column; every error names the file, the row and the column, and what was expected.

    Attributes:
        name: of the column.
        cells: (n,) text, or an array.
        where: file and line, or file and row, of a row counted from 0.
    """

    name: str
    cells: Cells
    where: Place

    def __len__(self) -> int:
        return len(self.cells)

    def ids(self) -> list[str]:
        """Return the (n,) ids as text.

        Raises:
            UserError: one is missing, or is no text and no whole number, such as 1.5 or true.
        """
        unfit, expected = no_ids(self.cells)
        if len(unfit):
            raise self.unfit(unfit[0], expected)
        return self.texts()

    def texts(self) -> list[str]:
        """Return the (n,) cells as text, empty where there is nothing."""
        if isinstance(self.cells, list):
            return self.cells
        texts = written(self.cells)
        for row in np.flatnonzero(_absent(self.cells)).tolist():
            texts[row] = ""
        return texts

    def values(self, what: str, optional: bool = False) -> list[str]:
        """Return the (n,) values of a class or of a group as text.

        Args:
            what: what an error expects, such as ``a class``.
            optional: whether a cell may be empty.

        Raises:
            UserError: a value is missing, is one of the texts that programs write for that, or is not finite.
        """
        texts = self.texts()
        distinct = set(texts)
        refused = {text for text in distinct if is_absent(text)} | (set() if optional else {""} & distinct)
        if not isinstance(self.cells, list):
            refused |= {"inf", "-inf"} & distinct
        if refused:
            row = next(row for row, text in enumerate(texts) if text in refused)
            raise self.unfit(row, f"{what}, or an empty cell where it is not known" if optional else what)
        return texts

    def numbers(self) -> NDArray[np.float32]:
        """Return the column as (n,) finite numbers in float32.

        Raises:
            UserError: a cell is no finite number, or is one that float32 does not hold.
        """
        return narrowed(self._numbers("a number"), self.cells, self.unfit)

    def seconds(self) -> NDArray[np.int64]:
        """Return seconds since 1970, or dates as in ISO 8601 (UTC where no zone is named), as (n,) whole seconds.

        Raises:
            UserError: a cell is not like the first, lies outside 1970 to 2200, or all cells are days such as 20240531.
        """
        if isinstance(self.cells, list) and not is_number(self.cells[0]):
            return self._dated(self.cells)
        if not isinstance(self.cells, list) and self.cells.dtype.kind == "M":
            absent = np.flatnonzero(np.isnat(self.cells))
            if len(absent):
                raise self.unfit(absent[0], "a date")
            return moments(self.cells.astype("datetime64[s]").astype(np.int64), self.unfit)
        return moments(self._numbers("seconds since 1970"), self.unfit)

    def unfit(self, row: int, expected: str) -> UserError:
        """Return the error of a cell."""
        cell = self.cells[row]
        found = "an empty cell" if isinstance(cell, str) and not cell else shown(cell)
        if not isinstance(cell, str):
            found = "nothing" if cell is None else str(cell)
        return UserError(f"{self.where(int(row))}, column {self.name!r}: expected {expected}, got {found}.")

    def _numbers(self, what: str) -> NDArray[np.float64]:
        """Return (n,) finite numbers."""
        values = parsed(self.cells)
        wrong = np.flatnonzero(~np.isfinite(values))
        if len(wrong):
            raise self.unfit(wrong[0], what)
        return values

    def _dated(self, texts: list[str]) -> NDArray[np.int64]:
        seconds = np.empty(len(texts))
        for row, text in enumerate(texts):
            seconds[row] = dated(text)
            if math.isnan(seconds[row]):
                raise self.unfit(row, MOMENT)
        return moments(seconds, self.unfit)


def dated(text: str) -> float:
    """Return the seconds since 1970 of a date as in ISO 8601, UTC where no zone is named; NaN where it is none."""
    try:
        moment = datetime.fromisoformat(text)
    except ValueError:
        return math.nan
    return (moment if moment.tzinfo else moment.replace(tzinfo=UTC)).timestamp()


def written(cells: NDArray[Any]) -> list[str]:
    """Return an array's cells as the texts that a person would write: 1.0 is "1"."""
    kind = cells.dtype.kind
    if kind == "M":
        return [_short(text.replace("T", " ")) for text in cells.astype(str).tolist()]
    if kind == "O":
        return [_short(format(cell, "f")) if isinstance(cell, Decimal) else str(cell) for cell in cells]
    if kind == "f":
        texts = cells.astype(str).tolist()
        return [str(int(v)) if _is_whole(v) else text for v, text in zip(cells.tolist(), texts, strict=True)]
    return list(map(str, cells.tolist()))


def parsed(cells: Cells) -> NDArray[np.float64]:
    """Return (n,) numbers, NaN where a cell is none."""
    if isinstance(cells, list):
        try:
            values = np.fromiter(map(float, cells), dtype=np.float64, count=len(cells))
        except ValueError:
            values = None
        # Python's float also takes 1_0, and the digits of other scripts.
        joined = "".join(cells)
        if values is None or "_" in joined or not joined.isascii():
            values = np.array([float(cell) if is_number(cell) else math.nan for cell in cells])
        return values
    if cells.dtype.kind == "O":
        return np.array([float(c) if isinstance(c, int | Decimal) else math.nan for c in cells], dtype=np.float64)
    return np.full(len(cells), math.nan) if cells.dtype.kind == "M" else cells.astype(np.float64)


def is_number(text: str) -> bool:
    """Return whether a text is a number in decimal digits, with an exponent or not; or NaN or infinity."""
    try:
        float(text)
    except ValueError:
        return False
    return text.isascii() and "_" not in text


def is_absent(text: str) -> bool:
    """Return whether a text is one that programs write for a value that is not known, such as ``NaN`` or ``NULL``."""
    return text in ("None", "NONE") or text.casefold() in ABSENT


def narrowed(values: NDArray[np.float64], cells: Cells | ArrayLike, unfit: Refusal) -> NDArray[np.float32]:
    """Return numbers in float32, in which models compute.

    A fraction is rounded to float32's 24 bits; a whole number must be kept as it is.

    Args:
        values: (n,) numbers.
        cells: what they were read from, where whole numbers from 2^53 on are looked up.
        unfit: makes the error of a row from what was expected.

    Raises:
        UserError: a whole number would become another one, or a number would become infinite or 0.
    """
    narrow, lost = narrow_cells(values, cells)
    if lost.any():
        row = int(np.flatnonzero(lost)[0])
        raise unfit(row, held(float(narrow[row])))
    return narrow


def narrow_cells(
    values: NDArray[np.float64], cells: Cells | ArrayLike
) -> tuple[NDArray[np.float32], NDArray[np.bool_]]:
    """Return numbers in float32, and which of them it does not hold; arguments as ``narrowed``."""
    with np.errstate(over="ignore", invalid="ignore"):
        narrow = values.astype(np.float32)
        back = narrow.astype(np.float64)
        error, size = np.abs(back - values), np.abs(values)
        lost = (error > size * 2.0**-23) | ((error > 0) & (size < EXACT) & (values == np.rint(values)))
    for row in np.flatnonzero(np.isfinite(values) & (size >= EXACT) & ~lost).tolist():
        whole = _whole(np.asarray(cells)[row] if not isinstance(cells, list) else cells[row])
        lost[row] = whole is not None and whole != int(back[row])
    return narrow, lost


def held(value: float) -> str:
    """Return what is expected of a number that becomes ``value`` in float32."""
    return f"a number that float32 holds, in which models compute and where it is {value:.17g}"


def moments(values: NDArray[Any], unfit: Refusal) -> NDArray[np.int64]:
    """Return seconds since 1970 as (n,) whole seconds.

    Args:
        values: (n,) seconds.
        unfit: makes the error of a row from what was expected.

    Raises:
        UserError: one lies outside 1970 to 2200, which is often another unit, or all of them read as days,
            20240531, or as days and hours, 2024053110.
    """
    outside = np.flatnonzero(~((values >= FIRST) & (values < END)))
    if len(outside):
        raise unfit(int(outside[0]), within(float(values[outside[0]])))
    seconds = values.astype(np.int64)
    if len(seconds) and (seconds == values).all():
        _refuse_dates(seconds, "day", "", unfit)
        if (seconds % 100 < 24).all():
            _refuse_dates(seconds // 100, "day and an hour", f"T{seconds[0] % 100:02}:00", unfit)
    return seconds


def _refuse_dates(days: NDArray[np.int64], what: str, ending: str, unfit: Refusal) -> None:
    """Refuse numbers that all read as days, such as 20240531."""
    year, month, day = days // 10_000, days // 100 % 100, days % 100
    if ((year >= 1900) & (year < 2200) & (month >= 1) & (month <= 12) & (day >= 1) & (day <= 31)).all():
        hint = f"{year[0]}-{month[0]:02}-{day[0]:02}{ending}"
        raise unfit(0, f"seconds since 1970, or dates as in ISO 8601 (every number reads as a {what}; write {hint})")


def within(value: float) -> str:
    """Return what is expected of a number that is no time in seconds."""
    return f"seconds since 1970 and before 2200{_guess(value)}"


def _guess(value: float) -> str:
    """Return what a number that is no time in seconds may be."""
    for unit, factor in UNITS.items():
        if YEAR <= value / factor < END:
            year = datetime.fromtimestamp(value / factor, UTC).year
            return f" (in {unit} it would be in {year}; divide by {factor:,.0f})"
    digits = f"{value:.0f}"
    if len(digits) in (12, 14) and "1900" <= digits[:4] < "2200" and "01" <= digits[4:6] <= "12":
        return f" (it reads as a date; write {digits[:4]}-{digits[4:6]}-{digits[6:8]}T{digits[8:10]}:{digits[10:12]})"
    return ""


def no_ids(cells: Cells) -> tuple[NDArray[np.int64], str]:
    """Return the rows whose cell is no id, and what was expected of them."""
    expected = "an id as text or as a whole number"
    if isinstance(cells, list):
        return np.array([cells.index("")] if "" in cells else [], dtype=np.int64), expected
    kind = cells.dtype.kind
    unfit = _absent(cells) | (kind == "b")
    if kind == "O":
        marks = [isinstance(cell, bool) or (cell is not None and cell != int(cell)) for cell in cells]
        unfit |= np.array(marks, dtype=bool)
    if kind == "f" and not unfit.any():
        unfit = ~np.isfinite(cells) | (cells != np.rint(cells))
        if not unfit.any():
            # From here on a float may be another whole number that was rounded.
            unfit = np.abs(cells) >= 2.0 ** (np.finfo(cells.dtype).nmant + 1)
            expected = f"an id that {cells.dtype} does not round; store ids as whole numbers or text"
    return np.flatnonzero(unfit), expected


def _absent(cells: NDArray[Any]) -> NDArray[np.bool_]:
    """Return (n,) the cells that stand for nothing."""
    kind = cells.dtype.kind
    if kind == "O":
        return np.array([cell is None for cell in cells], dtype=bool)
    if kind == "f":
        return np.isnan(cells)
    return np.isnat(cells) if kind == "M" else np.zeros(len(cells), dtype=bool)


def _short(text: str) -> str:
    """Return a number's or a moment's text without the zeros that end its fraction."""
    return text.rstrip("0").rstrip(".") if "." in text else text


def _is_whole(value: float) -> bool:
    return value.is_integer() and abs(value) < EXACT


def _whole(cell: Any) -> int | None:
    """Return the whole number that a cell is, and None for floats and texts with a point or an exponent."""
    if isinstance(cell, str):
        return int(cell) if re.fullmatch(r"[+-]?[0-9]{1,400}", cell) else None
    if isinstance(cell, Decimal):
        return int(cell) if cell == cell.to_integral_value() else None
    return int(cell) if isinstance(cell, int | np.integer) else None
