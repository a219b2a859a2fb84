"""Interface of a domain for command line and Python API: generators, classifiers, recommenders, user attributes.

``msgm.domains`` finds the client of a config or of a report. A domain whose comparisons the engine runs is a
``msgm.study.engine.Domain``, which is a client already.
"""

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import MappingProxyType
from typing import Any, ClassVar, Generic, Protocol, TypeVar

from msgm.cards.views import Card
from msgm.errors import UserError
from msgm.runs import Run
from msgm.settings import Source
from msgm.study.judging import Report, Row
from msgm.study.tuning import Tunable
from msgm.tables import Table


class Settings(Protocol):
    """The config of a comparison."""

    name: str
    seed: int

    def to_dict(self) -> dict[str, Any]:
        """Return all settings, defaults included."""


C = TypeVar("C", bound=Settings)


class Client(ABC, Generic[C]):
    """The public interface of a domain. ``C`` is its config type.

    Attributes:
        name: of the domain, as configs and messages have it.
        kind: of its reports and run folders; None, for generators, whose reports name no kind.
        options: names of options of ``compare`` beside config and folder.
        verbs: names of options of ``train``, ``unlearn`` and ``tune`` beside config, source and folder, by verb.
        metrics: name of the config's setting that lists the metrics.
    """

    name: ClassVar[str]
    kind: ClassVar[str | None]
    options: ClassVar[tuple[str, ...]]
    verbs: ClassVar[Mapping[str, tuple[str, ...]]] = MappingProxyType({})
    metrics: ClassVar[str] = "metrics"

    @abstractmethod
    def load(self, source: Source, overrides: Sequence[str] = ()) -> C:
        """Return the experiment of a config, with its defaults.

        Raises:
            UserError: a missing or malformed file, an unknown key, a wrong type, or a value out of range.
        """

    @abstractmethod
    def compare(self, config: C, out: Path | str | None = None, **options: Any) -> Run:
        """Run and measure the rows of a config, and write the report; ``options`` are among ``takes()``.

        Raises:
            UserError: bad settings, an unknown row, or a folder that holds another experiment.
        """

    def takes(self, verb: str = "compare") -> tuple[str, ...]:
        """Return the names of all options of a verb, including those common to all domains."""
        return self.options if verb == "compare" else self.verbs.get(verb, ())

    def train(self, config: C, out: Path | str | None = None, **options: Any) -> Run:
        """Train the model of a config; ``options`` are among ``takes("train")``.

        Raises:
            UserError: bad settings, or a domain that only compares, as by default.
        """
        raise UserError(f"train: a config of the domain {self.name} is for compare.")

    def unlearn(self, config: C, source: Path | str, out: Path | str | None = None, **options: Any) -> Run:
        """Make the model of ``source`` forget what a config asks; ``options`` are among ``takes("unlearn")``.

        Raises:
            UserError: bad settings, no model there, or a domain that only compares, as by default.
        """
        raise UserError(f"unlearn: a config of the domain {self.name} is for compare.")

    @abstractmethod
    def card(self, report: Report, row: Row) -> Card | None:
        """Return the card of a row; None in a domain whose rows have none."""

    @abstractmethod
    def write_views(self, run: Run, report: Report) -> None:
        """Write report.md, report.html and the cards."""

    @abstractmethod
    def print_report(self, report: Report) -> None:
        """Print the tables and how to read them."""

    def upgraded(self, report: Report) -> Report:
        """Return a report of an earlier version converted to the present format; by default unchanged."""
        return report

    def dry_run(self, config: C, only: Sequence[str] | None, device: str) -> Table:
        """Return what the rows of a config would take, all that are not optional or ``only`` these; writes nothing.

        Raises:
            UserError: an unknown row, one that cannot be built, or a domain that has no dry run, as by default.
        """
        raise UserError(f"--dry-run: a {self.name} experiment has none; it is for generators.")

    def tunable(self, config: C, run: Run, source: Path | str | None, device: str) -> Tunable:
        """Return the domain's part of ``msgm tune``.

        Raises:
            UserError: the domain has none.
        """
        raise UserError(f"tune: a {self.name} experiment has no settings to search.")
