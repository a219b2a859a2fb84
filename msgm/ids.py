"""Parsing of ids (kept as written), positions (decimal numbers) and classes (by name).

An id is text, and two ids are the same when their texts are: 10, 010 and 10.0 are three. In Python a whole number
stands for its decimal text; bools, floats and None are refused as ambiguous. A position in a data set is a number, so
010 is position 10. A class is found by its name, and only where no class has that name does a number find the one class
whose name is equal as a number, as 1 finds 1.0.
"""

import re
from collections.abc import Sequence
from decimal import Decimal
from typing import Any

import numpy as np

from msgm.errors import UserError, nearest

LISTED = 20
LONGEST = 100
"""Digits of a number at most: Python refuses to write out very long ones."""


def as_id(value: Any, key: str, what: str = "an id") -> str:
    """Return an id as text: a text as it was written, a whole number as its decimal digits.

    Args:
        value: from a file, a config or Python.
        key: what an error names, such as ``request.users``, or a file with its line.
        what: what was expected, for the error.

    Raises:
        UserError: a bool, a float, None or anything else that is neither text nor a whole number, or an empty text.
    """
    if isinstance(value, str):
        text = str(value)
        if not text.strip():
            raise UserError(f"{key}: expected {what}, got an empty text.")
        return text
    if _whole(value):
        return str(int(value))
    raise UserError(f"{key}: expected {what} as text or as a whole number, got {shown(value)}.")


def as_index(value: Any, key: str) -> int:
    """Return a position, counted from 0, of which a text gives the decimal digits: ``010`` is 10.

    Whether there is such an item is for the caller to check; a minus sign passes here.

    Args:
        value: a whole number, or a text of ASCII digits with spaces around at most.
        key: what an error names.

    Raises:
        UserError: anything else, a float and a bool among them.
    """
    if _whole(value):
        return int(value)
    if isinstance(value, str) and len(value) <= LONGEST and re.fullmatch(r"-?[0-9]+", value.strip()):
        return int(value)
    raise UserError(f"{key}: expected an index, a whole number in decimal digits, got {shown(value)}.")


def as_list(values: Any, key: str, what: str = "ids") -> list[Any]:
    """Return a list of ids from a request; a single text is refused, as it would be split into letters.

    Args:
        values: a list, a tuple, a range or a one-dimensional array.
        key: what an error names.
        what: what was expected, for the error.

    Raises:
        UserError: anything else, a text, a number, a mapping or a set among them.
    """
    if isinstance(values, list | tuple | range) or (isinstance(values, np.ndarray) and values.ndim == 1):
        return list(values)
    raise UserError(f"{key}: expected a list of {what}, got {shown(values)}.")


def class_number(value: Any, classes: Sequence[str], key: str) -> int:
    """Return the number of the class that ``value`` names.

    The class of exactly that name comes first. Where there is none, and the value is a decimal number without leading
    zeros, it is the class whose name equals it as a number, if there is exactly one.

    Args:
        value: a name, or a whole number that stands for its decimal text.
        classes: names; ``classes[k]`` is the one of number ``k``. Without any, the value is the number.
        key: what an error names.

    Raises:
        UserError: no class is named so, or several are equal as numbers.
    """
    if not classes:
        return as_index(value, key)
    name = as_id(value, key, "a class")
    if name in classes:
        return list(classes).index(name)
    equal = _equal_numbers(name, classes)
    if len(equal) == 1:
        return equal[0]
    known = listed(classes)
    if equal:
        several = " and ".join(classes[k] for k in equal)
        raise UserError(
            f"{key}: {name!r} equals the classes {several} as a number; write one of them; classes: {known}."
        )
    raise UserError(f"{key}: unknown label {name!r}; classes are {known}.{nearest(name, list(classes))}")


def _whole(value: Any) -> bool:
    return isinstance(value, int | np.integer) and not isinstance(value, bool) and abs(int(value)) < 10**LONGEST


def _equal_numbers(text: str, classes: Sequence[str]) -> list[int]:
    """Return the classes whose names equal ``text``, a decimal number without leading zeros; none for other text."""
    if not re.fullmatch(r"-?(0|[1-9][0-9]*)(\.[0-9]+)?", text):
        return []
    wanted = Decimal(text)
    return [k for k, name in enumerate(classes) if _number(name) == wanted]


def _number(name: str) -> Decimal | None:
    """Return the number that a class's name spells in ASCII digits, or None."""
    return Decimal(name) if re.fullmatch(r"[+-]?([0-9]+(\.[0-9]*)?|\.[0-9]+)([eE][+-]?[0-9]{1,6})?", name) else None


def listed(names: Sequence[str]) -> str:
    """Return names as text for an error; of many, only the first ones."""
    return ", ".join(names[:LISTED]) + (", ..." if len(names) > LISTED else "")


def shown(value: Any, longest: int = 60) -> str:
    """Return a value as an error shows it, cut where it is long."""
    try:
        text = repr(value)
    except ValueError:  # an int of more digits than Python writes
        return "a number of thousands of digits"
    return text if len(text) <= longest else f"{text[:longest]}..."
