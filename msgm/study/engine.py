"""The engine of every comparison: checks the config, runs the cells and writes one report.

A *cell* is the smallest unit of work whose result is stored: one row (a method, an objective) on one request, or one
retrained model. A stored cell with the same settings is not run again, so that repeating a command resumes it. A failed
cell is reported and does not stop the others.

A domain (generators, classifiers, recommenders, attributes of users) is a ``Domain``: it defines the cells and the
contents of the report. Everything else is implemented here.
"""

from abc import abstractmethod
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar, Generic, TypeVar

from threadpoolctl import threadpool_limits  # type: ignore[import-untyped]

from msgm import processes, threads
from msgm.cards.views import Card
from msgm.errors import RunError, UserError, known
from msgm.folders import locked, write_json, write_text
from msgm.plugins import made_by, plugins_of
from msgm.runs import Run, environment
from msgm.settings import dump_yaml, refuse_other
from msgm.study.card import make_card
from msgm.study.cells import Cell, Elsewhere, run_cells
from msgm.study.client import C, Client
from msgm.study.executors import executor_of
from msgm.study.judging import Report, Row, upgraded
from msgm.study.views import Views
from msgm.traces import holders, seal_views

Chosen = Mapping[str, Any]

W = TypeVar("W")


@dataclass(frozen=True)
class Place:
    """Where a comparison runs.

    Attributes:
        run: its folder.
        device: ``auto``, ``cpu``, ``cuda``, ``cuda:1`` or ``mps``.
    """

    run: Run
    device: str = "auto"


class Domain(Client[C], Generic[C, W]):
    """A kind of comparison: defines its cells and the contents of its report.

    ``C`` is its config type; ``W``, its world, holds the shared inputs of its cells: data, split, requests, chosen
    rows.

    Attributes:
        kind: of its reports and run folders.
        views: of its reports; a domain whose rows have no cards has none, and shows them in its own way.
        fixed: settings that are fixed for a run folder; others may be changed when a run is resumed.
        blas_threads: threads of linear algebra, while cells are run; None leaves them as they are.
        launched: whether the processes of ``accelerate launch`` can share its work.
    """

    views: ClassVar[Views]
    fixed: ClassVar[tuple[str, ...]]
    launched: ClassVar[bool] = False
    blas_threads: ClassVar[int | None] = None

    @abstractmethod
    def prepare(self, config: C, place: Place, chosen: Chosen) -> W:
        """Check the config and return the world of a comparison; nothing is written.

        Args:
            config: the experiment.
            place: where it runs.
            chosen: values of the domain's ``options``: names of rows (``only``), requests and models to run, None for
                all.

        Raises:
            UserError: a name that the config does not have, or a request that does not fit the data.
        """

    def begin(self, world: W) -> None:
        """Hook that is called after the folder is occupied and before cells are run; by default does nothing."""
        return

    @abstractmethod
    def cells(self, world: W) -> Iterable[Cell]:
        """Return all cells, always in the same order: other processes know them by their place in it.

        Cells of one group are adjacent. Objects that they cache in memory are dropped when the next group begins, as by
        ``Latest``.
        """

    @abstractmethod
    def report(self, world: W) -> Report:
        """Return the judged report of all cells of the config that are stored in the folder."""

    def compare(self, config: C, out: Path | str | None = None, device: str = "auto", **options: Any) -> Run:
        return compare(self, config, out, device, **options)

    def takes(self, verb: str = "compare") -> tuple[str, ...]:
        return (*self.options, "jobs", "cluster") if verb == "compare" else super().takes(verb)

    def card(self, report: Report, row: Row) -> Card | None:
        return make_card(report, row, self.views.words)

    def write_views(self, run: Run, report: Report) -> None:
        self.views.write(run, report)

    def print_report(self, report: Report) -> None:
        self.views.print(report)

    def upgraded(self, report: Report) -> Report:
        return upgraded(report, self.views.words.ladder)

    def __reduce__(self) -> tuple[Callable[..., Any], tuple[Any, ...]]:
        """Make the domain of a plugin picklable for processes that have not imported the plugin's file."""
        files = plugins_of(type(self))
        return (made_by, (files[0]["path"], type(self).__name__)) if files else (type(self), ())

    def occupy(self, config: C, run: Run, chosen: Chosen) -> None:
        """Make the run folder of an experiment, or check that it holds this one.

        Raises:
            UserError: it holds an experiment of another kind, or one with other settings of ``fixed``.
        """
        stored = run.stored_config()
        stored = None if stored is None else self.before(stored)
        if run.manifest.is_file() and run.stored_manifest().get("kind") != self.kind:
            raise UserError(f"{run.path} holds a run of another kind; give another --out.")
        refuse_other(run.path, stored, config.to_dict(), self.fixed)
        run.create()
        write_text(run.config, dump_yaml(self.stored(config, run)))
        write_json(run.manifest, environment() | {"kind": self.kind, "seed": config.seed})

    def publish(self, run: Run, report: Report) -> None:
        """Write a new report with its views and with the list of files in its folder that hold requested items."""
        listed = report | {"artifacts": holders(run.path)}
        write_json(run.report, listed)
        self.write_views(run, listed)

    def before(self, stored: dict[str, Any]) -> dict[str, Any]:
        """Return the settings of an earlier version's folder converted to the present form."""
        return stored

    def stored(self, config: C, run: Run) -> dict[str, Any]:
        """Return the settings as the run folder holds them."""
        return config.to_dict()


@dataclass(frozen=True)
class Begun(Generic[C, W]):
    """A comparison in picklable form for other processes; this process holds the lock of its folder.

    Attributes:
        domain: of the comparison.
        settings: of its config.
        place: where it runs.
        chosen: names of rows, requests and models to run.
    """

    domain: Domain[C, W]
    settings: dict[str, Any]
    place: Place
    chosen: Chosen

    @property
    def blas_threads(self) -> int | None:
        """Threads of linear algebra, while cells are run."""
        return self.domain.blas_threads

    def cells(self) -> Iterable[Cell]:
        """Prepare the comparison and return its cells."""
        config = self.domain.load(self.settings)
        return self.domain.cells(self.domain.prepare(config, self.place, self.chosen))


def compare(
    domain: Domain[C, W],
    config: C,
    out: Path | str | None = None,
    device: str = "auto",
    jobs: int = 1,
    cluster: str | None = None,
    **chosen: Any,
) -> Run:
    """Run and measure the cells of ``config`` and write the report; stored cells are not run again.

    Args:
        domain: of the config.
        config: the experiment.
        out: run folder; by default ``runs/NAME``.
        device: ``auto``, ``cpu``, ``cuda``, ``cuda:1`` or ``mps``.
        jobs: how many cells are run at a time, each in a process of its own.
        cluster: address of a dask scheduler whose workers run the cells; see ``executor_of``.
        chosen: others of the domain's options: names of rows (``only``), ``requests`` and ``models`` to run, by default
            all. The report shows all that are there.

    Raises:
        UserError: an unknown name, a request that does not fit the data, a folder that holds another experiment, or a
            cluster that is not there; nothing is written then.
        RunError: a cell failed, or a process that ran cells was killed; finished cells stay stored.
    """
    run = Run(out or Path("runs") / config.name)
    if processes.count() > 1 and not domain.launched:
        raise UserError(f"compare: a {domain.name} experiment runs in one process; give --jobs in place of a launch.")
    with processes.together(device), locked(run.path):
        threads.keep(run.manifest)
        with executor_of(jobs, cluster) as workers:
            place = Place(run, device)
            world = domain.prepare(config, place, chosen)
            processes.wait()  # until all have read what the first is about to write
            domain.occupy(config, run, chosen)
            domain.begin(world)
            begun = Begun(domain, config.to_dict(), place, chosen)
            with threadpool_limits(limits=domain.blas_threads):
                failed = run_cells(domain.cells(world), Elsewhere(workers, run.path, begun) if workers else None)
        if processes.is_first():
            report = domain.report(world)
            domain.publish(run, report)
            seal_views(run.path)
            domain.print_report(report)
    if failed:
        count = "one model" if len(failed) == 1 else f"{len(failed)} models"
        raise RunError(f"{count} failed, and the same command tries again: {told(failed)}.")
    return run


def told(failed: Mapping[str, str]) -> str:
    """Return a text that lists the failed cells and the reasons."""
    return "; ".join(f"{label}: {text.rstrip('.')}" for label, text in failed.items())


def picked(entries: Mapping[str, Any], names: Sequence[str] | None, option: str, what: str) -> dict[str, Any]:
    """Return the entries that ``names`` pick, those set to null left out; all where no name is given.

    Raises:
        UserError: there is no entry, or none of a name.

    >>> picked({"a": 1, "b": None, "c": 3}, None, "--only", "method")
    {'a': 1, 'c': 3}
    >>> picked({"a": 1, "c": 3}, ["c"], "--only", "method")
    {'c': 3}
    """
    given = {name: entry for name, entry in entries.items() if entry is not None}
    if not given:
        raise UserError(f"{what}s: the config names no {what}, so there is nothing to compare.")
    wanted = [known(name, list(given), option, what) for name in names or given]
    return {name: entry for name, entry in given.items() if name in wanted}
