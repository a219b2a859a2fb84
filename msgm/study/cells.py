"""Cells of a comparison: which of them are run, in which order, here or in other processes.

A cell that others come after makes what these read, such as a retrained model. It is run before any of them; one that
is not wanted for its own sake, only where one of them is due. Where it fails they fail with its reason. Cells of one
group share what is costly to make and is kept in memory alone, such as fitted recommenders; one process runs them in
their order.

Another process is told how the comparison is prepared, not what its cells are: it prepares it once, finds the same
cells in the same places, and runs those that it is given.
"""

import os
import pickle
from collections.abc import Callable, Collection, Hashable, Iterable, Iterator, Sequence
from contextlib import redirect_stdout
from dataclasses import dataclass
from functools import lru_cache, partial
from pathlib import Path
from typing import Any, Generic, Protocol, TypeVar

from threadpoolctl import threadpool_limits  # type: ignore[import-untyped]

from msgm import processes
from msgm.errors import Interrupted, RunError
from msgm.study.executors import Task, Workers, run
from msgm.study.records import FAILED, reason_record

Reason = dict[str, Any]
T = TypeVar("T")


class Cell(Protocol):
    """The smallest piece of work that is kept."""

    @property
    def label(self) -> str:
        """What it is called in printed lines; no other cell of the comparison has the same."""

    @property
    def group(self) -> str:
        """What it shares with the cells that have to be run in the same process; its label, where these are none."""

    @property
    def after(self) -> Collection[str]:
        """Labels of the cells that make what it reads."""

    @property
    def wanted(self) -> bool:
        """Whether it is run for its own sake, and not only where a cell that comes after it is due."""

    def kept(self) -> bool:
        """Return whether it is there, made with the same settings."""

    def run(self) -> str:
        """Make, measure and keep it, and return in a few words how it went.

        Raises:
            Exception: of which ``fail`` is told; what is wrong with the machine or was stopped ends the comparison.
        """

    def fail(self, reason: Reason) -> None:
        """Keep why it could not be run, as ``reason_record`` says it."""


class Prepared(Protocol):
    """A comparison as another process takes it up: an object that can be pickled."""

    @property
    def blas_threads(self) -> int | None:
        """Threads of linear algebra, while cells are run; None leaves them as they are."""

    def cells(self) -> Iterable[Cell]:
        """Prepare the comparison and return its cells, always in the same order."""


@dataclass(frozen=True)
class Elsewhere:
    """Where cells are run, if not in this process.

    Attributes:
        workers: the processes.
        folder: of the comparison, whose lock this process holds.
        comparison: as they take it up.
    """

    workers: Workers
    folder: Path
    comparison: Prepared


@dataclass(frozen=True)
class _Ended:
    """A cell that was run: its number, how it went, and why it failed, if it did."""

    number: int
    text: str
    reason: Reason | None = None


def run_cells(cells: Iterable[Cell], elsewhere: Elsewhere | None = None) -> dict[str, str]:
    """Run the cells that are not there and are needed, and print a line for each.

    Args:
        cells: all of the comparison.
        elsewhere: the processes that run them; None runs them in this one.

    Returns:
        Why cells failed, by their labels: a failure ends its own cell alone, and those that come after it.

    Raises:
        RunError: one of these processes was killed, or a cell failed among several processes of a launch.
        OSError: a file that cannot be written.
    """
    every = list(cells)
    due = [number for number, cell in enumerate(every) if not cell.kept()]
    needed = {label for number in due for label in every[number].after}
    for number, cell in enumerate(every):
        if number not in due and cell.wanted:
            print(f"{cell.label}: kept", flush=True)
    failed: dict[str, Reason] = {}
    for stage in _stages(every, [number for number in due if every[number].wanted or every[number].label in needed]):
        begun = [number for number in stage if not _blocked(every[number], failed)]
        for ended in _run_elsewhere(every, begun, elsewhere) if elsewhere else _run_here(every, begun):
            label = every[ended.number].label
            print(f"{label}: {ended.text}", flush=True)
            if ended.reason is not None:
                failed[label] = ended.reason
    return {label: reason["reason"] for label, reason in failed.items() if reason["status"] == FAILED}


def _stages(cells: Sequence[Cell], numbers: Sequence[int]) -> Iterator[list[int]]:
    """Yield the cells to run in stages, each of which comes after those before it alone.

    Raises:
        ValueError: cells wait for each other.
    """
    waiting = list(numbers)
    awaited = {label for number in numbers for label in cells[number].after}
    while waiting:
        there = {cells[number].label for number in waiting}
        ready = [number for number in waiting if not there.intersection(cells[number].after)]
        stage = [number for number in ready if cells[number].label in awaited] or ready
        if not stage:
            raise ValueError(f"cells wait for each other: {', '.join(sorted(there))}")
        yield stage
        waiting = [number for number in waiting if number not in stage]


def _blocked(cell: Cell, failed: dict[str, Reason]) -> bool:
    """Return whether a cell comes after one that failed, and let it fail for the same reason."""
    reason = next((failed[label] for label in cell.after if label in failed), None)
    if reason is not None:
        cell.fail(reason)
        failed[cell.label] = reason
        print(f"{cell.label}: {reason['reason']}", flush=True)
    return reason is not None


def _run_here(cells: Sequence[Cell], numbers: Iterable[int]) -> Iterator[_Ended]:
    for number in numbers:
        try:
            yield _Ended(number, cells[number].run())
        except (OSError, Interrupted):
            raise
        except Exception as error:  # methods, metrics and plugins fail each in their own way
            reason = reason_record(error)
            if processes.sharing() > 1:  # others may wait for this one, and go on only when it has ended
                raise RunError(f"{cells[number].label}: {reason['reason']}") from error
            cells[number].fail(reason)
            yield _Ended(number, reason["reason"], reason)


def _run_elsewhere(cells: Sequence[Cell], numbers: Iterable[int], elsewhere: Elsewhere) -> Iterator[_Ended]:
    groups: dict[str, list[int]] = {}
    for number in numbers:
        groups.setdefault(cells[number].group, []).append(number)
    comparison = pickle.dumps(elsewhere.comparison)
    tasks = [Task(group, partial(_run_group, comparison, tuple(own))) for group, own in groups.items()]
    for _, ended in run(elsewhere.workers, elsewhere.folder, tasks):
        yield from ended


def _run_group(comparison: bytes, numbers: Sequence[int]) -> list[_Ended]:
    """Run cells in this process, for another one."""
    prepared, cells = _taken_up(comparison)
    with threadpool_limits(limits=prepared.blas_threads):
        return list(_run_here(cells, numbers))


@lru_cache(maxsize=1)
def _taken_up(comparison: bytes) -> tuple[Prepared, list[Cell]]:
    """Return the cells of a comparison that another process began; kept from one task to the next."""
    prepared: Prepared = pickle.loads(comparison)
    with open(os.devnull, "w") as nowhere, redirect_stdout(nowhere):  # the other process told it already
        return prepared, list(prepared.cells())


class Latest(Generic[T]):
    """The last of several things of which one at a time is kept in memory.

    >>> latest = Latest()
    >>> latest.get("a", list) is latest.get("a", list)
    True
    """

    def __init__(self) -> None:
        self._found: dict[Hashable, T] = {}

    def get(self, key: Hashable, make: Callable[[], T]) -> T:
        """Return what was made for ``key``, if it is the last; else let that go and ``make`` it."""
        if key not in self._found:
            self._found.clear()
            self._found[key] = make()
        return self._found[key]
