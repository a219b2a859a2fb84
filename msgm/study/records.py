"""Records of measurements: JSON files with the settings they were made with, read only if these are the same."""

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
    """The keys of every record, beside its measurements."""

    made: dict[str, Any]


def read_record(path: Path, facts: dict[str, Any]) -> dict[str, Any] | None:
    """Return the record at ``path`` if there is one that was made with ``facts``."""
    if not path.is_file():
        return None
    found: dict[str, Any] = read_json(path, Record)
    return found if found.pop("made") == plain(facts) else None


def find_record(path: Path, facts: dict[str, Any]) -> dict[str, Any] | None:
    """Return the record at ``path``, with ``made``, if its facts contain all of ``facts``; it may have more."""
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
        make: makes and measures the model, and returns the record.
        shares: key of the cells that have to be run in the same process; None if there are none.
        after: labels of the cells that it depends on.
    """

    label: str
    place: Path
    facts: dict[str, Any]
    make: Callable[[], dict[str, Any]]
    shares: str | None = field(default=None, kw_only=True)
    after: Collection[str] = field(default=(), kw_only=True)

    @property
    def wanted(self) -> bool:
        """True: the report is made from its record."""
        return True

    @property
    def group(self) -> str:
        """Key of the cells that have to be run in the same process."""
        return self.label if self.shares is None else self.shares

    def record(self) -> dict[str, Any] | None:
        """Return the record, if it is there."""
        return read_record(self.place, self.facts)

    def kept(self) -> bool:
        """Return whether there is a valid record; failed cells are tried again."""
        found = self.record()
        return found is not None and found.get("status") != FAILED

    def run(self) -> str:
        """Make and keep the record."""
        record = self.make()
        write_record(self.place, self.facts, record)
        return _went(record)

    def fail(self, reason: dict[str, Any]) -> None:
        """Store the reason why there are no numbers."""
        write_record(self.place, self.facts, reason)


@dataclass(frozen=True, eq=False)
class ModelCell:
    """A cell that makes a model for other cells; if it fails, those report it.

    Attributes:
        label: what it is called in printed lines.
        there: returns whether the model exists and was made with the same settings.
        make: makes and stores it, and returns a short text on the outcome.
    """

    label: str
    there: Callable[[], bool]
    make: Callable[[], str]

    @property
    def wanted(self) -> bool:
        """False: it is run only for the cells that depend on it."""
        return False

    @property
    def group(self) -> str:
        """Its own: it shares nothing that is only in memory."""
        return self.label

    @property
    def after(self) -> Collection[str]:
        """Empty: it depends on no other cell."""
        return ()

    def kept(self) -> bool:
        """Return whether the model is there."""
        return self.there()

    def run(self) -> str:
        """Make the model."""
        return self.make()

    def fail(self, reason: dict[str, Any]) -> None:
        """Do nothing: the dependent cells report the failure."""


def _went(record: dict[str, Any]) -> str:
    """Return the reason why a cell has no numbers, or its seconds, averaged over seeds."""
    if "reason" in record:
        return str(record["reason"])
    runs = record.get("runs", [record])
    return f"{fmean(run['seconds'] for run in runs):.3f} s" if all("seconds" in run for run in runs) else "done"


def reason_record(error: Exception) -> dict[str, Any]:
    """Return the record of a cell that has no numbers: skipped, where it does not fit, or failed."""
    return {"status": SKIPPED if isinstance(error, UserError) else FAILED, "reason": reason(error)}


def reason(error: Exception) -> str:
    """Return the reason of a failure in one sentence; unexpected errors are printed with traceback on stderr."""
    if isinstance(error, RunError | UserError):
        return str(error)
    if isinstance(error, MemoryError):
        return "the machine has no memory left for this; take smaller batches or less data."
    if not isinstance(error, ArithmeticError | ValueError):
        traceback.print_exception(error, file=sys.stderr)
    first = next(iter(str(error).splitlines()), "").rstrip(".")
    return f"{type(error).__name__}: {first}." if first else f"{type(error).__name__}."
