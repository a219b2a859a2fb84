"""Checks of settings' ranges: each refuses with one sentence that names the key, the value and what is allowed.

``settings`` is the object that holds the values and ``section`` its place in the configuration, empty at the top. None
passes: where a setting may be None, that means that it is off or chosen elsewhere. NaN never passes.
"""

import math
from typing import Any

from msgm.errors import UserError


def at_least(minimum: int, settings: Any, section: str, *keys: str) -> None:
    """Refuse values below ``minimum`` and infinite ones, also those within a list."""
    for key in keys:
        value = getattr(settings, key)
        numbers = value if isinstance(value, list) else [value]
        if not all(number is None or number >= minimum for number in numbers):
            raise UserError(f"{_named(section, key)} must be at least {minimum}, got {value}.")
        if math.inf in numbers:
            raise UserError(f"{_named(section, key)} must be finite, got {value}.")


def positive(settings: Any, section: str, *keys: str) -> None:
    """Refuse values that are not above zero, or not finite."""
    for key in keys:
        value = getattr(settings, key)
        if value is not None and not 0 < value < math.inf:
            raise UserError(f"{_named(section, key)} must be a positive number, got {value}.")


def below_one(settings: Any, section: str, *keys: str) -> None:
    """Refuse values outside [0, 1)."""
    for key in keys:
        value = getattr(settings, key)
        if not 0 <= value < 1:
            raise UserError(f"{_named(section, key)} must lie in [0, 1), got {value}.")


def at_most_one(settings: Any, section: str, *keys: str) -> None:
    """Refuse values outside [0, 1]."""
    for key in keys:
        value = getattr(settings, key)
        if value is not None and not 0 <= value <= 1:
            raise UserError(f"{_named(section, key)} must lie in [0, 1], got {value}.")


def _named(section: str, key: str) -> str:
    return f"{section}.{key}" if section else key
