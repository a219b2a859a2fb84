"""Records of what was measured: JSON files that say what they were made with, and are read only for the same."""

import math
from pathlib import Path
from typing import Any, TypedDict

from msgm.folders import write_json
from msgm.reading import read_json

FAILED, SKIPPED = "failed", "skipped"


class Record(TypedDict):
    """What every record says, beside what was measured."""

    made: dict[str, Any]


def read_record(path: Path, facts: dict[str, Any]) -> dict[str, Any] | None:
    """Return the record at ``path`` if there is one that was made with ``facts``."""
    if not path.is_file():
        return None
    found: dict[str, Any] = read_json(path, Record)
    return found if found.pop("made") == plain(facts) else None


def find_record(path: Path, facts: dict[str, Any]) -> dict[str, Any] | None:
    """Return the record at ``path``, with ``made``, if what it was made with agrees with ``facts`` and may say more."""
    if not path.is_file():
        return None
    found: dict[str, Any] = read_json(path, Record)
    return found if all(found["made"].get(key) == value for key, value in plain(facts).items()) else None


def write_record(path: Path, facts: dict[str, Any], record: dict[str, Any]) -> None:
    """Write a record with the ``facts`` that it was made with, whole or not at all."""
    write_json(path, {"made": plain(facts)} | plain(record))


def plain(value: Any) -> Any:
    """Return ``value`` as JSON can hold it: arrays as lists, numbers that are not finite as None."""
    if isinstance(value, dict):
        return {str(key): plain(part) for key, part in value.items()}
    if hasattr(value, "tolist"):
        return plain(value.tolist())
    if isinstance(value, list | tuple):
        return [plain(part) for part in value]
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    return value
