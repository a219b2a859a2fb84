"""Cells of a comparison: selecting those to run and running them in order, here or in other processes.

Some cells make what other cells read, such as a retrained model, and are run before these. If such a cell is not
``wanted`` for its own sake, it is run only if a cell that depends on it is due. If it fails, the dependent cells fail
with its reason. Cells of one group share costly objects that are kept only in memory, such as fitted recommenders; one
process runs them in order.

Another process receives the pickled comparison, not its cells: it prepares it once, obtains the same list of cells, and
runs those whose numbers it is given.
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
    """The smallest unit of work whose result is stored."""

    @property
    def label(self) -> str:
        """Name in printed lines, unique within the comparison."""

    @property
    def group(self) -> str:
        """Key of the cells that have to be run in the same process; its label, if there are no others."""

    @property
    def after(self) -> Collection[str]:
        """Labels of the cells that it depends on."""

    @property
    def wanted(self) -> bool:
        """Whether it is run for its own sake, rather than only when a dependent cell is due."""

    def kept(self) -> bool:
        """Return whether its result is stored and was made with the same settings."""

    def run(self) -> str:
        """Make, measure and store it; return a short text on the outcome.

        Raises:
            Exception: is passed to ``fail``; errors of the machine and interrupts end the comparison instead.
        """

    def fail(self, reason: Reason) -> None:
        """Store the reason of a failure, as ``reason_record`` makes it."""


class Prepared(Protocol):
    """A comparison in picklable form, from which another process obtains the cells."""

    @property
    def blas_threads(self) -> int | None:
        """Threads of linear algebra, while cells are run; None leaves them as they are."""

    def cells(self) -> Iterable[Cell]:
        """Prepare the comparison and return its cells, always in the same order."""


@dataclass(frozen=True)
class Elsewhere:
    """Other processes that run the cells.

    Attributes:
        workers: the processes.
        folder: of the comparison, whose lock this process holds.
        comparison: in picklable form.
    """

    workers: Workers
    folder: Path
    comparison: Prepared


@dataclass(frozen=True)
class _Ended:
    """Outcome of a cell that was run: its number, a line on the result, and the reason of a failure, if any."""

    number: int
    text: str
    reason: Reason | None = None


def run_cells(cells: Iterable[Cell], elsewhere: Elsewhere | None = None) -> dict[str, str]:
    """Run the cells that are needed and not stored yet, and print a line for each.

    Args:
        cells: all of the comparison.
        elsewhere: the processes that run them; None runs them in this one.

    Returns:
        Reasons of failures, by label: a failure ends its own cell and those that depend on it, not the others.

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
    """Yield the cells to run in stages; each stage depends only on earlier ones.

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
    """Return whether a cell depends on a failed one; if so, mark it as failed for the same reason."""
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
    """Worker entry point: run the cells with these numbers in this process."""
    prepared, cells = _taken_up(comparison)
    with threadpool_limits(limits=prepared.blas_threads):
        return list(_run_here(cells, numbers))


@lru_cache(maxsize=1)
def _taken_up(comparison: bytes) -> tuple[Prepared, list[Cell]]:
    """Return the cells of a pickled comparison; cached between tasks."""
    prepared: Prepared = pickle.loads(comparison)
    with open(os.devnull, "w") as nowhere, redirect_stdout(nowhere):  # the other process told it already
        return prepared, list(prepared.cells())


class Latest(Generic[T]):
    """A cache of size one: keeps only the object of the last key.

    >>> latest = Latest()
    >>> latest.get("a", list) is latest.get("a", list)
    True
    """

    def __init__(self) -> None:
        self._found: dict[Hashable, T] = {}

    def get(self, key: Hashable, make: Callable[[], T]) -> T:
        """Return the cached object if ``key`` is the last key; else drop it and call ``make``."""
        if key not in self._found:
            self._found.clear()
            self._found[key] = make()
        return self._found[key]
