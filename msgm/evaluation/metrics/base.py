"""Base of the metrics of generators. A file that registers one makes it known to ``--metrics`` and to the report."""

from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import asdict, dataclass
from typing import Any, ClassVar, Literal

from msgm.config import Config
from msgm.data import Dataset
from msgm.errors import UserError, known
from msgm.evaluation.bench import Bench, Subject
from msgm.registry import Registry, plain
from msgm.runs import Run
from msgm.splits import Split

Row = dict[str, Any]
Report = dict[str, Any]
NOT_MEASURED = "-"


@dataclass(frozen=True)
class Column:
    """One column of a report's table.

    Example:
        >>> column = Column("UR %", "lower", lambda row, report: f"{100 * row['ur']:.1f}")
        >>> column.cell({"ur": 0.021}, {})
        '2.1'

    Attributes:
        heading: its name.
        better: the better direction; empty if neither is.
        cell: maps (row, report) to the cell's text.
    """

    heading: str
    better: Literal["lower", "higher", ""]
    cell: Callable[[Row, Report], str]


class Metric(ABC):
    """A measurement of one model. Subclasses are dataclasses whose fields are its options (``evaluation.options``).

    Example:
        >>> found = METRICS.build({"name": "ur"}).measure(subject)
        >>> found["unlearning_ratio"]["n"]
        20

    In their examples ``subject`` is a ``Subject``: a run's tiny model of digits, of which 20 samples are drawn,
    beside two other models in the place of retrained ones; ``prompted`` is one of a model that reads prompts.

    Attributes:
        table: title of the table that its columns stand in; ``Overview`` is the first one.
        columns: its columns in that table.
        beside_retrained: whether it reads the retrained models of a comparison, which are then trained first.
        of_pairs: whether its numbers are means over pairs of the model with each retrained one (``msgm.study.band``).
    """

    name: ClassVar[str]
    table: ClassVar[str]
    columns: ClassVar[list[Column]]
    beside_retrained: ClassVar[bool] = False
    of_pairs: ClassVar[bool] = False

    @abstractmethod
    def measure(self, subject: Subject) -> dict[str, Any]:
        """Return a JSON tree that is merged into the row, under keys of the metric's own.

        Raises:
            UserError: a requirement is missing, such as weights.
        """

    @abstractmethod
    def protocol(self, bench: Bench) -> dict[str, str]:
        """Return descriptions of how the numbers were measured, by name."""

    @classmethod
    def numbers(cls, row: Row, report: Report) -> dict[str, float | None]:
        """Return, by heading, the numbers that are judged over seeds against retrained models; None: not measured."""
        return {}

    @classmethod
    def granularity(cls, row: Row) -> dict[str, float]:
        """Return, for those of ``numbers`` that count things, the smallest amount by which they can differ."""
        return {}

    @classmethod
    def notes(cls, report: Report) -> list[str]:
        """Return sentences that stand below its table, on what its numbers in a judged report say together."""
        return []

    def check(self, config: Config, dataset: Dataset, split: Split) -> None:  # noqa: B027 - most metrics need nothing
        """Raise a UserError when the metric cannot be measured on this data; called before anything is written."""

    def obstacle(self, split: Split, run: Run | None) -> str | None:
        """Return why it cannot be measured on the model of ``run`` (None: a model made elsewhere); None if it can.

        In a comparison the row states the reason; for a model evaluated alone it is an error.
        """
        return None

    def settings(self) -> dict[str, Any]:
        """Return the options, by name."""
        return {key: plain(value) for key, value in asdict(self).items()}  # type: ignore[call-overload]


METRICS: Registry[Metric] = Registry("evaluation.options")


def build_metrics(names: list[str], options: dict[str, dict[str, Any]]) -> list[Metric]:
    """Return the metrics of ``names`` with their options.

    Example:
        >>> [metric] = build_metrics(["c2st"], {"c2st": {"folds": 3}})
        >>> metric.folds
        3

    Raises:
        UserError: an unknown metric, one that is named twice, or a bad option, also of a metric that is not measured.
    """
    for key, given in (("metrics", names), ("options", list(options))):
        for name in given:
            known(name, sorted(METRICS.entries), f"evaluation.{key}", "metric")
    if len(set(names)) < len(names):
        raise UserError(f"evaluation.metrics names a metric twice: {', '.join(names)}.")
    return METRICS.choose(names, options, METRICS.section)


def measured(row: Row, name: str) -> bool:
    """Return whether the row holds the metric's numbers."""
    return name in row["measured"]
