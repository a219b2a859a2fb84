"""The engine of every comparison: what is asked is checked, cell by cell is run, and one report is written of all.

A *cell* is the smallest piece of work that is kept: one row (a method, an objective) on one request, or one retrained
model. A cell that is there, made with the same settings, is kept, so that the same command goes on where an earlier one
stopped. A cell that fails is a line of the report and does not end the others.

A domain (generators, classifiers, recommenders, attributes of users) is a ``Domain``: it says what a cell is and what
a report shows. Everything else is here, once.
"""

from abc import abstractmethod
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar, Generic, Protocol, TypeVar

from threadpoolctl import threadpool_limits  # type: ignore[import-untyped]

from msgm import threads
from msgm.cards.views import Card
from msgm.errors import UserError, known
from msgm.folders import locked, write_json, write_text
from msgm.runs import Run, environment
from msgm.settings import dump_yaml, refuse_other
from msgm.study.card import make_card
from msgm.study.client import C, Client
from msgm.study.judging import Report, Row, upgraded
from msgm.study.views import Views
from msgm.traces import holders, seal_views

Chosen = Mapping[str, Sequence[str] | None]


class Cell(Protocol):
    """The smallest piece of work that is kept."""

    @property
    def label(self) -> str:
        """What it is called in printed lines."""

    def kept(self) -> bool:
        """Return whether it is there, made with the same settings."""

    def run(self) -> str:
        """Make, measure and keep it, and return in a few words how it went; an expected failure is kept as well."""


W = TypeVar("W")


@dataclass(frozen=True)
class Place:
    """Where a comparison runs.

    Attributes:
        run: its folder.
        device: ``auto``, ``cpu`` or ``cuda``.
    """

    run: Run
    device: str = "auto"


class Domain(Client[C], Generic[C, W]):
    """A kind of comparison: what its cells are, and what its report shows.

    ``C`` is its config; ``W``, its world, is all that its cells need: data, split, requests, chosen rows.

    Attributes:
        kind: of its reports and run folders.
        views: of its reports; a domain whose rows have no cards has none, and shows them in its own way.
        fixed: settings that all of a run folder shares; others may be added or changed when it goes on.
        blas_threads: threads of linear algebra, while cells are run; None leaves them as they are.
    """

    kind: ClassVar[str]
    views: ClassVar[Views]
    fixed: ClassVar[tuple[str, ...]]
    blas_threads: ClassVar[int | None] = None

    @abstractmethod
    def prepare(self, config: C, place: Place, chosen: Chosen) -> W:
        """Return the world of a comparison; nothing is written.

        Args:
            config: the experiment.
            place: where it runs.
            chosen: names of rows (``only``), requests and models to run, None for all.

        Raises:
            UserError: a name that the config does not have, or a request that does not fit the data.
        """

    def begin(self, world: W) -> None:
        """Do what has to be done once the folder is claimed and before cells are run; by default nothing."""
        return

    @abstractmethod
    def cells(self, world: W) -> Iterable[Cell]:
        """Return the cells in the order in which they are run."""

    @abstractmethod
    def report(self, world: W) -> Report:
        """Return the report of all cells that the folder holds for the config, judged."""

    def compare(self, config: C, out: Path | str | None = None, device: str = "auto", **options: Any) -> Run:
        return compare(self, config, out, device, **options)

    def card(self, report: Report, row: Row) -> Card | None:
        return make_card(report, row, self.views.words)

    def write_views(self, run: Run, report: Report) -> None:
        self.views.write(run, report)

    def print_report(self, report: Report) -> None:
        self.views.print(report)

    def upgraded(self, report: Report) -> Report:
        return upgraded(report, self.views.words.ladder)

    def before(self, stored: dict[str, Any]) -> dict[str, Any]:
        """Return the settings of a folder that an earlier version wrote as this version has them."""
        return stored

    def stored(self, config: C, run: Run) -> dict[str, Any]:
        """Return the settings as the run folder holds them."""
        return config.to_dict()


def compare(
    domain: Domain[C, W],
    config: C,
    out: Path | str | None = None,
    device: str = "auto",
    **chosen: Sequence[str] | None,
) -> Run:
    """Run and measure the cells of ``config`` and write the report; what is there already is kept.

    Args:
        domain: of the config.
        config: the experiment.
        out: run folder; by default ``runs/NAME``.
        device: ``auto``, ``cpu`` or ``cuda``.
        chosen: names of rows (``only``), ``requests`` and ``models`` to run; by default all. The report shows all that
            are there.

    Raises:
        UserError: an unknown name, a request that does not fit the data, or a folder that holds another experiment;
            nothing is written then.
    """
    run = Run(out or Path("runs") / config.name)
    with locked(run.path):
        world = domain.prepare(config, Place(run, device), chosen)
        claim(domain, config, run)
        domain.begin(world)
        with threadpool_limits(limits=domain.blas_threads):
            run_cells(domain.cells(world))
        report = domain.report(world) | {"artifacts": holders(run.path)}
        write_json(run.report, report)
        domain.write_views(run, report)
        seal_views(run.path)
        domain.print_report(report)
    return run


def run_cells(cells: Iterable[Cell]) -> None:
    """Run the cells that are not there, and print a line for each."""
    for cell in cells:
        print(f"{cell.label}: {'kept' if cell.kept() else cell.run()}", flush=True)


def claim(domain: Domain[C, W], config: C, run: Run) -> None:
    """Make the run folder of an experiment, or check that it holds this one.

    Raises:
        UserError: it holds an experiment of another kind, or one with other settings of ``fixed``.
    """
    stored = run.stored_config()
    stored = None if stored is None else domain.before(stored)
    if run.manifest.is_file() and run.stored_manifest().get("kind") != domain.kind:
        raise UserError(f"{run.path} holds a run of another kind; give another --out.")
    refuse_other(run.path, stored, config.to_dict(), domain.fixed)
    threads.keep(run.manifest)
    run.create()
    write_text(run.config, dump_yaml(domain.stored(config, run)))
    write_json(run.manifest, environment() | {"kind": domain.kind, "seed": config.seed})


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
