"""Records of what was measured: JSON files that say what they were made with, and are read only for the same."""

import math
import sys
import traceback
from collections.abc import Callable, Collection
from dataclasses import dataclass, field
from pathlib import Path
from statistics import fmean
from typing import Any, TypedDict

from msgm.errors import RunError, UserError
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


@dataclass(frozen=True, eq=False)
class RecordCell:
    """A cell whose result is a record.

    Attributes:
        label: what it is called in printed lines.
        place: where its record lies.
        facts: what the record depends on.
        make: makes and measures it, and returns the record.
        shares: what it shares with the cells that have to be run in the same process; None, where there are none.
        after: labels of the cells that make what it reads.
    """

    label: str
    place: Path
    facts: dict[str, Any]
    make: Callable[[], dict[str, Any]]
    shares: str | None = field(default=None, kw_only=True)
    after: Collection[str] = field(default=(), kw_only=True)

    @property
    def wanted(self) -> bool:
        """True: its record is what the report is made of."""
        return True

    @property
    def group(self) -> str:
        """What is common to the cells that have to be run in the same process."""
        return self.label if self.shares is None else self.shares

    def record(self) -> dict[str, Any] | None:
        """Return the record, if it is there."""
        return read_record(self.place, self.facts)

    def kept(self) -> bool:
        """Return whether there is a record that can be kept; what failed is tried again."""
        found = self.record()
        return found is not None and found.get("status") != FAILED

    def run(self) -> str:
        """Make and keep the record."""
        record = self.make()
        write_record(self.place, self.facts, record)
        return _went(record)

    def fail(self, reason: dict[str, Any]) -> None:
        """Keep why there is no record with numbers."""
        write_record(self.place, self.facts, reason)


@dataclass(frozen=True, eq=False)
class ModelCell:
    """A cell that makes a model for others to read; these say so where it failed.

    Attributes:
        label: what it is called in printed lines.
        there: returns whether the model is there, made with the same settings.
        make: makes and keeps it, and returns in a few words how it went.
    """

    label: str
    there: Callable[[], bool]
    make: Callable[[], str]

    @property
    def wanted(self) -> bool:
        """False: it is made for the cells that come after it."""
        return False

    @property
    def group(self) -> str:
        """Its own: it shares nothing that is in memory alone."""
        return self.label

    @property
    def after(self) -> Collection[str]:
        """None: it reads what the comparison begins with."""
        return ()

    def kept(self) -> bool:
        """Return whether the model is there."""
        return self.there()

    def run(self) -> str:
        """Make the model."""
        return self.make()

    def fail(self, reason: dict[str, Any]) -> None:
        """Leave it to the cells that come after it."""


def _went(record: dict[str, Any]) -> str:
    """Return why a cell has no numbers, or the seconds that it took, of several seeds their mean."""
    if "reason" in record:
        return str(record["reason"])
    runs = record.get("runs", [record])
    return f"{fmean(run['seconds'] for run in runs):.3f} s" if all("seconds" in run for run in runs) else "done"


def reason_record(error: Exception) -> dict[str, Any]:
    """Return the record of a cell that has no numbers: skipped, where it does not fit, or failed."""
    return {"status": SKIPPED if isinstance(error, UserError) else FAILED, "reason": reason(error)}


def reason(error: Exception) -> str:
    """Return why a cell failed, in one sentence; what nobody foresaw is printed in full on the standard error."""
    if isinstance(error, RunError | UserError):
        return str(error)
    if isinstance(error, MemoryError):
        return "the machine has no memory left for this; take smaller batches or less data."
    if not isinstance(error, ArithmeticError | ValueError):
        traceback.print_exception(error, file=sys.stderr)
    first = next(iter(str(error).splitlines()), "").rstrip(".")
    return f"{type(error).__name__}: {first}." if first else f"{type(error).__name__}."
